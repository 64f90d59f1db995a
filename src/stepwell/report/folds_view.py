"""The page of a cross-validation: what every fold says, their mean, and what was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepwell.report.figure import Figure, axis, label, layout, rounded
from stepwell.report.page import document
from stepwell.report.sections import Section, box, grid, table, text
from stepwell.report.wording import (
    IN_TARGET_UNITS,
    NARROW,
    Metric,
    counted,
    estimate,
    in_order,
    metric,
    plain,
)
from stepwell.training import files

SHOWN = 2  # metrics beside the loss


def is_cross_validation(folder: Path) -> bool:
    """Whether the folder is one that `stepwell cross-validate` has finished."""
    return (folder / "question.json").is_file() and (folder / "result.json").is_file()


def write_page(folder: Path) -> Path:
    """Reads the folder's result.json and writes its report.html."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    page = folder / "report.html"
    files.write_text(page, document(result["name"], _sections(result)))
    return page


def title(result: dict[str, Any]) -> str:
    """What was done, in a line."""
    count, repeats = result["folds"], result["repeats"]
    how = [f"repeated {repeats} times"] if repeats > 1 else []
    how += ["classes stratified"] if result["stratified"] else []
    how += [f"grouped by {result['groups']}"] if result["groups"] else []
    how += [f"split by {result['splitter']}"] if result["splitter"] else []
    data = result["data"]
    return f"{count} folds of {data['name']}, {counted(data['rows'], 'row')}{''.join(f', {h}' for h in how)}"


def shown_metrics(result: dict[str, Any]) -> list[str]:
    """The task's most telling metrics, and the loss."""
    if "r2" in result["mean"] and any("/" in key for key in result["mean"]):
        return ["r2", "loss"]  # one RMSE over targets of different units says nothing
    return [*in_order(result["task"], list(result["mean"]))[:SHOWN], "loss"]


def fold_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A table of the folds: head and rows, as text."""
    keys = shown_metrics(result)
    several = any(fold["chosen"] for fold in result["results"])
    head = ["fold", "trained on", "tested on", *(metric(key).label for key in keys)]
    head += ["chosen"] if several else []
    rows = []
    for fold in result["results"]:
        values = [fold["metrics"].get(key) for key in keys]
        cells = [_value(key, value) for key, value in zip(keys, values, strict=True)]
        if fold["diverged"] is not None:
            cells = [f"diverged at update {fold['diverged']}", *([""] * (len(keys) - 1))]
        chosen = [_chosen(fold["chosen"])] if several else []
        sizes = [f"{fold['train']:,}", f"{fold['test']:,}"]
        rows.append([fold["name"] or str(fold["fold"]), *sizes, *cells, *chosen])
    return head, rows


def choice_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]], str]:
    """A table of the values to choose from, and what is honest to say."""
    choice, count = result["choice"], len(result["results"])
    key = _first(result)
    rows = [
        [_chosen(one["values"]), f"{one['chosen']} of {count}", _value(key, one["test"].get(key))]
        for one in choice["candidates"]
    ]
    honest, best = (estimate(choice[name]["test"].get(key)) for name in ("honest", "optimistic"))
    sentence = "A fold diverged whatever it chose, so there is no honest mean."
    if honest is not None and best is not None:
        shown, most = metric(key), max(choice["candidates"], key=lambda one: one["chosen"])
        value, other = shown.together(honest.value, best.value)
        sentence = f"Every fold chose {_chosen(most['values'])}, so its {shown.label} is honest: {value}."
        if most["chosen"] < count:
            sentence = (
                f"Honest {shown.label}, of what each fold chose: {value}. The value with the lowest loss has "
                f"{other}, which is optimistic: the rows that test it have picked it."
            )
    return ["value", "chosen", f"{metric(key).label} if it were fixed"], rows, sentence


def _first(result: dict[str, Any]) -> str:
    """The most telling metric of those that every candidate has."""
    found = next((one["test"] for one in result["choice"]["candidates"] if one["test"]), {"loss": None})
    return next(
        key
        for key in [*shown_metrics(result), *in_order(result["task"], list(found)), "loss"]
        if key in found
    )


def _value(key: str, value: float | None) -> str:
    return "–" if value is None else metric(key).text(value)


def _chosen(values: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {plain(value)}" for key, value in values.items())


# ---- the page


def _sections(result: dict[str, Any]) -> Iterator[Section]:
    yield _top(result)
    yield _folds(result)
    yield _choice(result)
    yield _metrics(result)
    yield _alone(result)


def _top(result: dict[str, Any]) -> Section:
    key = shown_metrics(result)[0]
    found, shown = estimate(result["mean"].get(key)), metric(key)
    value, limits = ("–", "") if found is None else shown.written(found)
    interval = f"<span>95{NARROW}% interval {limits}</span>" if limits else ""
    summary = (
        f"Each of the {counted(len(result['results']), 'fold')} was trained without the rows that test it. "
        "Whatever is learnt from data (means, deviations, categories, gaps) was learnt from its own training "
        "rows."
    )
    summary = summary if found is not None else "A fold diverged, so there is no mean over the folds."
    notes = "".join(f"<p>{text(note.rstrip('.'))}.</p>" for note in result["notes"])
    return Section(
        "top",
        "",
        "",
        f'<header class="hero" id="top">\n<p class="kind">{text(title(result))}</p>\n'
        f"<h1>{text(result['name'])}</h1>\n"
        f'<div class="result"><div><div class="value">{text(value)}</div>'
        f'<div class="label">mean {text(shown.label)}{interval}</div></div>\n'
        f'<p class="summary">{text(summary)}</p></div>\n</header>\n'
        + (f'<div class="notice" role="note">{notes}</div>' if notes else ""),
    )


def _folds(result: dict[str, Any]) -> Section:
    keys = [key for key in shown_metrics(result) if _any(result, key)]
    figures = [_figure(result, key, "third" if len(keys) == 3 else "half") for key in keys]
    head, rows = fold_rows(result)
    cells = [
        "".join(f'<td class="{"n" * (k > 0)}">{text(c)}</td>' for k, c in enumerate(row)) for row in rows
    ]
    content = table([(name, "n" * (k > 0)) for k, name in enumerate(head)], cells)
    return Section("folds", "Folds", "Folds", grid(figures) + box("", content), figures)


def _numbers(head: list[str], rows: list[list[str]]) -> str:
    """A table whose columns but the first are numbers."""
    cells = [
        "".join(f'<td class="{"n" * (k > 0)}">{text(c)}</td>' for k, c in enumerate(row)) for row in rows
    ]
    return table([(name, "n" * (k > 0)) for k, name in enumerate(head)], cells)


def _any(result: dict[str, Any], key: str) -> bool:
    return any(fold["metrics"].get(key) is not None for fold in result["results"])


def _figure(result: dict[str, Any], key: str, width: Any) -> Figure:
    """A dot a fold, the mean as a line, its interval as a band."""
    folds = [fold for fold in result["results"] if fold["metrics"].get(key) is not None]
    shown: Metric = metric(key)
    mean = estimate(result["mean"].get(key))
    count = len(result["results"])
    values = [float(fold["metrics"][key]) for fold in folds]
    shapes: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    if mean is not None:
        across = {"color": "var(--train)", "width": 2}
        lines = [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "mean",
                "x": [0.4, count + 0.6],
                "y": rounded([mean.value, mean.value]),
                "line": across,
                "hoverinfo": "skip",
            }
        ]
        if mean.low is not None and mean.high is not None:
            band = {"type": "rect", "layer": "below", "xref": "paper", "x0": 0, "x1": 1, "line": {"width": 0}}
            ends = {"y0": mean.low, "y1": mean.high}
            shapes = [{**band, **ends, "fillcolor": "var(--train)", "opacity": 0.13}]
            values += [mean.low, mean.high]
    room = 0.06 * (max(values) - min(values)) or 0.05
    ends = [min(values) - room, max(values) + room]
    unit = " (units of the target)" if key in IN_TARGET_UNITS else ""
    return Figure(
        id=f"folds-{key.replace('_', '-')}",
        title=shown.label[0].upper() + shown.label[1:],
        caption="A dot a fold; the line is their mean, the band its 95 % interval, which allows for the "
        "training rows that the folds share.",
        data=[
            *lines,
            {
                "type": "scatter",
                "mode": "markers",
                "name": shown.label,
                "x": [fold["fold"] for fold in folds],
                "y": rounded([fold["metrics"][key] for fold in folds]),
                "text": [fold["name"] or str(fold["fold"]) for fold in folds],
                "marker": {"color": "var(--test)", "size": 9 if len(folds) <= 30 else 6},
                "hovertemplate": f"fold %{{text}}<br>{label(shown.label)} %{{y:{shown.hover_format}}}"
                "<extra></extra>",
            },
        ],
        layout=layout(
            axis("fold", range=[0.4, count + 0.6], tickangle=0, **({"dtick": 1} if count <= 10 else {})),
            axis(label(shown.axis + unit), tickformat=shown.tick_format, range=rounded(ends)),
            shapes=shapes,
            showlegend=False,
        ),
        height=300,
        width=width,
    )


def _choice(result: dict[str, Any]) -> Section:
    if result["choice"] is None:
        return Section("choice", "", "", "")
    head, rows, sentence = choice_rows(result)
    cells = [
        "".join(f'<td class="{"n" * (k > 0)}">{text(c)}</td>' for k, c in enumerate(row)) for row in rows
    ]
    content = table([(name, "n" * (k > 0)) for k, name in enumerate(head)], cells)
    how = f"Each fold chose by the {result['choice']['by']}, without the rows that it holds out."
    return Section(
        "choice",
        "Choice",
        "What was chosen",
        box("", content, how) + f'<p class="after">{text(sentence)}</p>',
    )


def _metrics(result: dict[str, Any]) -> Section:
    rows = []
    for key, entry in result["mean"].items():
        cells = [_written(key, entry), _written(key, result["pooled"].get(key))]
        name = f"{metric(key.partition('/')[0]).label}{' of ' + key.partition('/')[2] if '/' in key else ''}"
        rows.append(f"<td>{text(name)}</td>" + "".join(f'<td class="n">{text(c)}</td>' for c in cells))
    head = [("metric", ""), ("mean of the folds", "n"), ("all predictions together", "n")]
    caption = (
        "With 95 % intervals. Of the mean: corrected for the training rows that folds share (Nadeau and "
        "Bengio, 2003). Of all predictions together: of the rows alone, as if one network had made them."
    )
    return Section("metrics", "Metrics", "Every metric", box("", table(head, rows), caption) if rows else "")


def _written(key: str, entry: Any) -> str:
    found = estimate(entry)
    if found is None:
        return "–"
    value, limits = metric(key.partition("/")[0]).written(found)
    return f"{value} ({limits})" if limits else value


def _alone(result: dict[str, Any]) -> Section:
    """The commands that train each fold by itself."""
    lines = [fold["command"] for fold in result["results"] if fold["command"]]
    content = f'<pre id="commands">{text(chr(10).join(lines))}</pre>' if lines else ""
    caption = "Each trains one fold by itself, with a report of its own."
    body = box("", content, caption, copies="commands") if lines else ""
    return Section("alone", "Commands", "One fold alone", body)
