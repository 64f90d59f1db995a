"""Makes the pictures of the docs.

    python docs/images/make.py [report] [augmentation]        report needs chromium

report.png: trains the default recipe and takes a picture of its report. The page is drawn 1280 pixels
wide in its light colours, and cut after the learning curves.
augmentation.png: what a network sees of windows of the two photographs that scikit-learn brings along.
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
SHEET = Path(__file__).with_name("augmentation.png")


AUGMENT = {
    "augment.flip": 0.5,
    "augment.crop": 8,
    "augment.rotation": 15,
    "augment.scale": 0.8,
    "augment.jitter": {"strength": 0.4, "hue": 0.05},
    "augment.erasing": 0.3,
    "augment.cutmix": {"alpha": 1.0, "share": 0.5},
}


def report() -> None:
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


def augmentation() -> None:
    """Cuts windows out of the photographs, which become an image folder, and writes the picture."""
    from sklearn.datasets import load_sample_image

    from stepwell.report.augmentation_view import write_picture

    places = {  # top left corners of the windows
        "china": [(40, 60), (150, 130), (240, 260), (140, 400), (90, 230)],
        "flower": [(210, 190), (120, 180), (160, 260), (140, 400), (90, 230)],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, corners in places.items():
            Path(folder, "photographs", name).mkdir(parents=True)
            photograph = Image.fromarray(load_sample_image(f"{name}.jpg"))
            for k, (top, left) in enumerate(corners):
                window = photograph.crop((left, top, left + 144, top + 144))
                window.save(Path(folder, "photographs", name, f"{k}.png"))
        found = write_picture(SHEET, None, {"data": f"{folder}/photographs", "data.test": 0, **AUGMENT})
    with Image.open(SHEET) as image:
        image.quantize(256).save(SHEET, optimize=True)
    print(f"{found['file']}: {SHEET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    made = {"report": report, "augmentation": augmentation}
    for name in sys.argv[1:] or made:
        made[name]()
