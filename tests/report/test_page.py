"""The page is whole, safe against what a run's texts say, and drawn without an error by a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import UserError
from stepwell.report.page import embedded_json, write_report

Make = Callable[..., Path]
TASKS = ["multi-class", "binary", "multi-label", "regression", "text"]
NASTY = "<script>alert(1)</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Collects tags, attributes and texts; notes every tag that is closed but was not open."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def visible(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("script", "style")).split())

    @property
    def figures(self) -> dict[str, Any]:
        source = max((text for tag, text in self.texts if tag == "script" and text.startswith("{")), key=len)
        return json.loads(source)


def report(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", TASKS)
def test_page_is_one_balanced_file_that_fetches_nothing(make_run: Make, task: str) -> None:
    """Tags nest, ids are unique, each figure has its place, and no address points outside the file."""
    run = make_run(task)
    page = report(run)
    assert page.unbalanced == [] and page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"figure-{name}" for name in page.figures} == {i for i in ids if i and i.startswith("figure-")}
    for _, attrs in page.tags:
        for key in ("src", "href"):
            assert (attrs.get(key) or "#").startswith(("#", "data:"))
    assert (run / "report.html").stat().st_size < 10e6
    assert [path.name for path in run.glob(".report-*")] == []


@pytest.mark.parametrize("task", TASKS)
def test_texts_of_the_run_are_shown_and_never_obeyed(make_run: Make, task: str) -> None:
    """Class names, notes and recipes with markup are read as text: the page has our four scripts only."""
    page = report(make_run(task))
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 4
    assert NASTY in page.visible and "Größe 数字" in page.visible
    shown = json.dumps(page.figures, ensure_ascii=False)
    assert NASTY not in shown
    if task == "multi-class":
        assert "&lt;b&gt;6&lt;/b&gt;" in shown


def test_headline_tells_result_interval_and_chance_level(make_run: Make) -> None:
    """Value, 95 % interval, right answers, the mode's share and the turn of the validation loss are said."""
    text = report(make_run("multi-class")).visible.replace("\u202f", " ")
    for part in (
        "97.2 %",
        "95 % interval 95.7 % to 98.7 %",
        "350 of 360 test samples",
        "Always naming the most frequent class would give",
        "from there on the network overfits",
        "rolled back",
        "Constant throughout: beta1 0.9",
    ):
        assert part in text


EXPECTED = {
    "multi-class": {
        "curve-accuracy",
        "confusion",
        "calibration",
        "layer-gradients",
        "layer-updates",
        "speed",
    },
    "binary": {"confusion", "calibration"},
    "multi-label": {"curve-f1", "curve-subset-accuracy", "calibration"},
    "regression": {"curve-rmse", "curve-r2", "predicted-0", "residuals-0", "histogram-0"},
    "text": {"curve-bits-per-character", "gradient-norm", "hyperparameter-0"},
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_gets_its_figures(make_run: Make, task: str) -> None:
    """Every figure has data and a caption; the final test result carries its interval."""
    figures = report(make_run(task)).figures
    assert set(figures) >= EXPECTED[task] | {"curve-loss"}
    assert all(figure["data"] for figure in figures.values())
    final = figures["curve-loss"]["data"][-1]
    assert final["name"] == "final test" and final["error_y"]["array"][0] > 0


def test_captions_speak_of_training_only_where_its_curve_is(make_run: Make) -> None:
    """Of the training part only the loss is logged; a metric's caption compares with nothing absent."""
    page = report(make_run("multi-class"))
    loss, accuracy = [text for tag, text in page.texts if tag == "figcaption"][:2]
    assert page.figures["curve-accuracy"]["data"][0]["name"] == "validation"
    assert "Training falling while validation rises" in loss
    assert accuracy.startswith("Share answered") and "training and validation" not in accuracy


def test_figures_over_time_end_at_the_same_update(make_run: Make) -> None:
    """Whatever their rows, curves and heat maps have one x axis, so that they can be compared."""
    figures = report(make_run("binary", rows=7)).figures.values()
    ends = [f["layout"]["xaxis"] for f in figures if f["layout"]["xaxis"]["title"]["text"] == "updates"]
    assert len(ends) >= 6 and {tuple(x["range"]) for x in ends} == {(0, 1.02 * 350)}


@pytest.mark.parametrize(
    ("task", "data", "label"),
    [
        ("binary", "digits", "row (from 0)"),
        ("binary", "/data/flats.CSV", "line"),
        ("regression", "flats.parquet", "row (from 1)"),
        ("multi-class", "x.npz", "row (from 0)"),
    ],
)
def test_rows_say_from_where_they_are_counted(make_run: Make, task: str, data: str, label: str) -> None:
    """A text table's rows are lines of the file; a Parquet file's count from 1, an array's from 0."""
    run = make_run(task)
    (run / "recipe.yaml").write_text(f"data:\n  name: {data}\n")
    assert label in [written for _, written in report(run).texts]


def test_text_has_no_wrong_labels(make_run: Make) -> None:
    """What to look for among the mistakes depends on what they are."""
    assert "wrong labels" in report(make_run("regression")).visible
    assert "wrong labels" not in report(make_run("text")).visible


def test_an_unfinished_run_names_its_data_without_the_path(make_run: Make) -> None:
    """As the finished page does."""
    run = make_run("regression", finished=False)
    (run / "recipe.yaml").write_text("data:\n  name: /somewhere/far/flats.csv\n")
    text = report(run).visible
    assert "data flats" in text and "data /somewhere" not in text


@pytest.mark.parametrize(("rows", "drawn"), [(1, False), (3, False), (4, True)])
def test_few_speeds_are_a_sentence_and_no_chart(make_run: Make, rows: int, drawn: bool) -> None:
    """A chart with one dot says less than its number."""
    page = report(make_run("binary", rows=rows))
    assert ("speed" in page.figures) is drawn
    assert (f"0 training samples per second, measured {rows} time" in page.visible) is not drawn


def test_an_interrupted_run_gets_a_page_that_says_what_is_missing(make_run: Make) -> None:
    """Without result and evaluation the curves are there, and two sentences say what is not."""
    run = make_run("multi-class", finished=False)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"update": 6050, "split": "tr')
    page = report(run)
    assert "result.json is not there" in page.visible and "evaluation.json is not there" in page.visible
    assert "cannot be read" not in page.visible
    assert "curve-loss" in page.figures and "confusion" not in page.figures
    assert "validation accuracy at update 6,000" in page.visible


@pytest.mark.parametrize("kept", ["recipe.yaml", "metrics.jsonl", "result.json"])
def test_one_file_is_enough_for_a_page(make_run: Make, kept: str) -> None:
    """A run killed at any moment can be reported."""
    run = make_run("regression")
    for path in run.iterdir():
        if path.name != kept:
            path.unlink()
    assert report(run).unbalanced == []


@pytest.mark.parametrize("name", ["result.json", "evaluation.json", "recipe.yaml"])
def test_a_damaged_file_is_named_on_the_page(make_run: Make, name: str) -> None:
    """Damage to one file costs its part of the page only."""
    run = make_run("binary")
    (run / name).write_text("{ [ : oops")
    page = report(run)
    assert f"{name} cannot be read" in page.visible and "curve-loss" in page.figures


def test_not_a_run_folder(tmp_path: Path) -> None:
    """An empty folder, a file and nothing at all are refused in a sentence that names the path."""
    file = tmp_path / "file.txt"
    file.write_text("x")
    for path in (tmp_path, file, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=re.escape(str(path))):
            write_report(path)


def test_an_older_page_survives_a_failed_write(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is replaced in one step or not at all, and no temporary file stays."""
    run = make_run("text", rows=3)
    (run / "report.html").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(run)
    assert (run / "report.html").read_text() == "old" and list(run.glob(".report-*")) == []


@pytest.mark.parametrize("text", ["</script><!--", "a&b\u2028", "八"])
def test_embedded_json_cannot_end_its_script(text: str) -> None:
    """No angle bracket survives, and the value comes back."""
    encoded = embedded_json({"key": text})
    assert not re.search("[<>&]", encoded) and json.loads(encoded) == {"key": text}


def browse(page: Path, theme: str, profile: Path, *actions: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER
    quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync"
    return subprocess.run(
        [
            BROWSER,
            *["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--hide-scrollbars"],
            *quiet.split(),
            *["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--window-size=1280,4000"],
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            *actions,
            f"{page.resolve().as_uri()}#{theme}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("task", "theme"), [(task, "dark" if task in ("binary", "regression") else "light") for task in TASKS]
)
def test_a_browser_draws_every_figure_without_an_error(
    make_run: Make, tmp_path: Path, task: str, theme: str
) -> None:
    """Chromium, offline: no console message, each figure drawn, in the theme that was asked for."""
    run = make_run(task, rows=30)
    figures = report(run).figures
    seen = browse(run / "report.html", theme, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in seen.stderr
    document = re.search(r"<html[^>]*>", seen.stdout)
    assert document and f'data-theme="{theme}"' in document[0]
    assert f'data-drawn="{len(figures)}"' in document[0]
    assert seen.stdout.count('class="plot js-plotly-plot"') == len(figures)
    assert seen.stdout.count('class="main-svg"') >= len(figures)
    assert "could not be drawn" not in re.sub(r"(?s)<script.*?</script>", "", seen.stdout)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_light_and_dark_look_it(make_run: Make, tmp_path: Path) -> None:
    """Screenshots: the corner of the page is nearly white, or nearly black."""
    from PIL import Image

    page = write_report(make_run("text", rows=5))
    for theme, light in (("light", True), ("dark", False)):
        picture = tmp_path / f"{theme}.png"
        browse(page, theme, tmp_path / "profile", f"--screenshot={picture}")
        with Image.open(picture) as image:
            corner = image.convert("L").getpixel((2, 300))
        assert isinstance(corner, int) and (corner > 230 if light else corner < 40)
