"""stepwell evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import print_json, print_metrics, print_notes


@app.command()
def evaluate(
    run: RunPath,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="Data with targets (default: the run's own test part).", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a trained model on data with targets."""
    from stepwell.progress import quietly
    from stepwell.training.predict import evaluate_file

    with quietly(as_json):
        result = evaluate_file(run, file)
    if as_json:
        print_json(result)
    else:
        print(f"{result['samples']} samples")
        print_metrics(result["test"])
        print_notes(result.get("notes", []))
