"""stepwell inspect"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, Words, app, recipe_words
from stepwell.cli.output import print_json, print_notes
from stepwell.errors import UserError


@app.command()
def inspect(
    words: Words = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png", help="Write a picture of the augmented training samples.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at what a recipe makes of its data before training."""
    from stepwell.progress import quietly
    from stepwell.report.augmentation_view import write_picture

    if augmentation is None:
        raise UserError("say what to look at: --augmentation FILE.png")
    recipe, changes = recipe_words(words)
    with quietly(as_json):
        found = write_picture(augmentation, recipe, changes)
    if as_json:
        print_json(found)
    else:
        print(f"{found['samples']} samples in {found['epochs']} epochs: {found['file']}")
        print_notes(found["notes"])
