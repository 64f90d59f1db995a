"""Makes docs/images/report.png: trains the default recipe and takes a picture of its report.

    python docs/images/make.py        needs chromium

The page is drawn 1280 pixels wide in its light colours, and cut after the learning curves.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import stepwell as sw

WIDTH, HEIGHT = 1280, 1368
PICTURE = Path(__file__).with_name("report.png")


def main() -> None:
    """Trains in a temporary folder and writes the picture."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("docs/images/make.py: no chromium on this machine; install it and run this again")
    with tempfile.TemporaryDirectory() as folder:
        result = sw.train(out=f"{folder}/digits-mlp", quiet=True)
        shot = Path(folder, "shot.png")
        options = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=8000"
        page = Path(result["report"]).resolve().as_uri() + "#light"
        size = f"--window-size={WIDTH},{HEIGHT}"
        where = [f"--user-data-dir={folder}/profile", f"--screenshot={shot}"]
        command = [browser, *options.split(), size, *where, page]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            # 256 colours are all that a page of text and lines has, and a quarter of the bytes.
            image.convert("RGB").quantize(256).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {WIDTH} × {HEIGHT}, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
