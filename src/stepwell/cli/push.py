"""stepwell push"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import print_told


@app.command()
def push(
    run: RunPath,
    to: Annotated[
        str, typer.Argument(metavar="TO", help="A new folder, or hf:ORG/NAME.", show_default=False)
    ],
    licence: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Licence for others: mit, cc-by-4.0, ….", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model with its card to a folder or the hub.

    The folder has Hugging Face's layout: config.json, model.safetensors, README.md.
    """
    from stepwell.sharing.push import push as write

    result = write(run, to, licence)
    notes = result.pop("notes")
    print_told(result, f"{run} written to {to}; licence: {result['licence']}.", notes, as_json)
