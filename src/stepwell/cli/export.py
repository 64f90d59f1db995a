"""stepwell export"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import print_json


@app.command()
def export(
    run: RunPath,
    out: Annotated[
        str,
        typer.Option(metavar="FILE", help="Where to write: .safetensors, .pt2 or .onnx.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Write a trained model for other programs, and check it there."""
    from stepwell.training.export import export as write
    from stepwell.training.export import in_words
    from stepwell.training.predict import trained

    result = write(run, out)
    if as_json:
        print_json(result)
    elif "largest_difference" in result:
        print(
            f"Written to {result['file']}; checked: it differs from the original by "
            f"{result['largest_difference']:.2g} at most."
        )
        print(in_words(trained(run), result))
    else:
        print(f"{result['tensors']} tensors written to {result['file']}")
