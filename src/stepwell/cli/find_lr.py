"""stepwell find-lr"""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import can_print, print_json, print_notes
from stepwell.errors import UserError


@app.command("find-lr")
def find_lr(
    words: Words = None,
    low: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Lowest rate (default: the rule's / 10,000).", show_default=False),
    ] = None,
    high: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Highest rate (default: the rule's × 1,000).", show_default=False),
    ] = None,
    updates: Annotated[int, typer.Option(metavar="N", help="Updates over which the rate rises.")] = 200,
    seeds: Annotated[int, typer.Option(metavar="N", help="How many trainings.")] = 5,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.svg", help="Write a figure.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a learning rate by short trainings with a rising rate.

    Examples: stepwell find-lr · stepwell find-lr data=table.csv optimizer=momentum ·
    stepwell find-lr --seeds 9 --plot rates.svg
    """
    from stepwell.populations import find_lr as finding
    from stepwell.progress import quietly
    from stepwell.report import lr_view, schedule_view

    figure = schedule_view.require_svg(plot) if plot is not None else None
    path, changes = recipe_words(words)
    with quietly(as_json):
        recipe, data, found = finding.of_recipe(
            path, changes, low=low, high=high, updates=updates, seeds=seeds
        )
    heading = lr_view.title(recipe, data.name)
    if figure is not None:
        lr_view.write_figure(figure, found, heading)
    if found.rate is None:
        raise UserError(finding.no_rate(found) + (f"; the curves are in {figure}" if figure else ""))
    command = _command(words or [], found.rate)
    if as_json:
        print_json({**found.as_json(), "command": command, "figure": str(figure) if figure else None})
        return
    print("\n".join(lr_view.lines(found, heading, can_print("█"))))
    print(f"\nTrain with it: {command}")
    print_notes(found.notes)
    if figure is not None:
        print(f"Figure: {figure}")


def _command(words: list[str], rate: float) -> str:
    """The command that trains what was tested at this rate."""
    kept = [word for word in words if not word.startswith("optimizer.lr=")]
    return shlex.join(["stepwell", "train", *kept, f"optimizer.lr={rate:g}"])
