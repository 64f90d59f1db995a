"""stepwell report"""

from __future__ import annotations

from pathlib import Path

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import print_json


@app.command()
def report(run: RunPath, as_json: Json = False) -> None:
    """Write (again) the page of a run, a cross-validation (report.html) or a comparison (compare.html)."""
    from stepwell.report import folds_view
    from stepwell.report.compare_page import is_comparison, write_comparison
    from stepwell.report.page import write_report

    folder = Path(run).expanduser()
    if is_comparison(folder):
        path = write_comparison(folder)
    elif folds_view.is_cross_validation(folder):
        path = folds_view.write_page(folder)
    else:
        path = write_report(folder)
    print_json({"report": str(path)}) if as_json else print(path)
