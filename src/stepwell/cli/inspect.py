"""stepwell inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import print_json, print_notes
from stepwell.errors import UserError


@app.command()
def inspect(
    words: Words = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.svg", help="Write a figure.", show_default=False)
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help="Write a picture of augmented training samples instead.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show signals and gradients by layer on one batch, before any training, or of a RUN.

    Examples: stepwell inspect · stepwell inspect model.init=small-normal --plot signals.svg ·
    stepwell inspect runs/digits-mlp · stepwell inspect augment.crop=1 --augmentation samples.png
    """
    if augmentation is None:
        _signals(words, plot, as_json)
    elif plot is None:
        _augmentation(words, augmentation, as_json)
    else:
        raise UserError("--plot draws signals and --augmentation samples: give one of them at a time")


def _signals(words: list[str] | None, plot: str | None, as_json: bool) -> None:
    from stepwell.report import signals_view

    figure = signals_view.require_svg(plot) if plot is not None else None
    run = _run(words)
    view: Any = signals_view.of_recipe(*recipe_words(words)) if run is None else signals_view.of_run(run)
    if figure is not None:
        signals_view.write_figure(figure, view)
    if as_json:
        print_json({**view.as_json(), "figure": str(figure) if figure else None})
        return
    print("\n".join(view.lines()))
    print_notes(view.notes)
    if figure is not None:
        print(f"Figure: {figure}")


def _augmentation(words: list[str] | None, file: str, as_json: bool) -> None:
    from stepwell.progress import quietly
    from stepwell.report.augmentation_view import write_picture

    run = _run(words)
    recipe, changes = recipe_words(words) if run is None else (str(Path(run) / "recipe.yaml"), {})
    with quietly(as_json):
        found = write_picture(file, recipe, changes)
    if as_json:
        print_json(found)
    else:
        print(f"{found['samples']} samples in {found['epochs']} epochs: {found['file']}")
        print_notes(found["notes"])


def _run(words: list[str] | None) -> str | None:
    """The run folder, if the first word is one; None of a recipe."""
    if not words or "=" in words[0] or not Path(words[0]).is_dir():
        return None
    if len(words) > 1:
        raise UserError(f"{words[0]} is a run, which has its recipe: give no {words[1]} with it")
    return words[0]
