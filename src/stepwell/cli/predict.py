"""stepwell predict"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from stepwell.cli.app import Json, RunPath, app
from stepwell.cli.output import notes_json, print_notes, print_told
from stepwell.errors import UserError


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
    monte_carlo: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Average N passes with dropout on, and add columns of uncertainty.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Text and --monte-carlo: seed of what is drawn.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Add a prediction to every row of a file, or go on from a text."""
    from stepwell.progress import quietly
    from stepwell.training import files, uncertain, write_table
    from stepwell.training import predict as predicting

    model = predicting.trained(run)
    if model.task == "text":
        if monte_carlo is not None:
            raise UserError(f"--monte-carlo adds columns to rows, and {run} is a run of text: leave it out")
        path = predicting.require_writable(out, (".txt",)) if out else None
        text, notes = predicting.continued(model, file, length, temperature, seed)
        if path is not None:
            files.write_text(path, text)
        said = text if path is None else f"{length} characters written to {path}"
        print_told({"text": text, "file": str(path) if path else None}, said, notes, as_json)
        return
    if (length, temperature) != (500, 0.8) or (seed and monte_carlo is None):
        raise UserError(
            f"--length, --temperature and --seed write text, and {run} is no run of text: leave them out"
        )
    if monte_carlo is not None:
        uncertain.require_dropout(model, run)
    path = predicting.require_writable(out, write_table.ENDINGS) if out else None
    # Where the table itself runs over the screen, it is seen how far it is.
    quiet = as_json or (path is None and sys.stdout.isatty())
    with quietly(quiet):
        found = predicting.predicted(model, file, monte_carlo or 0, seed)
        if path is not None:
            write_table.write_table(found.frames, path)
            said = f"{found.rows} predictions written to {path}"
            print_told({"rows": found.rows, "file": str(path)}, said, found.notes, as_json)
        elif as_json:
            _print_rows_json(found)
        else:
            for piece in write_table.text(found.frames, ".csv"):
                sys.stdout.write(piece)
            print_notes(found.notes)


def _print_rows_json(found: Any) -> None:
    """One JSON object with all rows, of which only some are in memory at a time."""
    from stepwell.training.write_table import as_text

    for number, frame in enumerate(found.frames):
        # The table's own writer: it has dates as text and null for what JSON cannot say (NaN, infinities).
        rows = json.loads(as_text(frame, ".json").write_json())
        begun = ", " if number else f'{{"rows": {found.rows}, "file": null, "predictions": ['
        sys.stdout.write(begun + json.dumps(rows, ensure_ascii=False, allow_nan=False)[1:-1])
    notes = json.dumps(notes_json(found.notes), ensure_ascii=False)[1:-1]
    sys.stdout.write(f"]{', ' if notes else ''}{notes}}}\n")
