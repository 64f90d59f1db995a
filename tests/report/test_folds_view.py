"""The page of a cross-validation."""

from pathlib import Path

from stepwell import cross_validate
from stepwell.cli.report import report


def test_report_writes_the_folds_page_again(tmp_path: Path) -> None:
    """`stepwell report` on a cross-validation's folder leaves the page as it was, byte for byte."""
    folder = tmp_path / "folds"
    recipe = {"data": "iris", "model.hidden": [4], "training.epochs": 1}
    cross_validate(recipe, folds=2, out=str(folder), quiet=True)
    page = (folder / "report.html").read_bytes()
    report(str(folder))
    assert (folder / "report.html").read_bytes() == page
