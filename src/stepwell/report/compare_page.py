"""Writes compare.html: what a comparison has shown, from its verdict to the commands that repeat it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.report import compare_cells as cells
from stepwell.report import compare_figures as figures
from stepwell.report.figure import Figure
from stepwell.report.page import document, write_page
from stepwell.report.sections import Section, box, grid, pair_list, table, text
from stepwell.report.wording import Estimate, counted, duration, metric


def write_comparison(folder: Path) -> Path:
    """Reads the folder of a comparison and writes its compare.html, replacing an older one."""
    return write_page(folder / "compare.html", comparison_page(folder))


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison."""
    return (folder / "comparison.yaml").exists()


def comparison_page(folder: Path) -> str:
    """The page's HTML text. Raises UserError where the comparison has not ended, or its result is damaged."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        asked = (folder / "comparison.yaml").read_text(encoding="utf-8")
        parts = [
            _top(folder, result),
            _table(result),
            _section("test-by-entry", "Test", "The entries on the test part", [figures.test_figure(result)]),
            _section("tuning", "Tuning", "What each value gave", figures.rate_figures(result)),
            _section("curves", "Curves", "On the way there", figures.curve_figures(result)),
            _again(result, asked),
        ]
    except FileNotFoundError:
        raise UserError(
            f"{folder}: this comparison has not ended; go on with stepwell compare --resume {folder}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: result.json is damaged; remove it and go on with --resume") from None
    return document(folder.name, [part for part in parts if part.body])


def _top(folder: Path, result: dict[str, Any]) -> Section:
    shown, best = metric(result["metric"]), _reference(result)
    found = best["test"][result["metric"]]
    value, limits = shown.written(Estimate(found["mean"], found["low"], found["high"]))
    at = f" at {cells.at_text(best)}" if best["tuned"] else ""
    label = f"test {shown.label} of {best['name']}{at}"
    kind = [result["task"], f"data {result['data']['name']}", f"compared by {', '.join(result['compared'])}"]
    interval = f"<span>{text(f'95 % interval over seeds {limits}')}</span>" if limits else ""
    notes = "".join(f"<p>{text(note[0].upper() + note[1:])}.</p>" for note in result["notes"])
    return Section(
        "top",
        "",
        "",
        f'<header class="hero" id="top">\n<p class="kind">{text(" · ".join(kind))}</p>\n'
        f"<h1>{text(folder.name)}</h1>\n"
        f'<div class="result"><div><div class="value">{text(value)}</div>'
        f'<div class="label">{text(label)}{interval}</div></div>\n'
        f'<p class="summary">{text(result["verdict"])}</p></div>\n</header>\n'
        + (f'<div class="notice" role="note">{notes}</div>' if notes else ""),
    )


def _reference(result: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in result["entries"] if entry["name"] == result["reference"])


def _table(result: dict[str, Any]) -> Section:
    shown, keys, lines = metric(result["metric"]), cells.tuned_keys(result), cells.lines(result)
    width = cells.tuned_numbers(result)
    head = [
        ("entry", ""),
        *((f"best {key.rpartition('.')[2]}", "n") for key in keys),
        (f"test {shown.axis}", "n"),
        ("difference", "n"),
        ("p (Holm)", "n"),
        (f"updates to {cells.target_text(result)}", "n"),
        *([("decades within 1 %", "n")] if width else []),
        ("diverged", "n"),
    ]
    rows = []
    for line in lines:
        figures_ = [*line.tuned, line.test, line.difference, line.p, line.to_target]
        figures_ += ([line.decades] if width else []) + [line.diverged]
        name = f"<b>{text(line.name)}</b>" if line.state in ("reference", "different") else text(line.name)
        rows.append(f"<th>{name}</th>" + "".join(f'<td class="n">{html.escape(c)}</td>' for c in figures_))
    chosen = f", each entry at its value with the best mean validation {metric(result['tuned_by']).label}"
    reached = "" if result["target"]["given"] else ", what the worst entry reaches at its best"
    caption = (
        f"Means over {counted(len(result['seeds']), 'seed')} ± half of a 95 % interval"
        f"{chosen if keys else ''}. "
        f"Difference: to {result['reference']}, which is best on the validation part, seed by seed. "
        "p: paired t test, corrected by Holm over all pairs of entries; below 0.05 counts as significant. "
        f"Updates: until the mean validation {shown.label} reaches {cells.target_text(result)}{reached}."
    )
    if width:
        caption += (
            f" Decades: how far {width} may be changed so that the mean validation {shown.label} stays "
            "within 1 % of the entry's best."
        )
    return Section("entries", "Entries", "Entries, the best first", box("", table(head, rows), caption))


def _section(id_: str, link: str, title: str, drawn: list[Figure | None] | list[Figure]) -> Section:
    there = [figure for figure in drawn if figure is not None]
    return Section(id_, link, title, grid(there), there)


def _again(result: dict[str, Any], asked: str) -> Section:
    rows = [
        f"<th>{text(entry['name'])}</th><td><code>{text(entry['command'])}</code></td>"
        for entry in result["entries"]
    ]
    caption = "Trains the first seed of each entry at its chosen value by itself; compare.csv has every run."
    body = box("comparison.yaml", f'<pre id="asked">{text(asked)}</pre>', copies="asked")
    body += box("One run alone", table([("entry", ""), ("command", "")], rows), caption)
    how = {way: n for way, n in result["how"].items() if n}
    about = {
        "runs": f"{result['members']:,}",
        "seeds": f"{result['seeds'][0]} … {result['seeds'][-1]}",
        "epochs": result["budget"]["epochs"],
        "updates of a run": result["budget"]["updates"],
        "trained": ", ".join(f"{n:,} {way}" for way, n in how.items()),
        "time": duration(result["seconds"]),
    }
    if result["halving"]:
        places = ", ".join(f"{place:,}" for place in result["halving"]["rungs"])
        about["halving"] = f"the worse half of the tuned values was given up at update {places}"
    boxes = box("The comparison", pair_list(about)) + box("Environment", pair_list(result["environment"]))
    body += f'<div class="two after">{boxes}</div>'
    return Section("again", "Again", "How to repeat it", body)
