"""stepwell recipe"""

from __future__ import annotations

import shutil
import textwrap
from itertools import groupby
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, app
from stepwell.cli.output import print_json
from stepwell.errors import UserError


@app.command()
def recipe(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION]...", help="Only these sections or keys.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every key of a recipe with default, range and meaning."""
    from stepwell.recipe import describe
    from stepwell.recipe.complaints import unknown_key

    rows = describe()
    for word in words or []:
        if not any(row["key"] == word or row["key"].startswith(word + ".") for row in rows):
            raise UserError(unknown_key(word))
    if words:
        rows = [r for r in rows if any(r["key"] == w or r["key"].startswith(w + ".") for w in words)]
    if as_json:
        print_json(rows)
        return
    _print_keys(rows)


def _print_keys(rows: list[dict[str, Any]]) -> None:
    """Two lines a key: what it takes and its default, then what it does; folded to the terminal's width."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 110)
    for number, (section, of_section) in enumerate(groupby(rows, lambda row: row["key"].partition(".")[0])):
        print(f"\n{section}" if number else section)
        of_section = list(of_section)
        names = of_section[0]["range"].split(", ")
        for row in of_section:
            default = f"default {row['default']}" if row["default"] else ""
            only = f"only with {', '.join(row['applies_to'])}" if row["applies_to"] else ""
            others = [name for name in names if name not in row["applies_to"]]
            if len(row["applies_to"]) > len(others) and set(row["applies_to"]) <= set(names):
                only = f"not with {', '.join(others)}"
            facts = "; ".join(filter(None, [row["range"], default, only]))
            head = f"  {row['key'].partition('.')[2] or row['key']:<17} "
            print(textwrap.fill(facts, width, initial_indent=head, subsequent_indent=" " * 20))
            print(textwrap.fill(row["help"], width, initial_indent=" " * 22, subsequent_indent=" " * 22))
