"""stepwell zoo"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, app
from stepwell.cli.output import print_json


@app.command()
def zoo(
    folders: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FOLDER]...", help="Where to look (default: runs).", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the trained models in folders with their cards."""
    from stepwell.sharing.zoo import table
    from stepwell.sharing.zoo import zoo as find

    cards = find(folders or [])
    if as_json:
        print_json([card.as_json() for card in cards])
    elif cards:
        print("\n".join(table(cards)))
    else:
        print(f"No trained model in {', '.join(folders or ['runs'])}.")
