"""stepwell inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import print_json, print_notes


@app.command()
def inspect(
    words: Words = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.svg", help="Write a figure.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show signals and gradients by layer on one batch, before any training, or of a RUN.

    Examples: stepwell inspect · stepwell inspect model.init=small-normal --plot signals.svg ·
    stepwell inspect runs/digits-mlp
    """
    from stepwell.report import signals_view

    figure = signals_view.require_svg(plot) if plot is not None else None
    view = _view(words)
    if figure is not None:
        signals_view.write_figure(figure, view)
    if as_json:
        print_json({**view.as_json(), "figure": str(figure) if figure else None})
        return
    print("\n".join(view.lines()))
    print_notes(view.notes)
    if figure is not None:
        print(f"Figure: {figure}")


def _view(words: list[str] | None) -> Any:
    """Of a run folder, if the first word is one, or of a recipe."""
    from stepwell.errors import UserError
    from stepwell.report import signals_view

    if words and "=" not in words[0] and Path(words[0]).is_dir():
        if len(words) > 1:
            raise UserError(f"{words[0]} is a run, which has its recipe: give no {words[1]} with it")
        return signals_view.of_run(words[0])
    return signals_view.of_recipe(*recipe_words(words))
