"""stepwell cross-validate"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import print_json, print_metrics, print_notes
from stepwell.errors import UserError


@app.command("cross-validate")
def cross_validate(
    words: Words = None,
    folds: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many folds (default: 5).", show_default=False),
    ] = None,
    repeats: Annotated[
        int, typer.Option(metavar="R", help="How often the rows are shuffled and folded anew.")
    ] = 1,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Rows that are equal in this column of a table stay in one fold.",
            show_default=False,
        ),
    ] = None,
    inner: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With several values of a key: choose by this many folds of each fold's training rows, "
            "instead of by its validation part.",
            show_default=False,
        ),
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
    """Train once for each of N folds, each tested on rows it has not seen.

    Examples: stepwell cross-validate data=iris · stepwell cross-validate data=wine --folds 10 --repeats 3 ·
    stepwell cross-validate data=wine "optimizer.lr=log(1e-4,1e-1,4)" --inner 3
    """
    from stepwell import library

    if resume is not None:
        if words or out or (folds, repeats, groups, inner) != (None, 1, None, None):
            raise UserError(
                "--resume goes on as it was begun: give no recipe, keys or other options but --json with it"
            )
        result = library.resume_cross_validate(resume, quiet=as_json)
        if not as_json and not result["resumed"]:
            print(f"{resume} was finished before: there is nothing to go on with.", file=sys.stderr)
    else:
        from stepwell.populations.cross_validate.values import listed

        plain, values = listed(words or [])
        path, changes = recipe_words(plain)
        if both := [key for key in values if key in changes]:
            raise UserError(f"{both[0]} is given twice: keep one")
        options = {"folds": folds, "repeats": repeats, "groups": groups, "inner": inner, "values": values}
        result = library.cross_validate(path, **options, out=out, quiet=as_json, **changes)
    if as_json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    from stepwell.report.folds_view import choice_rows, fold_rows, title

    print(title(result) + ":")
    _print_table(*fold_rows(result))
    print("Mean of the folds, with 95 % intervals that allow for the training rows they share:")
    print_metrics(result["mean"])
    if result["choice"] is not None:
        head, rows, sentence = choice_rows(result)
        print(f"Chosen in each fold without the rows that it holds out, by {result['choice']['by']}:")
        _print_table(head, rows)
        print(_narrow(sentence))
    print_notes(result["notes"])
    print(f"Predictions: {result['predictions']}")
    print(f"Report: {result['report']}")


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell; all but the first to the right."""
    head, rows = [_narrow(cell) for cell in head], [[_narrow(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in [head, *rows]:
        first, *others = (
            cell.ljust(w) if k == 0 else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        print("  " + "   ".join([first, *others]).rstrip())


def _narrow(text: str) -> str:
    """98.1 % as the other lines of a terminal have it, 98.1%."""
    from stepwell.report.wording import NARROW

    return text.replace(f"{NARROW}%", "%")
