"""stepwell schedule"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, app
from stepwell.cli.output import can_print, print_json


@app.command()
def schedule(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [KEY=VALUE]...", help="A schedule and keys over its own.", show_default=False
        ),
    ] = None,
    updates: Annotated[
        int, typer.Option(metavar="N", min=2, max=10_000_000, help="Length of the run in updates.")
    ] = 1000,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.svg", help="Write a figure; without NAME, of all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the learning rate along a run; without NAME, list all schedules.

    Examples: stepwell schedule · stepwell schedule cosine warmup=0.1 end=0.01 ·
    stepwell schedule one-cycle lr=0.003 --updates 5000 --plot rate.svg
    """
    from stepwell.report import schedule_view

    figure = schedule_view.require_svg(plot) if plot is not None else None
    if not words:
        views = schedule_view.every(updates)
        if figure is not None:
            schedule_view.write_figure(figure, views)
        if as_json:
            rows = [{"name": view.name, "help": view.help, "keys": view.keys} for view in views]
            print_json({"schedules": rows, "figure": str(figure) if figure else None})
            return
        for view in views:
            print(f"{view.name:<22}{view.help}\n{'':<22}{view.words}")
    else:
        view = schedule_view.read(words, updates)
        if figure is not None:
            schedule_view.write_figure(figure, [view])
        if as_json:
            print_json({**view.as_json(), "figure": str(figure) if figure else None})
            return
        print("\n".join(view.lines(can_print("█"))))
    if figure is not None:
        print(f"Figure: {figure}")
