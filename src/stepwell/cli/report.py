"""stepwell report"""

from __future__ import annotations

from pathlib import Path

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import print_json


@app.command()
def report(run: RunPath, as_json: Json = False) -> None:
    """Write (again) the page of a run, report.html."""
    from stepwell.report.page import write_report

    path = write_report(Path(run).expanduser())
    print_json({"report": str(path)}) if as_json else print(path)
