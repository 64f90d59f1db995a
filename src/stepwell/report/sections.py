"""The page's sections in reading order, as HTML. Every text from the run passes `text` (escaped)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.report import curves, ensemble_view, ensemble_words, layers, predictions, units
from stepwell.report.figure import Figure
from stepwell.report.headline import Fact, headline, run_facts, test_facts
from stepwell.report.run_folder import RunFolder, number
from stepwell.report.wording import (
    METRICS,
    NARROW,
    counted,
    elide_middle,
    metric,
    percent,
    plain,
    significant,
)

MAX_MISTAKES = 64
MAX_TABLE_COLUMNS = 40


@dataclass(frozen=True)
class Section:
    """link: its name in the page's navigation, "" for none. body is HTML; empty means nothing to show."""

    id: str
    link: str
    title: str
    body: str
    figures: list[Figure] = field(default_factory=list)

    def html(self) -> str:
        if not self.title:
            return self.body
        return f'<section id="{self.id}">\n<h2>{text(self.title)}</h2>\n{self.body}\n</section>'


def all_sections(run: RunFolder) -> Iterator[Section]:
    """The page from top to bottom."""
    yield _top(run)
    yield _ensemble(run)
    yield _learning_curves(run)
    yield _hyperparameters(run)
    yield _gradients(run)
    yield _predictions(run)
    yield _calibration(run)
    yield _mistakes(run)
    yield _samples(run)
    yield _speed(run)
    yield _recipe(run)
    yield _environment(run)


def text(value: Any) -> str:
    """Any value as escaped HTML text."""
    return html.escape(plain(value))


def panel(figure: Figure) -> str:
    """A framed figure with its title and caption."""
    button = ""
    if figure.log is not None:
        pressed = str(figure.log).lower()
        button = (
            f'<button class="log" type="button" data-figure="{figure.id}" aria-pressed="{pressed}" '
            'title="Logarithmic y axis">log y</button>'
        )
    narrow = f' style="max-width:{figure.max_width}px"' if figure.max_width else ""
    title = text(figure.title)
    return (
        f'<figure class="panel {figure.width}"{narrow}>\n<div class="head"><h3>{title}</h3>{button}</div>\n'
        f'<div class="plot" id="figure-{figure.id}" style="height:{figure.height}px"></div>\n'
        f"<figcaption>{text(figure.caption)}</figcaption>\n</figure>"
    )


def box(title: str, content: str, caption: str = "", copies: str = "") -> str:
    """A framed part of the page. `copies`: id of the element whose text a button copies."""
    button = f'<button class="copy" type="button" data-source="{copies}">Copy</button>' if copies else ""
    head = f'<div class="head"><h3>{text(title)}</h3>{button}</div>' if title else ""
    below = f'<p class="caption">{text(caption)}</p>' if caption else ""
    return f'<div class="panel">{head}{content}{below}</div>\n'


def table(head: list[tuple[str, str]], rows: list[str], kind: str = "") -> str:
    """head: (name, css class) of each column; rows: the cells of each row, as HTML."""
    titles = "".join(f'<th class="{css}">{text(name)}</th>' for name, css in head)
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def grid(figures: list[Figure]) -> str:
    """Figures side by side."""
    return f'<div class="figures">{"".join(panel(figure) for figure in figures)}</div>' if figures else ""


def _top(run: RunFolder) -> Section:
    top = headline(run)
    recipe = run.recipe
    data = (
        _name(run.result.get("data")) or Path(_name(recipe.get("data"))).stem
    )  # of a path, as results have it
    kind = [
        run.task,
        f"data {data}" if data else "",
        f"model {_name(recipe.get('model'))}" if _name(recipe.get("model")) else "",
        f"optimizer {_name(recipe.get('optimizer'))}" if _name(recipe.get("optimizer")) else "",
    ]
    line = " · ".join(filter(None, kind)) or "training run"
    interval = f"<span>{text(top.interval)}</span>" if top.interval else ""
    missing = "".join(f"<p>{text(sentence)}</p>" for sentence in run.missing)
    return Section(
        "top",
        "",
        "",
        f'<header class="hero" id="top">\n<p class="kind">{text(line)}</p>\n'
        f"<h1>{text(run.name)}</h1>\n"
        f'<div class="result"><div><div class="value">{text(top.value)}</div>'
        f'<div class="label">{text(top.label)}{interval}</div></div>\n'
        f'<p class="summary">{text(top.summary)}</p></div>\n</header>\n'
        + facts("On the test set", test_facts(run))
        + facts("The run", run_facts(run))
        + (f'<div class="notice" role="note">{missing}</div>' if missing else ""),
    )


def facts(title: str, found: list[Fact]) -> str:
    """Figures in a row, each with its name."""
    cells = ""
    for name, value, small in found:
        note = f"<small>{text(small)}</small>" if small else ""
        cells += f"<div><dt>{text(name)}</dt><dd>{text(value)}{note}</dd></div>"
    return f'<div class="facts"><h2>{title}</h2><dl>{cells}</dl></div>\n' if cells else ""


def _name(part: Any) -> str:
    return str(part.get("name") or "") if isinstance(part, dict) else str(part or "")


def _ensemble(run: RunFolder) -> Section:
    if not isinstance(run.result.get("ensemble"), dict):
        return Section("ensemble", "", "", "")
    figures = ensemble_view.figures(run)
    names, rows = ensemble_words.cells(run.result)
    lines = [
        f"<th>{text(name)}</th>"
        + "".join(f'<td class="n">{text(value.replace("%", f"{NARROW}%"))}</td>' for value in values)
        for name, values in rows
    ]
    head = [("on the test part", ""), *((metric(name).label, "n") for name in names)]
    body = box("Members, and together", table(head, lines)) if lines else ""
    said = [*ensemble_words.gains(run.result), *ensemble_words.disagreement(run.result)]
    sentences = "".join(f"<li>{text(sentence)}</li>" for sentence in said)
    body += box("", f'<ul class="plain">{sentences}</ul>') * bool(said) + grid(figures)
    return Section("ensemble", "Ensemble", "Ensemble", body, figures)


def _learning_curves(run: RunFolder) -> Section:
    figures = curves.learning_curves(run)
    events = ""
    for event in run.events[:100]:
        message = f" – {text(event['message'])}" if event.get("message") else ""
        at = number(event.get("update"))
        when = f"Update {at:,.0f}: " if at is not None else ""
        events += f"<li>{when}<b>{text(event['event'])}</b>{message}</li>"
    body = grid(figures) + (
        f'<div class="after">What happened<ul class="plain">{events}</ul></div>' if events else ""
    )
    return Section("curves", "Curves", "Learning curves", body, figures)


def _hyperparameters(run: RunFolder) -> Section:
    figures, constant = curves.hyperparameters(run)
    chips = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in constant.items()
    )
    body = grid(figures)
    if chips:
        title = "<div><dt>Constant throughout:</dt></div>" if figures else ""
        body += f'<dl class="chips">{title}{chips}</dl>'
    return Section("hyperparameters", "Hyperparameters", "Hyperparameters over time", body, figures)


def _gradients(run: RunFolder) -> Section:
    norm = curves.gradient_norm(run)
    figures = ([norm] if norm else []) + layers.layer_heat_maps(run) + units.unit_maps(run)
    said = "".join(f'<p class="caption">{text(sentence)}</p>' for sentence in units.unit_sentences(run))
    body = grid(figures) + (f'<div class="panel">{said}</div>\n' if said else "")
    return Section("gradients", "Gradients", "Gradients and updates", body, figures)


def _predictions(run: RunFolder) -> Section:
    targets = predictions.regression_targets(run)
    if targets:
        figures = predictions.regression_figures(targets)
        body = grid(figures) + (_target_table(targets, len(figures) // 3) if len(targets) > 1 else "")
        return Section("predictions", "Predictions", "Predicted against true", body, figures)
    matrix = predictions.confusion_matrix(run)
    table = _per_class_table(run)
    if matrix is None:
        return Section("predictions", "Classes" * bool(table), "Result by class", table)
    body = panel(matrix) + table
    if len(matrix.data[0]["z"]) <= 12 and table:
        body = f'<div class="matrix">{body}</div>'
    pairs, as_frequent = predictions.frequent_confusions(run)
    if pairs:
        listed = ", ".join(
            f"<b>{text(true)} → {text(predicted)}</b>: {counted(count, 'time')} ({text(percent(share))})"
            for true, predicted, count, share in pairs
        )
        if as_frequent:
            listed += f"; {as_frequent:,} more as often as the last"
        body += (
            '<p class="after">Most frequent mistakes, true → predicted, with the share of the true class: '
            f"{listed}.</p>"
        )
    return Section("predictions", "Confusion", "Confusion", body, [matrix])


def _per_class_table(run: RunFolder) -> str:
    columns, rows = predictions.per_class(run)
    if not rows:
        return ""
    ordered = ""
    if len(rows) > predictions.MAX_CLASSES_NUMBERED and "f1" in columns:
        at = columns.index("f1")
        rows = sorted(rows, key=lambda row: (number(row[1][at]) is None, number(row[1][at]) or 0.0))
        ordered = " The weakest classes come first."
    titles = {"support": "samples", "count": "samples", "n": "samples"}
    head = [("class", ""), *((titles.get(key) or metric(key).label, "n") for key in columns)]
    lines = [
        f'<th title="{text(name)}">{text(elide_middle(name, 24))}</th>'
        + "".join(_cell(key, value) for key, value in zip(columns, values, strict=True))
        for name, values in rows
    ]
    caption = (
        "Precision: how many of the answers with this class are right. Recall: how many of the class are "
        f"found. F1 is their harmonic mean.{ordered}"
    )
    return box("By class", table(head, lines), caption)


def _cell(key: str, value: Any) -> str:
    share = number(value)
    if share is None:
        return f'<td class="n">{text(None if isinstance(value, float) else value)}</td>'
    if key in METRICS and METRICS[key].percent and 0 <= share <= 1:
        return f'<td class="n bar" style="--share:{share:.3f}">{text(percent(share))}</td>'
    return f'<td class="n">{text(significant(share))}</td>'


def _target_table(targets: list[predictions.Target], drawn: int) -> str:
    note = f" Drawn above are the {drawn} least explained." if drawn < len(targets) else ""
    lines = []
    for target in targets:
        numbers = [target.rmse, target.spread, target.r2 if np.isfinite(target.r2) else None]
        cells = "".join(f'<td class="n">{text(value)}</td>' for value in numbers)
        lines.append(f"<th>{text(target.name)}</th>{cells}")
    head = [("target", ""), ("RMSE", "n"), ("standard deviation", "n"), ("R²", "n")]
    caption = f"RMSE below the standard deviation beats always saying the mean.{note}"
    return box("By target", table(head, lines), caption)


def _calibration(run: RunFolder) -> Section:
    figure = predictions.calibration(run)
    return Section(
        "calibration", "", "Calibration", panel(figure) if figure else "", [figure] if figure else []
    )


def _mistakes(run: RunFolder) -> Section:
    mistakes = [entry for entry in run.evaluation.get("mistakes") or [] if isinstance(entry, dict)][
        :MAX_MISTAKES
    ]
    if not mistakes:
        return Section("mistakes", "", "", "")
    counted_as = _row_label(run)
    if any(_is_picture(entry.get("image")) for entry in mistakes):
        body = f'<ul class="cards">{"".join(_picture(entry, counted_as) for entry in mistakes)}</ul>'
    elif any("text" in entry for entry in mistakes):
        body = f'<ul class="snippets">{"".join(_snippet(entry) for entry in mistakes)}</ul>'
    else:
        body = _mistake_table(mistakes, counted_as)
    share = (
        "names, rare words, another language, or a kind of text that training had too little of"
        if run.task == "text"
        else "wrong labels, odd recordings, or a kind of sample that training had too few of"
    )
    intro = f"The test samples with the largest errors, the worst first. Look for what they share: {share}."
    return Section("mistakes", "Mistakes", "The worst mistakes", f"<p>{intro}</p>\n{body}")


def _row_label(run: RunFolder) -> str:
    """How "row" is counted: tables name the place in the file, other data the place in the array."""
    name = _name(run.recipe.get("data")).lower()
    if name.endswith((".csv", ".tsv")):
        return "line"
    if name.endswith(".parquet"):
        return "row (from 1)"
    return "row (from 0)" if name else "row"


def _is_picture(source: Any) -> bool:
    return isinstance(source, str) and source.startswith("data:image/")


def _verdict(entry: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (name, text, css class) of what was true and what was answered."""
    lines = [("target", plain(entry.get("target")), "")]
    lines += [("true", plain(entry.get("true")), ""), ("predicted", plain(entry.get("predicted")), "wrong")]
    if (probability := number(entry.get("probability"))) is not None:
        lines.append(("probability", percent(probability), ""))
    elif (loss := number(entry.get("loss"))) is not None:
        lines.append(("loss", significant(loss, 3), ""))
    return [line for line in lines if line[1] != "–"]


def _picture(entry: dict[str, Any], counted_as: str) -> str:
    source = str(entry.get("image"))
    place, row = ("file", entry["file"]) if "file" in entry else (counted_as, entry.get("row"))
    picture = (
        f'<img src="{html.escape(source)}" alt="{place} {text(row)}" loading="lazy">'
        if _is_picture(source)
        else ""
    )
    lines = "".join(
        f'<div><span>{name}</span><b class="{css}">{html.escape(value)}</b></div>'
        for name, value, css in _verdict(entry)
    )
    row_line = f"<div><span>{place}</span><span>{text(row)}</span></div>" if row is not None else ""
    return f'<li>{picture}<div class="what">{lines}{row_line}</div></li>'


def _snippet(entry: dict[str, Any]) -> str:
    facts = [f"from character {plain(entry['row'])}"] if "row" in entry else []
    facts += [f"{name} {value}" for name, value, _ in _verdict(entry)]
    caption = f'<p class="caption">{text(" · ".join(facts))}</p>'
    return f'<li class="panel">{caption}<pre>{text(entry.get("text"))}</pre></li>'


def _mistake_table(mistakes: list[dict[str, Any]], counted_as: str) -> str:
    several = len({entry.get("target") for entry in mistakes}) > 1
    values = [entry["values"] if isinstance(entry.get("values"), dict) else {} for entry in mistakes]
    every = list(dict.fromkeys(name for row in values for name in row))
    names = every[:MAX_TABLE_COLUMNS]
    first = [
        key
        for key in ("row", "target", "true", "predicted", "probability", "residual", "loss")
        if any(key in e for e in mistakes) and (key != "target" or several)
    ]
    lines = [
        "".join(
            f'<td class="{"wrong" * (key == "predicted")}">{_verdict_text(entry, key)}</td>' for key in first
        )
        + "".join(f'<td title="{text(row.get(name))}">{text(row.get(name))}</td>' for name in names)
        for entry, row in zip(mistakes, values, strict=True)
    ]
    left_out = len(every) - len(names)
    caption = f"{counted(left_out, 'further column')} left out." if left_out else ""
    head = [(counted_as if key == "row" else key, "") for key in first] + [(name, "") for name in names]
    return box("", table(head, lines, "wide"), caption)


def _verdict_text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    probability = number(value) if key == "probability" else None
    return text(value) if probability is None else text(percent(probability))


def _samples(run: RunFolder) -> Section:
    samples = run.evaluation.get("samples") or []
    items = ""
    for sample in samples:
        written = sample.get("text") if isinstance(sample, dict) else sample
        items += f'<li class="panel">{_prompt(sample)}<pre>{text(written)}</pre></li>'
    intro = "<p>Text that the finished network wrote, character by character.</p>"
    return Section(
        "samples",
        "Text" if items else "",
        "Written by the network",
        f'{intro}<ul class="snippets">{items}</ul>' if items else "",
    )


def _prompt(sample: Any) -> str:
    prompt = sample.get("prompt") if isinstance(sample, dict) else None
    return f'<p class="caption">begun with “{text(prompt)}”</p>' if prompt else ""


def _speed(run: RunFolder) -> Section:
    figure = curves.speed(run)
    figures = [figure] if figure else []
    words = curves.speed_in_words(run)
    body = grid(figures) or (f"<p>{text(words)}</p>" if words else "")
    return Section("speed-over-time", "Speed", "Speed over time" if figures else "Speed", body, figures)


def _recipe(run: RunFolder) -> Section:
    if not run.recipe_text.strip():
        return Section("recipe", "", "", "")
    recipe = f'<pre id="recipe-text">{html.escape(run.recipe_text)}</pre>'
    caption = "All settings of this run, defaults included: with this file it can be repeated."
    return Section("recipe", "Recipe", "Recipe", box("recipe.yaml", recipe, caption, copies="recipe-text"))


def _environment(run: RunFolder) -> Section:
    environment = run.result.get("environment") or {}
    data = run.result.get("data") or {}
    boxes = box("Environment", pair_list(environment)) if environment else ""
    if data:
        notes = "".join(f"<li>{text(note)}</li>" for note in data.get("notes") or [])
        sizes = {key: value for key, value in data.items() if key != "notes"}
        boxes += box("Data", pair_list(sizes) + (f'<ul class="plain">{notes}</ul>' if notes else ""))
    body = ""
    if command := run.result.get("command"):
        body += box("Command", f'<pre id="command-text">{text(command)}</pre>', copies="command-text")
    if boxes:
        body += f'<div class="two">{boxes}</div>'
    return Section("environment", "Environment", "Where and how it ran", body)


def pair_list(values: dict[str, Any]) -> str:
    """Names and values, one below the other."""
    return (
        '<dl class="pairs">'
        + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in values.items())
        + "</dl>"
    )
