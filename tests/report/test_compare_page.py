"""The page of a comparison is whole, safe, and drawn by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import UserError
from stepwell.populations.compare.compare import compare
from stepwell.report import compare_cells as cells
from stepwell.report.compare_page import comparison_page, write_comparison
from stepwell.report.wording import Metric

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RULES = {"optimizer": "sgd,momentum", "optimizer.lr": "log(1e-2,1e30,3)"}
CASES: dict[str, dict[str, Any]] = {
    "tuned": {"data": "iris", "model.hidden": [4], **RULES},
    "range": {"data": "diabetes", "model.hidden": [4], "optimizer.lr": "log(1e-3,1,3)"},
    "shapes": {"data": "iris", "model.hidden": "[4],[]", "seeds": 1},
    "halved": {"data": "iris", "model.hidden": [4], **RULES, "halving": True, "training.epochs": 4},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("pages")
    for name, keys in CASES.items():
        _, folder = compare(
            None, {"training.epochs": 2, "seeds": 2, **keys}, out=str(made / name), quiet=True
        )
        write_comparison(folder)
    return {name: made / name for name in CASES}


class Balance(HTMLParser):
    """Which tags are closed that were not open, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.links += [value or "#" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def figures(page: str) -> dict[str, Any]:
    return json.loads(re.findall(r'(?s)<script type="application/json" id="figures">(.*?)</script>', page)[0])


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_balanced_and_says_what_was_found(folders: dict[str, Path], name: str):
    """Tags nest, every entry has its line, and the verdict stands at the top."""
    page = (folders[name] / "compare.html").read_text()
    result = json.loads((folders[name] / "result.json").read_text())
    balance = Balance(page)
    assert not balance.open and not balance.wrong
    body = page.partition("</header>")[0]
    assert result["verdict"].split(";")[0] in body
    for entry in result["entries"]:
        assert f">{entry['name']}</" in page and entry["command"].split()[1] in page
    assert all(link.startswith(("#", "data:")) for link in balance.links)


def test_figures_show_what_they_should(folders: dict[str, Path]):
    """A range alone has its own figure; a tuned one a line an entry, and crosses where runs diverged."""
    found = {name: figures((folders[name] / "compare.html").read_text()) for name in CASES}
    assert {"test", "tuned-0", "curves-loss", "curves-accuracy"} == set(found["tuned"])
    assert "range" in found["range"] and "range" not in found["shapes"]
    names = [trace["name"] for trace in found["tuned"]["tuned-0"]["data"]]
    assert set(names) == {"sgd", "momentum", "diverged"}
    assert found["tuned"]["tuned-0"]["data"][-1]["x"] == [1e14, 1e30] or found["tuned"]["tuned-0"]["data"][
        -1
    ]["x"] == [1e30]
    assert found["range"]["range"]["layout"]["xaxis"]["type"] == "log"
    assert "units of the target" in found["range"]["range"]["layout"]["yaxis"]["title"]["text"]


def test_names_are_shown_and_never_obeyed(tmp_path: Path, folders: dict[str, Path]):
    """An entry called like a script is text, in the page and in the figures."""
    for file in ("result.json", "comparison.yaml"):
        text = (folders["tuned"] / file).read_text().replace("momentum", "<script>alert(1)<\\/script>")
        (tmp_path / file).write_text(text.replace("<\\/", "</") if file.endswith("yaml") else text)
    page = comparison_page(tmp_path)
    assert page.count("<script") == 4 and "&lt;script&gt;alert(1)" in page


def test_a_comparison_that_has_not_ended_has_no_page(tmp_path: Path):
    """It says how to go on; a damaged result is said to be so."""
    (tmp_path / "comparison.yaml").write_text("seeds: 2\n")
    with pytest.raises(UserError, match="--resume"):
        comparison_page(tmp_path)
    (tmp_path / "result.json").write_text('{"entries": 3}')
    with pytest.raises(UserError, match="damaged"):
        comparison_page(tmp_path)


@pytest.mark.parametrize(
    ("percent", "found", "text"),
    [
        (True, (0.97123, 0.96712, 0.97534), "97.12 ± 0.41"),
        (True, (0.5, None, None), "50.00"),
        (False, (57.671, 48.96, 66.38), "57.7 ± 8.7"),
        (False, (0.012346, 0.0121, 0.0126), "0.01235 ± 0.00025"),
        (False, (1234.5, 900.0, 1500.0), "1,234 ± 300"),
        (True, (None, None, None), "–"),
    ],
)
def test_a_mean_has_the_digits_of_its_interval(percent: bool, found: tuple, text: str):
    """Shares in per cent with two decimals, other metrics with two digits of the half width."""
    mean, low, high = found
    assert cells.plus_minus(Metric("metric", percent), {"mean": mean, "low": low, "high": high}) == text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("name", "theme"), [("tuned", "dark"), ("range", "light")])
def test_a_browser_draws_every_figure(folders: dict[str, Path], tmp_path: Path, name: str, theme: str):
    """Chromium, offline: no console message, and each figure drawn."""
    page = folders[name] / "compare.html"
    seen = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--enable-logging=stderr", "--v=0"),
            *("--virtual-time-budget=4000", "--window-size=1280,4000", f"--user-data-dir={tmp_path}"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", f"{page.as_uri()}#{theme}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in seen.stderr
    assert f'data-drawn="{len(figures(page.read_text()))}"' in seen.stdout
    assert "could not be drawn" not in re.sub(r"(?s)<script.*?</script>", "", seen.stdout)
