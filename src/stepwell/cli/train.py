"""stepwell train"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import counted, print_json, print_metrics, print_notes
from stepwell.errors import UserError


@app.command()
def train(
    words: Words = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Run folder (default: a new one in runs/).", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Go on with an interrupted run in this folder.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train what a recipe says; without one, an MLP on digits.

    Examples: stepwell train · stepwell train data=table.csv data.target=price ·
    stepwell train --resume runs/digits-mlp
    """
    from stepwell import library

    if resume is not None:
        if words or out:
            raise UserError(
                "--resume goes on with a run as it was begun: give no recipe, keys or --out with it"
            )
        result = library.resume(resume, quiet=as_json)
        if not as_json and not result["resumed"]:
            print(f"{resume} was finished before: there is nothing to go on with.", file=sys.stderr)
    else:
        path, changes = recipe_words(words)
        result = library.train(path, out=out, quiet=as_json, **changes)
    if as_json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    seconds, data = result["seconds"], result["data"]
    print(
        f"Trained {result['parameters']:,} weights on {data['train']:,} samples of {data['name']}: "
        f"{counted(result['updates'], 'update')}, {counted(result['epochs'], 'epoch')}, {seconds:.1f} s."
    )
    if result["test"]:
        print(f"On {data['test']:,} test samples, with 95 % intervals:")
        print_metrics(result["test"])
    elif result["validation"]:
        print(f"There is no test part; on {data['validation']:,} validation samples:")
        print_metrics({name: {"value": value} for name, value in result["validation"].items()})
    print_notes(result.get("notes", []))
    print(f"Report: {result['report']}")
