"""The command line: one verb a function. torch is loaded by the verb that needs it, not by the help."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from stepwell.errors import Diverged, Interrupted, UserError

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


@app.command()
def train(
    words: Words = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Run folder (default: a new one in runs/).", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Go on with an interrupted run in this folder.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train what a recipe says; without one, an MLP on digits.

    Examples: stepwell train · stepwell train data=table.csv data.target=price ·
    stepwell train --resume runs/digits-mlp
    """
    from stepwell import library

    if resume is not None:
        if words or out:
            raise UserError(
                "--resume goes on with a run as it was begun: give no recipe, keys or --out with it"
            )
        result = library.resume(resume, quiet=as_json)
        if not as_json and not result["resumed"]:
            print(f"{resume} was finished before: there is nothing to go on with.", file=sys.stderr)
    else:
        path, changes = _recipe_words(words)
        result = library.train(path, out=out, quiet=as_json, **changes)
    if as_json:
        _print_json(result)
    else:
        _print_result(result)


@app.command()
def evaluate(
    run: RunPath,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="Data with targets (default: the run's own test part).", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a trained model on data with targets."""
    from stepwell.progress import quietly
    from stepwell.training.predict import evaluate_file

    with quietly(as_json):
        result = evaluate_file(run, file)
    if as_json:
        _print_json(result)
    else:
        print(f"{result['samples']} samples")
        _print_metrics(result["test"])
        _print_notes(result.get("notes", []))


@app.command()
def predict(
    run: RunPath,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="New data; for text, a prompt.", show_default=False)
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where to write: .csv, .tsv, .parquet, .json, .jsonl; for text .txt.",
            show_default=False,
        ),
    ] = None,
    length: Annotated[
        int, typer.Option(metavar="N", min=1, help="Text: how many characters to write.")
    ] = 500,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=0.0, help="Text: below 1 is more cautious, 0 the likeliest character."),
    ] = 0.8,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Text: seed of the drawn characters.")] = 0,
    as_json: Json = False,
) -> None:
    """Add a prediction to every row of a file, or go on from a text."""
    from stepwell.progress import quietly
    from stepwell.training import files, write_table
    from stepwell.training import predict as predicting

    model = predicting.trained(run)
    if model.task == "text":
        path = predicting.require_writable(out, (".txt",)) if out else None
        text, notes = predicting.continued(model, file, length, temperature, seed)
        if path is not None:
            files.write_text(path, text)
        said = text if path is None else f"{length} characters written to {path}"
        _print_told({"text": text, "file": str(path) if path else None}, said, notes, as_json)
        return
    if (length, temperature, seed) != (500, 0.8, 0):
        raise UserError(
            f"--length, --temperature and --seed write text, and {run} is no run of text: leave them out"
        )
    path = predicting.require_writable(out, write_table.ENDINGS) if out else None
    # Where the table itself runs over the screen, it is seen how far it is.
    quiet = as_json or (path is None and sys.stdout.isatty())
    with quietly(quiet):
        found = predicting.predicted(model, file)
        if path is not None:
            write_table.write_table(found.frames, path)
            said = f"{found.rows} predictions written to {path}"
            _print_told({"rows": found.rows, "file": str(path)}, said, found.notes, as_json)
        elif as_json:
            _print_rows_json(found)
        else:
            for piece in write_table.text(found.frames, ".csv"):
                sys.stdout.write(piece)
            _print_notes(found.notes)


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
        _print_json(result)
    elif "largest_difference" in result:
        print(
            f"Written to {result['file']}; checked: it differs from the original by "
            f"{result['largest_difference']:.2g} at most."
        )
        print(in_words(trained(run), result))
    else:
        print(f"{result['tensors']} tensors written to {result['file']}")


@app.command()
def report(run: RunPath, as_json: Json = False) -> None:
    """Write (again) the page of a run, report.html."""
    from stepwell.report.page import write_report

    path = write_report(Path(run).expanduser())
    _print_json({"report": str(path)}) if as_json else print(path)


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
        _print_json(rows)
        return
    _print_keys(rows)


@app.command()
def schedule(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [KEY=VALUE]...", help="A schedule and keys over its own.", show_default=False
        ),
    ] = None,
    updates: Annotated[
        int, typer.Option(metavar="N", min=2, max=10_000_000, help="Length of the run in updates.")
    ] = 1000,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE.svg", help="Write a figure; without NAME, of all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the learning rate along a run; without NAME, list all schedules.

    Examples: stepwell schedule · stepwell schedule cosine warmup=0.1 end=0.01 ·
    stepwell schedule one-cycle lr=0.003 --updates 5000 --plot rate.svg
    """
    from stepwell.report import schedule_view

    figure = schedule_view.require_svg(plot) if plot is not None else None
    if not words:
        views = schedule_view.every(updates)
        if figure is not None:
            schedule_view.write_figure(figure, views)
        if as_json:
            rows = [{"name": view.name, "help": view.help, "keys": view.keys} for view in views]
            _print_json({"schedules": rows, "figure": str(figure) if figure else None})
            return
        for view in views:
            print(f"{view.name:<22}{view.help}\n{'':<22}{view.words}")
    else:
        view = schedule_view.read(words, updates)
        if figure is not None:
            schedule_view.write_figure(figure, [view])
        if as_json:
            _print_json({**view.as_json(), "figure": str(figure) if figure else None})
            return
        print("\n".join(view.lines(_can_print("█"))))
    if figure is not None:
        print(f"Figure: {figure}")


def _can_print(letter: str) -> bool:
    try:
        letter.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


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
        _print_json(facts_of(rule_named(name))) if as_json else print(describe(name))
        return
    rows = [facts_of(rule) for rule in RULES.values()]
    if as_json:
        _print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        first, *more = row["formula"].splitlines()
        print(f"{row['name']:{width}}  {first}{' …' if more else ''}")
    print(f"\n{len(rows)} rules; stepwell rules NAME shows one in full.")


def main() -> None:
    """Runs the command line. Exit codes: 2 a mistake the user can mend, 3 diverged, 130 and 143 stopped."""
    command = typer.main.get_command(app)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # Not app(): that prints usage errors in its own form, and takes a closed pipe for a failure.
        with command.make_context("stepwell", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except _USAGE as error:
        _fail(_usage(error), 2)
    except UserError as error:
        _fail(str(error), 2)
    except Diverged as error:
        _fail(str(error), 3)
    except BrokenPipeError:
        # The reader (head, less) has left: nothing is wrong. Python must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except _Terminated:
        _fail(_stopped(), 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _fail(_stopped(), 128 + signal.SIGINT)
    except Interrupted as error:
        _fail(str(error), 128 + error.signal)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{(error.strerror or str(error)).lower()}", 2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C it must let everything on the way out remove what is half written."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _stopped() -> str:
    begun = "; a run that had begun goes on with stepwell train --resume" if "train" in sys.argv[1:2] else ""
    return f"stopped at once{begun}"


# What typer raises for wrong options and arguments; it exports only this one kind of it.
_USAGE: Any = typer.BadParameter.__base__


def _usage(error: Any) -> str:
    """A usage error in words, without the library's terms."""
    context = error.ctx
    hint = f"`{context.command_path if context else 'stepwell'} --help` shows how"
    if isinstance(error, typer.BadParameter) and error.message:
        what = (
            error.message.replace("Input should be", "must be")
            .replace("a valid integer", "a whole number")
            .partition(", unable")[0]
        )
        return f"{' '.join(error.param.opts) if error.param else 'value'}: {what}; {hint}"
    what = error.format_message().strip().rstrip(".").replace("(Possible", "(possible")
    return f"{what[0].lower()}{what[1:]}; {hint}"


def _fail(sentence: str, code: int) -> None:
    print(
        f"stepwell: {' '.join(sentence.split()).rstrip('.')}{'' if sentence.rstrip().endswith('?') else '.'}",
        file=sys.stderr,
    )
    sys.exit(code)


def _recipe_words(words: list[str] | None) -> tuple[str | None, dict[str, Any]]:
    """A recipe file, if the first word is none of key=value, and the changes."""
    from stepwell.data.sources import BUNDLED
    from stepwell.recipe import parse_changes

    words = list(words or [])
    path = words.pop(0) if words and "=" not in words[0] else None
    if path is not None and Path(path).suffix.lower() not in (".yaml", ".yml"):
        known = path in BUNDLED or Path(path).exists()
        hint = f"data={path} trains on it" if known else "give for instance optimizer.lr=0.01 (no blanks)"
        raise UserError(f"'{path}' is neither a recipe file (.yaml) nor key=value: {hint}")
    return path, parse_changes(words)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def _print_rows_json(found: Any) -> None:
    """One JSON object with all rows, of which only some are in memory at a time."""
    from stepwell.training.write_table import as_text

    for number, frame in enumerate(found.frames):
        # The table's own writer: it has dates as text and null for what JSON cannot say (NaN, infinities).
        rows = json.loads(as_text(frame, ".json").write_json())
        begun = ", " if number else f'{{"rows": {found.rows}, "file": null, "predictions": ['
        sys.stdout.write(begun + json.dumps(rows, ensure_ascii=False, allow_nan=False)[1:-1])
    notes = json.dumps(_notes_json(found.notes), ensure_ascii=False)[1:-1]
    sys.stdout.write(f"]{', ' if notes else ''}{notes}}}\n")


def _print_told(result: dict[str, Any], said: str, notes: list[str], as_json: bool) -> None:
    """A result for machines, or what is said of it to people; then the notes."""
    if as_json:
        _print_json({**result, **_notes_json(notes)})
    else:
        print(said)
        _print_notes(notes)


def _notes_json(notes: list[str]) -> dict[str, list[str]]:
    return {"notes": notes} if notes else {}


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"Note: {note.rstrip('.')}.", file=sys.stderr)


def _print_result(result: dict[str, Any]) -> None:
    seconds, data = result["seconds"], result["data"]
    print(
        f"Trained {result['parameters']:,} weights on {data['train']:,} samples of {data['name']}: "
        f"{_counted(result['updates'], 'update')}, {_counted(result['epochs'], 'epoch')}, {seconds:.1f} s."
    )
    if result["test"]:
        print(f"On {data['test']:,} test samples, with 95 % intervals:")
        _print_metrics(result["test"])
    elif result["validation"]:
        print(f"There is no test part; on {data['validation']:,} validation samples:")
        _print_metrics({name: {"value": value} for name, value in result["validation"].items()})
    print(f"Report: {result['report']}")


def _counted(count: float, noun: str) -> str:
    shown = f"{count:,.0f}" if isinstance(count, int) or count >= 100 else f"{count:.3g}"
    return f"{shown} {noun}{'' if count == 1 else 's'}"


def _print_metrics(test: dict[str, Any]) -> None:
    from stepwell.report.wording import metric

    for name, entry in test.items():
        figure, of, target = metric(name), *name.partition("/")[1:]
        label = f"{metric(name.partition('/')[0]).label} of {target}" if of else figure.label
        form = ".2%" if figure.percent else ".4g"
        shown = "undefined here" if entry["value"] is None else f"{entry['value']:{form}}"
        if "low" in entry:
            shown += f"  [{entry['low']:{form}}, {entry['high']:{form}}]"
        print(f"  {label:<22} {shown}")


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


if __name__ == "__main__":
    main()
