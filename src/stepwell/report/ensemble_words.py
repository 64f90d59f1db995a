"""What an ensemble gains, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepwell.metrics.paired import COMPARED, MORE_IS_BETTER
from stepwell.report.run_folder import number
from stepwell.report.wording import NARROW, Estimate, estimate, metric, percent, significant

Result = dict[str, Any]
LISTED = 20  # members with a line of their own


def cells(result: Result) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the columns, and the rows: each member, their mean, and what they are together.

    On the test part; no rows where nothing was measured.
    """
    told, test = result["ensemble"], result["test"]
    names = [name for name in (*COMPARED[result["task"]], "ece") if name in test]
    each = told["each"]
    rows = [(one["name"], [estimate(one["test"].get(n)) for n in names]) for one in each[:LISTED] if test]
    if len(each) > LISTED and test:
        rows.append((f"… {len(each) - LISTED} more", [None] * len(names)))
    if test:
        rows.append(("mean of the members", [_mean(each, name) for name in names]))
        rows.append(("together", [estimate(test[name]) for name in names]))
    return names, [(row, [_written(n, e) for n, e in zip(names, found, strict=True)]) for row, found in rows]


def table(result: Result) -> list[str]:
    """The same as lines for a terminal."""
    names, rows = cells(result)
    if not rows:
        return []
    first = max(len(name) for name, _ in rows)
    columns = [[metric(name).label, *(row[k] for _, row in rows)] for k, name in enumerate(names)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        f"  {name:<{first}}  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for name, row in [("", [column[0] for column in columns]), *rows]
    ]
    return [
        f"On {result['data']['test']:,} test samples, with 95 % intervals:",
        *(line.rstrip() for line in lines),
    ]


def _mean(each: list[Result], name: str) -> Estimate | None:
    values = [found.value for one in each if (found := estimate(one["test"].get(name))) is not None]
    return Estimate(float(np.mean(values))) if values else None


def _written(name: str, value: Estimate | None) -> str:
    if value is None:
        return "–"
    form = ".2%" if metric(name).percent else ".4g"
    limits = "" if value.low is None else f"  [{value.low:{form}}, {value.high:{form}}]"
    return f"{value.value:{form}}{limits}"


def gains(result: Result) -> Iterator[str]:
    """A sentence on the gain over the mean member, and one on that over the best by validation."""
    told = result["ensemble"]
    for key in ("over_mean", "over_best"):
        if found := told.get(key):
            over = "the mean of the members"
            if key == "over_best":
                over = f"the best member by validation ({told['each'][found['member']]['name']})"
            names = COMPARED[result["task"]]
            parts = [f"{metric(name).label} {difference(name, found[name])}" for name in names]
            yield f"Against {over}: {', '.join(parts)}."


def difference(name: str, entry: Result) -> str:
    """By how much a metric is higher or lower, with its interval, and whether that may be chance."""
    value, low, high = (number(entry.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return "undefined here"

    def shown(x: float) -> str:
        return (f"{x * 100:+.2f}" if metric(name).percent else f"{x:+.3g}").replace("-", "−")

    unit = " points" if metric(name).percent else ""
    word = "higher" if value > 0 else "lower"
    text = f"{shown(value).lstrip('+−')}{unit} {word}" if value else "the same"
    if low is None or high is None:
        return text
    return f"{text} [{shown(low)}, {shown(high)}]" + ", which may be chance" * (low <= 0 <= high)


def headline(result: Result) -> str:
    """One sentence for the top of the page; "" of a single model, and where nothing was measured."""
    told, name = result.get("ensemble") or {}, COMPARED.get(str(result.get("task")), ("",))[0]
    entry = (told.get("over_mean") or {}).get(name) or {}
    gain, mean = number(entry.get("value")), _mean(told.get("each", []), name) if told else None
    if gain is None or mean is None:
        return ""
    before, after = metric(name).together(mean.value, result["test"][name]["value"])

    def size(x: float) -> str:
        return f"{x * 100:.2f}" if metric(name).percent else significant(x, 3)

    up = (gain > 0) == (name in MORE_IS_BETTER)
    verdict = f"{'a gain' if up else 'a loss'} of {size(abs(gain))}{' points' * metric(name).percent}"
    low, high = number(entry.get("low")), number(entry.get("high"))
    if low is not None and high is not None:
        sign = 1 if gain > 0 else -1
        first, last = sorted((sign * low, sign * high))
        verdict += f" (95{NARROW}% interval {size(first)} to {size(last)})".replace("-", "−")
        verdict += ", which may be chance" if low <= 0 <= high else ""
    verdict = verdict if gain else "no gain"
    return (
        f"The model is {told['means']}. Alone their {metric(name).label} is {before} on average, together "
        f"{after}: {verdict}."
    )


def disagreement(result: Result) -> Iterator[str]:
    """What the members' disagreement says of wrong answers."""
    told = (result.get("ensemble") or {}).get("uncertainty") or {}
    split, total = told.get("mutual_information"), told.get("entropy")
    if not split or not total:
        return
    yield (
        f"The entropy of the answers is {significant(total['mean'], 3)} nats on average: "
        f"{significant(told['expected_entropy']['mean'], 3)} are what each member takes for chance, and "
        f"{significant(split['mean'], 3)} are their disagreement (mutual information)."
    )
    if total.get("auc") is not None and split.get("auc") is not None:
        yield (
            f"Of a wrong and a right answer the wrong one has the higher entropy {percent(total['auc'])} of "
            f"the time, and the greater disagreement {percent(split['auc'])} (50{NARROW}% would be chance; "
            f"{told['wrong']:,} of {told['samples']:,} answers are wrong)."
        )
