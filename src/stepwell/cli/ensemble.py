"""stepwell ensemble"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import counted, print_json, print_notes
from stepwell.errors import UserError


@app.command()
def ensemble(
    words: Words = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="independent (default), folds, snapshots: mean of predictions; average, soup: of weights.",
            show_default=False,
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option(metavar="M", help="How many (default: 5).", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder (default: a new one in runs/).", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Go on with an interrupted one in this folder.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train several networks and serve them as one model; measure what that gains.

    Examples: stepwell ensemble · stepwell ensemble data=table.csv data.target=price --members 8 ·
    stepwell ensemble --kind snapshots training.epochs=60
    """
    from stepwell import library
    from stepwell.populations.ensemble.make import is_ensemble

    if resume is not None:
        if words or out or kind or members:
            raise UserError(
                "--resume goes on with an ensemble as it was begun: give no recipe, keys, --kind, --members "
                "or --out with it"
            )
        if not is_ensemble(resume):
            raise UserError(f"{resume} holds no ensemble: name a folder that stepwell ensemble has begun")
        result = library.resume(resume, quiet=as_json)
        if not as_json and not result["resumed"]:
            print(f"{resume} was finished before: there is nothing to go on with.", file=sys.stderr)
    else:
        path, changes = recipe_words(words)
        result = library.ensemble(
            path, kind=kind or "independent", members=members, out=out, quiet=as_json, **changes
        )
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    from stepwell.report.ensemble_words import gains, table

    told, data = result["ensemble"], result["data"]
    samples = data["train"] + (data["validation"] if told["kind"] == "folds" else 0)
    print(
        f"Trained on {samples:,} samples of {data['name']}: {counted(result['updates'], 'update')} in all, "
        f"{result['seconds']:.1f} s."
    )
    print(f"The model is {told['means']}; it has {result['parameters']:,} weights.")
    for line in (*table(result), *gains(result)):
        print(line)
    print_notes(result.get("notes", []))
    print(f"Report: {result['report']}")
