"""The command's frame: its options, and the arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stepwell.errors import UserError

app = typer.Typer(
    name="stepwell",
    help="Trains neural networks from a short recipe and shows in one page how it went.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE.yaml KEY=VALUE", help="A recipe file and keys over it.", show_default=False
    ),
]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(installed("stepwell"))
        raise typer.Exit


def recipe_words(
    words: list[str] | None, parse: Callable[[list[str]], dict[str, Any]] | None = None
) -> tuple[str | None, dict[str, Any]]:
    """A recipe file, if the first word is none of key=value, and the changes, which `parse` reads."""
    from stepwell.data.sources import BUNDLED
    from stepwell.recipe import parse_changes

    words = list(words or [])
    path = words.pop(0) if words and "=" not in words[0] else None
    if path is not None and Path(path).suffix.lower() not in (".yaml", ".yml"):
        known = path in BUNDLED or Path(path).exists()
        hint = f"data={path} trains on it" if known else "give for instance optimizer.lr=0.01 (no blanks)"
        raise UserError(f"'{path}' is neither a recipe file (.yaml) nor key=value: {hint}")
    return path, (parse or parse_changes)(words)
