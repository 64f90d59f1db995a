"""The reader takes what is there, and says what is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from stepwell.report.run_folder import read_run, series

Make = Callable[..., Path]


def test_layers_become_arrays_of_norms_and_ratios(make_run: Make) -> None:
    """gradient[t, l] and update / weight agree with the lines of the file."""
    run = make_run("binary", rows=7)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "layers" in row]
    layers = read_run(run).layers
    assert layers and layers.gradient.shape == layers.ratio.shape == (7, 4)
    for t, row in enumerate(rows):
        for at, name in enumerate(layers.names):
            norm = row["layers"][name]
            assert math.isclose(layers.gradient[t, at], norm["grad"], rel_tol=1e-6)
            assert math.isclose(layers.ratio[t, at], norm["update"] / norm["weight"], rel_tol=1e-6)


def test_a_cut_last_line_is_normal_and_others_are_named(make_run: Make) -> None:
    """A kill cuts the last line, which needs no word; a damaged line elsewhere is counted."""
    run = make_run("text", rows=5)
    file = run / "metrics.jsonl"
    whole = file.read_text()
    before = len(read_run(run).rows["train"])
    file.write_text(whole + '{"update": 300, "spl')
    assert (len(read_run(run).rows["train"]), read_run(run).missing) == (before, [])
    file.write_text("oops\n[1]\n" + whole)
    assert read_run(run).missing == ["metrics.jsonl has 2 lines that cannot be read; skipped."]


def test_series_leaves_out_what_cannot_be_drawn() -> None:
    """NaN, infinity, texts, bools and absent values make no point."""
    values = [1.0, math.nan, math.inf, "x", True, None, 2]
    rows = [{"update": k, "epoch": 0.5, "loss": value} for k, value in enumerate(values)]
    x, y, epoch = series([*rows, {"update": 9}], "loss")
    assert (x.tolist(), y.tolist(), epoch.tolist()) == ([0, 6], [1, 2], [0.5, 0.5])
