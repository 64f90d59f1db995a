"""A comparison from words to its folder, again, interrupted, and beside single runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import stepwell as sw
from stepwell.errors import Diverged, Interrupted, UserError
from stepwell.populations import train as population
from stepwell.populations.compare.compare import compare, resume
from stepwell.populations.compare.grid import parse_words
from stepwell.populations.compare.plan import make_plan
from stepwell.populations.compare.result import summarize
from stepwell.populations.member import Member
from stepwell.recipe import parse_changes
from stepwell.training.train import train

TINY = {"data": "iris", "model.hidden": [4], "training.epochs": 2, "optimizer": "sgd,adam", "seeds": 2}


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what another process changes."""
    return {key: value for key, value in result.items() if key not in ("seconds", "command", "environment")}


def test_the_table_is_that_of_its_rows(done):
    """Mean, interval and difference of result.json follow from compare.csv by NumPy and SciPy."""
    found: dict[str, np.ndarray] = {}
    for entry in done.result["entries"]:
        rows = [r for r in done.rows if r["entry"] == entry["name"]]
        loss = {r["optimizer.lr"]: [] for r in rows}
        for row in rows:
            loss[row["optimizer.lr"]].append(float(row["validation_loss"] or "inf"))
        best = min(loss, key=lambda rate: np.mean(loss[rate]))
        chosen = [row for row in rows if row["chosen"] == "true"]
        assert {row["optimizer.lr"] for row in chosen} == {best} and len(chosen) == 3
        assert float(best) == entry["tuned"]["optimizer.lr"]
        values = found[entry["name"]] = np.array([float(row["test_accuracy"]) for row in chosen])
        test = entry["test"]["accuracy"]
        expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert [test["mean"], test["low"], test["high"]] == pytest.approx([values.mean(), *expected])
    pair = done.result["pairs"][0]
    assert pair["mean"] == pytest.approx((found[pair["first"]] - found[pair["second"]]).mean())
    assert pair["p"] == pair["p_holm"]  # one pair needs no correction


def test_single_runs_agree(done, tmp_path: Path):
    """Three members' printed commands, given to `stepwell train`, have the metrics of compare.csv."""
    for k in (4, 17, 25):
        row = done.rows[k]
        words = shlex.split(row["command"])[2:]
        result, _ = train(None, parse_changes(words), str(tmp_path / str(k)), quiet=True)
        assert result["test"]["accuracy"]["value"] == pytest.approx(float(row["test_accuracy"]), abs=1e-9)
        assert result["test"]["loss"]["value"] == pytest.approx(float(row["test_loss"]), rel=1e-5)
        assert result["updates"] == int(row["updates"])


def test_comparison_yaml_does_it_again(done, tmp_path: Path):
    """The file that is written down gives the same table, and writes the same file."""
    result, folder = compare(done.folder / "comparison.yaml", out=str(tmp_path / "again"), quiet=True)
    assert numbers(result) == numbers(done.result)
    for name in ("comparison.yaml", "compare.csv"):
        assert (folder / name).read_text() == (done.folder / name).read_text()


def test_yaml_program_and_words_say_the_same(tmp_path: Path):
    """Lists in YAML, in a program and on the command line."""
    (tmp_path / "recipe.yaml").write_text(
        "data: iris\nmodel: {hidden: [[4], [2, 2]]}\ntraining: {epochs: 1}\nseeds: 1\n"
        "optimizer:\n  lr: log(0.01,0.1,2)\n"
    )
    lists: Any = {"model.hidden": "[4],[2,2]"}
    nested = {"data": "iris", "training": {"epochs": 1}, "optimizer": {"lr": "log(0.01,0.1,2)"}}
    words = [
        "data=iris",
        "model.hidden=[4],[2,2]",
        "training.epochs=1",
        "optimizer.lr=log(0.01,0.1,2)",
        "seeds=1",
    ]
    found = [
        sw.compare(tmp_path / "recipe.yaml", out=str(tmp_path / "a"), quiet=True),
        sw.compare(nested, seeds=1, out=str(tmp_path / "b"), quiet=True, **lists),
        sw.compare(out=str(tmp_path / "c"), quiet=True, **parse_words(words)),
    ]
    for result in found:
        assert (result["compared"], result["tuned"]) == (lists, {"optimizer.lr": "log(0.01,0.1,2)"})
        assert Path(result["report"]).name == "compare.html" and Path(result["report"]).exists()
        tests = [(entry["name"], entry["test"], entry["recipe"]) for entry in result["entries"]]
        assert tests == [(entry["name"], entry["test"], entry["recipe"]) for entry in found[0]["entries"]]


def test_going_on_after_a_kill_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed while it trains, a folder has comparison.yaml alone; --resume ends as if nothing had been."""
    whole, _ = compare(None, TINY, out=str(tmp_path / "whole"), quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(population, "train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compare(None, TINY, out=str(tmp_path / "killed"), quiet=True)
    assert not (tmp_path / "killed/result.json").exists()
    (tmp_path / "killed/.result.json.1.partial").write_text("{")
    result, was_finished = resume(tmp_path / "killed", quiet=True)
    assert not was_finished and numbers(result) == numbers(whole)
    assert (tmp_path / "killed/compare.csv").read_text() == (tmp_path / "whole/compare.csv").read_text()
    assert numbers(resume(tmp_path / "killed", quiet=True)[0]) == numbers(whole)
    assert resume(tmp_path / "killed", quiet=True)[1]
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {
        ".lock",
        "comparison.yaml",
        "compare.csv",
        "result.json",
    }


def test_a_signal_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The engine stops and has saved; the sentence has the command, and the folder stays."""

    def stopped(*_: Any, **__: Any) -> None:
        raise population.Stopped

    monkeypatch.setattr(population, "train", stopped)
    with pytest.raises(Interrupted, match="stepwell compare --resume"):
        compare(None, TINY, out=str(tmp_path / "stopped"), quiet=True)
    assert (tmp_path / "stopped/comparison.yaml").exists()


def test_where_every_run_diverges_it_is_said(tmp_path: Path):
    """Exit code 3 and one sentence; compare.csv has when each one did."""
    with pytest.raises(Diverged, match="all 4 runs diverged"):
        compare(
            None,
            {**TINY, "optimizer": "sgd,momentum", "optimizer.lr": 1e30},
            out=str(tmp_path / "wild"),
            quiet=True,
        )
    assert (tmp_path / "wild/compare.csv").read_text().count(",diverged,") == 4


def test_an_entry_that_always_diverges_is_a_line_of_the_table(tmp_path: Path):
    """The others are compared, and the page is whole."""
    found = sw.compare(
        None,
        out=str(tmp_path / "one"),
        quiet=True,
        **{**TINY, "optimizer": "sgd", "optimizer.lr": [0.1, 1e30]},
    )
    assert [entry["finished"] for entry in found["entries"]] == [2, 0]
    assert found["entries"][1]["test"]["accuracy"]["mean"] is None
    assert "every run diverged" in found["verdict"]
    json.dumps(found, allow_nan=False)


def test_halving_gives_up_the_worse_and_compares_the_rest(tmp_path: Path):
    """Of five rates three, two and one go on; the chosen one was trained to its end, with all its seeds."""
    keys = {**TINY, "training.epochs": 8, "optimizer.lr": "log(1e-3,10,5)", "halving": True}
    result, folder = compare(None, keys, out=str(tmp_path / "halved"), quiet=True)
    assert result["halving"] == {"rungs": [2, 4, 8]}
    for entry in result["entries"]:
        assert entry["given_up"] == 2 * 4 and entry["finished"] == 2 and entry["updates"] == 16
        kept = [c for c in entry["candidates"] if not c["given_up"]]
        assert [c["values"] for c in kept] == [entry["tuned"]]
    assert (folder / "compare.csv").read_text().count(",given up,2,") == 2 * 2 * 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "nothing is tuned"),
        ({"optimizer.lr": "log(0.01,1,3)", "training.epochs": 1}, "evaluate_every"),
        ({"optimizer.lr": "log(0.01,1,3)", "training.batch_size": "16,64"}, "same number of updates"),
    ],
)
def test_halving_that_has_no_meaning_is_refused(keys: dict[str, Any], said: str, tmp_path: Path):
    """One sentence, and no folder."""
    with pytest.raises(UserError, match=said):
        compare(None, {**TINY, **keys, "halving": True}, out=str(tmp_path / "no"), quiet=True)
    assert not (tmp_path / "no").exists()


def test_a_used_folder_is_refused(done):
    """It says how to go on with what is there."""
    with pytest.raises(UserError, match=r"already holds a comparison.*stepwell compare --resume"):
        compare(None, TINY, out=str(done.folder), quiet=True)


def test_a_rule_does_not_differ_from_itself_in_real_trainings(tmp_path: Path):
    """SGD under two names: with the same seeds every value is the same, to the last bit."""
    rules = ["sgd", {"name": "momentum", "momentum": 0.0, "lr": 0.1}]
    result, _ = compare(None, {**TINY, "optimizer": rules}, out=str(tmp_path / "same"), quiet=True)
    assert result["pairs"][0]["p"] == 1 and result["pairs"][0]["mean"] == 0
    assert "not significant" in result["verdict"]


def test_real_trainings_of_one_rule_do_not_differ():
    """100 comparisons of one recipe with itself, three seeds of its own each: at least 94 find nothing."""
    plan = make_plan(
        {"data.name": "iris", "model.hidden": [4], "training.epochs": 1, "optimizer.lr": [0.1, 0.2]}, 3
    )
    recipe = plan.members()[0].recipe
    members = [Member(recipe.model_copy(update={"seed": seed}), plan.data) for seed in range(600)]
    outcomes = population.train(members)
    verdicts = [summarize(plan, outcomes[6 * k : 6 * k + 6])["verdict"] for k in range(100)]
    assert len({outcome.test["accuracy"] for outcome in outcomes}) > 10  # there is something to compare
    assert sum("is not significant" in verdict for verdict in verdicts) >= 94
