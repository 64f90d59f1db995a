"""stepwell rules"""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.app import Json, app
from stepwell.cli.output import print_json
from stepwell.errors import UserError


@app.command()
def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this rule, in full.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the update rules, or show one: formula, code, state, defaults, source.

    Examples: stepwell rules · stepwell rules adam
    """
    from stepwell.rules import RULES, describe
    from stepwell.rules.describe import facts_of, rule_named

    if name is not None:
        if name in ("lbfgs", "newton", "saddle-free-newton", "negative-curvature", "sam", "lookahead"):
            raise UserError(
                f"{name} is no rule of one formula but a class of its own: see docs/optimizers.md"
            )
        print_json(facts_of(rule_named(name))) if as_json else print(describe(name))
        return
    rows = [facts_of(rule) for rule in RULES.values()]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        first, *more = row["formula"].splitlines()
        print(f"{row['name']:{width}}  {first}{' …' if more else ''}")
    print(f"\n{len(rows)} rules; stepwell rules NAME shows one in full.")
