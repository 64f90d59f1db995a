"""Dead and saturated units in the report: drawn where there are some, and said in words."""

import json
from pathlib import Path

import numpy as np

from stepwell.report.run_folder import RunFolder, UnitHistory, read_run
from stepwell.report.units import unit_maps, unit_sentences


def run_with(kind: str, *columns: list[float]) -> RunFolder:
    """A run whose layers have these shares over time."""
    shares = np.array(columns, dtype=float).T
    names = [f"body.{k}" for k in range(len(columns))]
    return RunFolder(
        Path("r"), units={kind: UnitHistory(names, np.arange(1.0, len(shares) + 1) * 50, shares)}
    )


def test_a_mostly_dead_layer_is_named_with_its_share() -> None:
    """The newest known share counts, not the highest; half dead is not most."""
    run = run_with("dead", [np.nan, 0.9, 0.8, np.nan], [np.nan, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0])
    (said,) = unit_sentences(run)
    assert "body.0 (80.0" in said and "body.1" not in said and "body.2" not in said
    (figure,) = unit_maps(run)
    trace = figure.data[0]
    assert trace["z"] == [[None, 0.9, 0.8, None], [None, 0.9, 0.5, 0.5], [0.0] * 4]
    assert (trace["zmin"], trace["zmax"]) == (0, 1)  # the same colour means the same in every run


def test_nothing_dead_needs_a_sentence_and_no_figure() -> None:
    """Also where a little is; and where nothing is known nothing is said."""
    run = run_with("saturated", [0.0, 0.001, 0.0])
    assert unit_maps(run) == []
    assert unit_sentences(run) == ["Hardly any outputs are saturated in the 1 layer that could have some."]
    assert unit_sentences(run_with("dead", [np.nan, np.nan])) == [] == unit_maps(run_with("dead", [np.nan]))
    assert unit_sentences(RunFolder(Path("r"))) == []


def test_some_in_between_are_drawn_and_not_judged() -> None:
    """A fifth of the outputs saturated: a figure, no sentence."""
    run = run_with("saturated", [0.2, 0.2])
    assert len(unit_maps(run)) == 1 and unit_sentences(run) == []


def test_lines_of_metrics_are_read(tmp_path: Path) -> None:
    """Layers of either kind, lines without units, shares not yet known, and values that are none."""
    rows: list[dict[str, object]] = [
        {"update": 50, "split": "train", "units": {"a": {"dead": None}, "b": {"saturated": 0.1}}},
        {"update": 60, "split": "train", "loss": 1.0},
        {"update": 100, "split": "train", "units": {"a": {"dead": 0.5}, "b": {"saturated": "x"}, "c": 3}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(tmp_path)
    assert [(k, u.names, u.updates.tolist()) for k, u in run.units.items()] == [
        ("dead", ["a"], [50, 100]),
        ("saturated", ["b"], [50, 100]),
    ]
    np.testing.assert_array_equal(run.units["dead"].shares, [[np.nan], [0.5]])
    np.testing.assert_array_equal(run.units["saturated"].shares, [[0.1], [np.nan]])
    assert all("units" not in row for row in run.rows["train"])
