"""stepwell compare"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, app, recipe_words
from stepwell.cli.output import can_print, counted, print_json, print_notes
from stepwell.errors import UserError

WIDTH = 100  # letters of a line where there is no terminal

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE.yaml KEY=VALUES",
        help="A recipe file and keys over it, with one value or several.",
        show_default=False,
    ),
]


@app.command()
def compare(
    words: Words = None,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="KEYS",
            help="Keys that are tuned, with commas; none: all are compared (default: those with a range).",
            show_default=False,
        ),
    ] = None,
    halving: Annotated[
        bool, typer.Option("--halving", help="Give up the worse half of the tuned values on the way.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option(
            help="Validation metric to time (default: what the worst entry reaches).", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder (default: a new one in runs/).", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Go on with an interrupted comparison in this folder.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train several values with the same seeds, and test which differ.

    A key takes a list, sgd,adam or [16],[64,64]; log(a,b,n) or range(a,b,n); seeds=N (5) is how often.
    Ranges are tuned on the validation part, if other values are compared.

    Examples: stepwell compare model.hidden=[16],[64,64] ·
    stepwell compare optimizer=sgd,adam "optimizer.lr=log(1e-4,1,9)" seeds=5
    """
    from stepwell import library
    from stepwell.populations.compare.grid import parse_words

    if resume is not None:
        if words or out or tune or halving or target is not None:
            raise UserError(
                "--resume goes on with a comparison as it was begun: give no recipe, keys or options with it"
            )
        result = library.resume_comparison(resume, quiet=as_json)
        if not as_json and not result["resumed"]:
            print(f"{resume} was finished before: there is nothing to go on with.", file=sys.stderr)
    else:
        path, values = recipe_words(words, parse_words)
        options = {"tune": tune, "halving": halving or None, "target": target}
        values |= {name: value for name, value in options.items() if value is not None}
        result = library.compare(path, out=out, quiet=as_json, **values)
    if as_json:
        print_json(result)
    else:
        _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    entries, data = result["entries"], result["data"]
    epochs = result["budget"]["epochs"]
    length = counted(epochs, "epoch") if epochs else counted(result["budget"]["updates"][0], "update")
    print(
        f"Trained {counted(result['members'], 'run')} of {length} on {data['train']:,} samples of "
        f"{data['name']}: {counted(len(entries), 'entry').replace('entrys', 'entries')}, "
        f"{counted(len(result['seeds']), 'seed')}, {result['seconds']:.1f} s."
    )
    _print_table(result)
    print(result["verdict"])
    print_notes(result["notes"])
    print(f"Report: {result['report']}")


def _print_table(result: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from stepwell.report import compare_cells as cells
    from stepwell.report.wording import metric

    shown, keys, width = metric(result["metric"]), cells.tuned_keys(result), cells.tuned_numbers(result)
    table = Table(box=box.SIMPLE_HEAD if can_print("─") else box.ASCII, padding=(0, 1), pad_edge=False)
    table.add_column("entry", overflow="fold", min_width=8)
    heads = [*(f"best {key.rpartition('.')[2]}" for key in keys), f"test {shown.axis}"]
    heads += ["difference", "p (Holm)", f"updates to {cells.target_text(result)}"]
    heads += ["decades within 1 %"] if width else []
    say = str if all(map(can_print, "±−–\u202f")) else _in_ascii
    for head in [*heads, "diverged"]:
        table.add_column(_folded(say(head)), justify="right", no_wrap=True)
    for line in cells.lines(result):
        row = [line.name, *line.tuned, line.test, line.difference, line.p, line.to_target]
        row += [line.decades, line.diverged] if width else [line.diverged]
        table.add_row(*map(say, row), style="bold" if line.state == "reference" else None)
    screen = sys.stdout.isatty()
    console = Console(width=None if screen else WIDTH, highlight=False, markup=False, soft_wrap=False)
    wide = Console(width=WIDTH, highlight=False, markup=False, soft_wrap=False, force_terminal=screen)
    if wide.measure(table).minimum > console.width:  # narrow: lines run over, but no name or number is lost
        console = wide
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines()))


def _in_ascii(text: str) -> str:
    for letter, plain in {"±": "+-", "−": "-", "–": "-", "\u202f": " "}.items():
        text = text.replace(letter, plain)
    return text.encode("ascii", "replace").decode()


def _folded(head: str) -> str:
    """A column's head in two lines, so that the column is no wider than its numbers."""
    middle = min(range(len(head)), key=lambda k: (head[k] != " ", abs(k - len(head) / 2)))
    return f"{head[:middle]}\n{head[middle + 1 :]}" if " " in head else head
