"""stepwell pull"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, app
from stepwell.cli.output import print_told


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A pushed folder, or hf:ORG/NAME.", show_default=False)
    ],
    to: Annotated[str, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Fetch a pushed model and verify it.

    The new folder is taken by predict, evaluate, export, push and model.from like a run folder.
    """
    from stepwell.sharing.push import pull as fetch

    result = fetch(source, to)
    notes = result.pop("notes")
    print_told(result, f"{source} verified and written to {to}.", notes, as_json)
