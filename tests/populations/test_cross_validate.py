"""Cross-validation: folds are what training alone gives, choose without what they hold out, and resume."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn import metrics as theirs
from sklearn import model_selection
from sklearn.datasets import load_iris

import stepwell as sw
from stepwell import cli
from stepwell.errors import Interrupted, UserError
from stepwell.populations import train as population
from stepwell.populations.cross_validate import result as results
from stepwell.populations.cross_validate import run as running
from stepwell.populations.cross_validate.plan import plan
from stepwell.populations.cross_validate.question import Question
from stepwell.populations.cross_validate.result import _score
from stepwell.populations.cross_validate.values import listed, settled, word
from stepwell.populations.member import Outcome
from stepwell.recipe import parse_changes
from stepwell.training import predict

TINY = {"data": "iris", "model.hidden": [6], "training.epochs": 4, "optimizer.lr": 0.05}
ANSWERS = ("result.json", "folds.csv", "predictions.csv")


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """Four folds of iris."""
    folder = tmp_path_factory.mktemp("cv")
    return sw.cross_validate(TINY, folds=4, out=str(folder / "iris"), quiet=True)


def _command(words: str, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", shlex.split(words))
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def test_a_fold_trained_alone_gives_the_same(iris, tmp_path, monkeypatch):
    """The command of a fold tests the same rows with the same metrics, and predicts what the table says."""
    fold = iris["results"][2]
    assert _command(f"{fold['command']} --out {tmp_path / 'alone'}", monkeypatch) == 0
    alone = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert alone["data"]["test"] == fold["test"] and alone["updates"] == fold["updates"]
    for name, value in fold["metrics"].items():
        assert value == pytest.approx(alone["test"][name]["value"], rel=1e-5, abs=1e-7), name
    x = torch.from_numpy(load_iris(return_X_y=True)[0][fold["rows"]].astype(np.float32))
    p = predict.trained(tmp_path / "alone").network.predict(x).detach().numpy()
    table = pl.read_csv(iris["predictions"])[fold["rows"]]
    assert set(table["fold"]) == {3}
    assert np.allclose(table.select(pl.col("^probability_.*$")).to_numpy(), p, rtol=1e-5, atol=1e-7)


def test_the_numbers_together_are_scikit_learns(iris):
    """Folds are StratifiedKFold's; means and pooled metrics are what one computes from the table."""
    x, y = load_iris(return_X_y=True)
    expected = model_selection.StratifiedKFold(4, shuffle=True, random_state=0).split(x, y)
    for fold, (_, held) in zip(iris["results"], expected, strict=True):
        assert fold["rows"] == held.tolist()
    table, names = pl.read_csv(iris["predictions"]), np.array(["setosa", "versicolor", "virginica"])
    assert table["row"].to_list() == list(range(150)) and (table["target"] == names[y]).all()
    assert table.columns == ["row", "fold", "target", "prediction", *(f"probability_{n}" for n in names)]
    accuracy = [theirs.accuracy_score(f["target"], f["prediction"]) for _, f in table.group_by("fold")]
    assert iris["mean"]["accuracy"]["value"] == pytest.approx(np.mean(accuracy))
    pooled = iris["pooled"]
    assert pooled["accuracy"]["value"] == pytest.approx((table["target"] == table["prediction"]).mean())
    p = table.select(pl.col("^probability_.*$")).to_numpy()
    p /= p.sum(1, keepdims=True)  # of float32 numbers it is 1 but for rounding
    assert pooled["loss"]["value"] == pytest.approx(theirs.log_loss(y, p), rel=1e-5)
    low, high = iris["mean"]["accuracy"]["low"], iris["mean"]["accuracy"]["high"]
    half = 3.182446305284263 * np.std(accuracy, ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    middle = np.mean(accuracy)
    assert (low, high) == pytest.approx((max(middle - half, 0), min(middle + half, 1)), rel=1e-3)


def test_a_line_a_fold_and_a_page(iris):
    """folds.csv has sizes, metrics, commands and rows; the page needs no other file and names every fold."""
    lines = pl.read_csv(Path(iris["folder"]) / "folds.csv")
    assert lines["name"].to_list() == ["1/4", "2/4", "3/4", "4/4"]
    assert lines["loss"].to_list() == pytest.approx([f["metrics"]["loss"] for f in iris["results"]])
    assert lines["command"][0] == iris["results"][0]["command"] and lines["test"].sum() == 150
    first = [
        range(int(a), int(b or a) + 1) for a, _, b in (r.partition("-") for r in lines["rows"][0].split())
    ]
    assert [row for some in first for row in some] == iris["results"][0]["rows"]
    page = Path(iris["report"]).read_text()
    assert "4 folds of iris, 150 rows, classes stratified" in page and "data.fold=4/4" in page
    assert "folds-accuracy" in page and "<script src" not in page


def _numbers(path: Path, spoilt: list[int], by: float) -> None:
    """60 samples with numbers to predict; in `spoilt`, targets and a feature are far off."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(60, 3))
    y = x @ [1.0, -2.0, 0.5] + draw.normal(0, 0.3, 60)
    y[spoilt] += by
    np.savez(path, x=x, y=y)


def test_a_fold_neither_learns_nor_chooses_by_what_it_holds_out(tmp_path):
    """Held-out targets that are off by 100 change a fold's choice and its predictions by no bit."""
    keys = {"data": str(tmp_path / "n.npz"), "model.hidden": [4], "training.epochs": 2}
    options = {"folds": 3, "values": {"optimizer.lr": [0.001, 0.03]}, "quiet": True}
    for inner in (None, 2):
        _numbers(tmp_path / "n.npz", [], 0)
        before = sw.cross_validate(keys, **options, inner=inner, out=str(tmp_path / f"a{inner}"))
        rows = before["results"][1]["rows"]
        _numbers(tmp_path / "n.npz", rows, 100)
        after = sw.cross_validate(keys, **options, inner=inner, out=str(tmp_path / f"b{inner}"))
        one, two = (pl.read_csv(found["predictions"])[rows] for found in (before, after))
        assert one["prediction"].equals(two["prediction"]) and not one["target"].equals(two["target"])
        assert before["results"][1]["chosen"] == after["results"][1]["chosen"]
        assert after["results"][1]["metrics"]["rmse"] > 50 > before["results"][1]["metrics"]["rmse"]


@pytest.mark.parametrize("inner", [None, 2])
def test_each_fold_takes_the_value_with_the_lowest_inner_loss(inner, tmp_path):
    """The lowest validation loss, or mean loss of the inner folds, of members trained by hand."""
    values = {"optimizer.lr": [0.0001, 0.03, 0.1], "model.hidden": [[3], [5]]}
    keys = {**TINY, "training.epochs": 2}
    found = sw.cross_validate(keys, folds=3, inner=inner, values=values, out=str(tmp_path / "n"), quiet=True)
    planned = plan(Question(None, dict(keys), 3, 1, inner, values))
    chosen = []
    for fold in planned.folds:
        losses = []
        for c, place in enumerate(fold.places):
            places = [place] if inner is None else fold.inner[c]
            ends = population.train([planned.members[p] for p in places])
            parts = [end.validation if inner is None else end.test for end in ends]
            losses.append(np.mean([part["loss"] for part in parts]))
        chosen.append(planned.candidates[int(np.argmin(losses))])
        for c in range(6 if inner else 0):  # the inner folds are of the rows that the fold learns from
            held = [planned.members[p].data.test.rows.numpy() for p in fold.inner[c]]
            assert sorted(np.concatenate(held).tolist()) == sorted(fold.learn.tolist())
    assert [fold["chosen"] for fold in found["results"]] == chosen
    choice = found["choice"]
    assert [one["chosen"] for one in choice["candidates"]] == [chosen.count(c) for c in planned.candidates]
    best = min(choice["candidates"], key=lambda one: one["test"]["loss"])
    assert (
        choice["optimistic"]["values"] == best["values"]
        and sum(o["chosen"] for o in choice["candidates"]) == 3
    )
    assert choice["honest"]["test"]["loss"]["value"] == pytest.approx(
        found["mean"]["loss"]["value"], rel=1e-6
    )
    assert choice["honest"]["test"]["loss"]["value"] >= choice["optimistic"]["test"]["loss"]["value"] - 1e-12


def test_repeats_and_groups(tmp_path):
    """Repeats hold out every row anew, and predictions are means; a group is never on both sides."""
    found = sw.cross_validate(TINY, folds=3, repeats=2, out=str(tmp_path / "r"), quiet=True)
    table = pl.read_csv(found["predictions"])
    assert [fold["name"] for fold in found["results"]] == [
        "1/3:1",
        "2/3:1",
        "3/3:1",
        "1/3:2",
        "2/3:2",
        "3/3:2",
    ]
    assert {tuple(int(k) > 3 for k in text.split()) for text in table["fold"]} == {(False, True)}
    each = [sorted(r for f in found["results"][k : k + 3] for r in f["rows"]) for k in (0, 3)]
    assert each == [list(range(150))] * 2 and "low" not in found["pooled"]["accuracy"]
    p = table.select(pl.col("^probability_.*$")).to_numpy()
    assert np.allclose(p.sum(1), 1, atol=1e-6)
    groups = np.random.default_rng(0).integers(9, size=150)
    found = sw.cross_validate(TINY, folds=3, groups=groups, out=str(tmp_path / "g"), quiet=True)
    for fold in found["results"]:
        held = np.isin(np.arange(150), fold["rows"])
        assert not set(groups[held]) & set(groups[~held]) and fold["command"] is None


@pytest.mark.parametrize(
    "splitter",
    [
        model_selection.ShuffleSplit(3, test_size=0.2, random_state=0),
        model_selection.KFold(3),
        [(np.arange(100), np.arange(100, 150)), (list(range(50, 150)), list(range(50)))],
    ],
    ids=["shuffle", "kfold", "pairs"],
)
def test_any_splitter_is_taken(splitter, tmp_path):
    """Its folds are used as they are; rows that none holds out have empty cells, and are told."""
    found = sw.cross_validate(TINY, splitter=splitter, out=str(tmp_path / "s"), quiet=True)
    pairs = list(splitter.split(np.zeros((150, 1)))) if hasattr(splitter, "split") else splitter
    assert [fold["rows"] for fold in found["results"]] == [sorted(held) for _, held in pairs]
    table, held = pl.read_csv(found["predictions"]), np.unique(np.concatenate([h for _, h in pairs]))
    assert table["prediction"].is_not_null().arg_true().to_list() == held.tolist()
    assert bool(found["pooled"]) == isinstance(splitter, model_selection.KFold)
    assert any("in no fold's held-out part" in note for note in found["notes"]) == (len(held) < 150)


@pytest.mark.parametrize("kind", ["labels", "numbers", "images"])
def test_every_kind_of_target(kind, tmp_path):
    """Labels, several numbers and images: true and predicted columns stand beside each other, row by row."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(48, 4))
    y = (x[:, :3] > 0).astype(int) if kind == "labels" else x[:, :2] * 3
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    keys: dict[str, object] = {"data": str(tmp_path / "d.npz"), "model.hidden": [4]}
    if kind == "images":
        for k in range(24):
            (tmp_path / "pets" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / "ab"[k % 2] / f"{k:02}.png")
        keys = {"data": str(tmp_path / "pets"), "model.channels": [2]}
    options = {
        "values": {"optimizer.lr": [0.001, 0.1]},
        "folds": 3,
        "out": str(tmp_path / "cv"),
        "quiet": True,
    }
    found = sw.cross_validate({**keys, "training.epochs": 2}, **options)
    table = pl.read_csv(found["predictions"])
    if kind == "images":
        assert table["file"].to_list() == [
            f"{'ab'[k // 12]}/{2 * (k % 12) + k // 12:02}.png" for k in range(24)
        ]
        assert table["target"].to_list() == ["a"] * 12 + ["b"] * 12 and not found["notes"]
        return
    assert table["row"].to_list() == list(range(48))
    assert "d has a test part of its own: it is in no fold, and nothing was measured on it" in found["notes"]
    if kind == "labels":
        names = [", ".join(str(k) for k in range(3) if row[k]) for row in y]
        assert table["target"].fill_null("").to_list() == names
        exact = (table["target"].fill_null("") == table["prediction"].fill_null("")).mean()
        assert found["pooled"]["subset_accuracy"]["value"] == pytest.approx(exact)
    else:
        assert table.columns[2:] == [
            f"{what}_y_train[{k}]" for what in ("target", "prediction") for k in (0, 1)
        ]
        assert np.allclose(table.select(pl.col("^target.*$")).to_numpy(), y)
        r2 = theirs.r2_score(y, table.select(pl.col("^prediction.*$")).to_numpy())
        assert found["pooled"]["r2"]["value"] == pytest.approx(r2)


def test_a_fold_that_diverges_is_told(tmp_path):
    """Without one fold there is no mean, and its rows have no prediction; if all fail, one sentence."""
    planned = plan(Question(None, dict(TINY), 3))
    outcomes = population.train(planned.members, weights=True)
    outcomes[1].diverged, outcomes[1].weights, outcomes[1].test = 5, None, {}
    found = results.summarize(planned, outcomes)
    assert found.result["mean"]["loss"] == {"value": None} and found.result["pooled"] == {}
    assert found.result["notes"] == ["fold 2 diverged at update 5, so there is no mean: lower optimizer.lr"]
    missing = found.predictions["prediction"].is_null().arg_true().to_list()
    assert missing == planned.folds[1].held.tolist()
    keys = {**TINY, "optimizer.name": "sgd", "optimizer.lr": 1e30}
    with pytest.raises(
        UserError, match=r"every fold has diverged, the first at update \d+: lower optimizer\.lr"
    ):
        sw.cross_validate(keys, out=str(tmp_path / "d"), quiet=True)
    assert not (tmp_path / "d").exists()


def _answer(folder: str | Path) -> list[str]:
    return [(Path(folder) / name).read_text() for name in ANSWERS]


def test_resume_answers_what_was_asked(iris, tmp_path, monkeypatch):
    """Stopped by a signal before its end, it goes on to the same three files; finished, it is only read."""
    real, folder = running.train, tmp_path / "iris"

    def stopped(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        assert options["interrupted"]()
        raise population.Stopped

    monkeypatch.setattr(running, "train", stopped)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: iris\nmodel: {name: mlp, hidden: [6]}\n")
    with pytest.raises(Interrupted, match=r"stopped and saved; go on with: stepwell cross-validate --resume"):
        sw.cross_validate(
            recipe, folds=4, out=str(folder), quiet=True, **{"training.epochs": 4, "optimizer.lr": 0.05}
        )
    with pytest.raises(UserError, match="already holds a cross-validation"):
        sw.cross_validate(TINY, out=str(folder), quiet=True)
    monkeypatch.setattr(running, "train", real)
    recipe.unlink()
    found = sw.resume_cross_validate(folder, quiet=True)
    assert found["resumed"] and str(recipe) in found["results"][0]["command"]
    same = (Path(iris["folder"]) / "predictions.csv").read_text()
    assert _answer(folder)[2] == same and found["mean"] == iris["mean"]
    assert not sw.resume_cross_validate(folder, quiet=True)["resumed"]


def test_resume_of_a_splitter_and_of_changed_data(tmp_path, monkeypatch):
    """A splitter's folds are kept, not drawn again; data that has changed is refused."""
    _numbers(tmp_path / "n.npz", [], 0)
    keys = {"data": str(tmp_path / "n.npz"), "model.hidden": [4], "training.epochs": 1}
    splitter = model_selection.ShuffleSplit(2, random_state=np.random.RandomState(0))  # other rows each time

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(running, "train", killed)
        sw.cross_validate(keys, splitter=splitter, out=str(tmp_path / "s"), quiet=True)
    with np.load(tmp_path / "s" / "splits.npz") as kept:
        expected = [kept["held_0"].tolist(), kept["held_1"].tolist()]
    found = sw.resume_cross_validate(tmp_path / "s", quiet=True)
    assert [fold["rows"] for fold in found["results"]] == expected
    (tmp_path / "s" / "result.json").unlink()
    _numbers(tmp_path / "n.npz", [0], 1)
    with pytest.raises(UserError, match=r"n\.npz has changed since this cross-validation began"):
        sw.resume_cross_validate(tmp_path / "s", quiet=True)


def test_killed_in_the_middle(tmp_path):
    """kill -9, then --resume: the same three files as without."""
    keys = {"data": "iris", "model.hidden": [6], "training.epochs": 40}
    whole = sw.cross_validate(keys, repeats=2, out=str(tmp_path / "whole"), quiet=True)
    words = "cross-validate data=iris model.hidden=[6] training.epochs=40 --repeats 2 --out killed"
    begun = subprocess.Popen([sys.executable, "-m", "stepwell", *words.split()], cwd=tmp_path)
    while not (tmp_path / "killed" / "question.json").exists():
        assert begun.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    begun.kill()
    begun.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    assert sw.resume_cross_validate(tmp_path / "killed", quiet=True)["resumed"]
    one, two = (_answer(tmp_path / name) for name in ("whole", "killed"))
    assert one[1:] == two[1:] and one[0].replace('"whole"', "") == two[0].replace('"killed"', "")
    assert whole["folds"] == 5


def test_json_is_one_object(iris, monkeypatch, capsys):
    """--json prints the result as one line, and nothing else."""
    assert _command(f"stepwell cross-validate --resume {iris['folder']} --json", monkeypatch) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and said.err == ""
    assert json.loads(said.out) == {**iris, "resumed": False}


def test_what_the_terminal_shows(iris, monkeypatch, capsys):
    """A line a fold and a line a metric, without the letters that a page has."""
    assert _command(f"stepwell cross-validate --resume {iris['folder']}", monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 folds of iris, 150 rows, classes stratified:"
    head = ["fold", "trained", "on", "tested", "on", "accuracy", "balanced", "accuracy", "loss"]
    assert lines[1].split() == head
    assert [line.split()[0] for line in lines[2:6]] == ["1/4", "2/4", "3/4", "4/4"]
    assert f"{iris['results'][0]['metrics']['accuracy'] * 100:.1f}%" in lines[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data=iris --folds 1", "--folds 1: 1 fold: there must be 2 or more"),
        (
            "data=iris --folds 151",
            "--folds 151: 151 folds are more than the 150 rows there are: give at most 150",
        ),
        ("data=iris --folds 60", "more than any class has rows (the largest has 50): give at most 50"),
        ("data=iris --repeats 0", "--repeats 0: it must be at least 1"),
        ("data=iris --groups x", "data.groups has no effect with data=iris: it belongs to tables; remove it"),
        ("data=t.csv --groups hwo", "has no column 'hwo' (the nearest is 'who'"),
        ("data=t.csv --groups y", "data.groups names the target 'y'"),
        ("data=t.csv --groups who --folds 5", "5 folds are more than the 4 groups there are: give at most 4"),
        ("data=t.csv --groups gap", "row 3 has nothing in column 'gap'"),
        ("data=iris data.test=0.3", "data.test=0.3 has no effect: each fold is the test part in turn"),
        ("data=iris data.fold=1/5", "data.fold=1/5 is one of the folds, and here is trained on all"),
        ("data=iris --inner 3", "--inner has no effect without values to choose from"),
        (
            "data=iris optimizer.lr=0.1,0.2 data.validation=0",
            "without a validation part a fold cannot choose",
        ),
        (
            "data=iris optimizer.lr=0.1,0.2 --inner 50",
            "--inner 50: in fold 1, 50 folds are more than any class",
        ),
        ("data=iris seed=1,2", "seed: there is no best seed to choose"),
        ("data=iris optimizer.lr=log(0,1,3)", "write log(a,b,n) with a below b, both above 0"),
        ("data=iris optimizer.lr=0.1,0.1", "optimizer.lr: a value is given twice"),
        ("data=iris optimizer.lrr=0.1,0.2", "there is no key optimizer.lrr; did you mean optimizer.lr?"),
        ("data=x.txt", "a text is not split into folds"),
        ("data=iris training.track=[wandb]", "training.track has no effect on folds"),
        (
            "--resume nowhere",
            "nowhere does not exist: name the folder that stepwell cross-validate has written",
        ),
        ("--resume . data=iris", "--resume goes on as it was begun"),
        ("--resume .", ". holds no cross-validation: it has no question.json"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    """Exit code 2, the sentence, and nothing written."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},{i % 4},{'' if i == 1 else 'b'},{'ab'[i % 2]}" for i in range(40)]
    Path("t.csv").write_text("\n".join(["x,who,gap,y", *rows]))
    Path("x.txt").write_text("one two three " * 100)
    assert _command(f"stepwell cross-validate {words}", monkeypatch) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and sorted(os.listdir()) == ["t.csv", "x.txt"]


def test_words_with_several_values():
    """Commas outside of brackets, log(a,b,n) and range(a,b,n) list values; `word` writes what is read."""
    words = ["data=a,b.csv", "model.hidden=[8],[64,32]", "optimizer.lr=log(1e-4,1e-1,4),1", "seed=3"]
    plain, values = listed([*words, "training.batch_size=range(16,64,4)", "optimizer.name=sgd,adam"])
    assert plain == ["data=a,b.csv", "seed=3"]
    assert values == {
        "model.hidden": [[8], [64, 32]],
        "optimizer.lr": [0.0001, 0.001, 0.01, 0.1, 1],
        "training.batch_size": [16, 32, 48, 64],
        "optimizer.name": ["sgd", "adam"],
    }
    for value in (1e-5, [64, 32], "adam", True, None, 3, ["a b", "c"], "1e-3", {"kind": "ema", "decay": 0.9}):
        assert parse_changes([word("a.b", value)]) == {"a.b": value}
    found = settled({"data": {"name": "x.csv", "target": "y"}, "optimizer.lr": np.float64(0.1)}, "/d/x.csv")
    assert found == {"data": "/d/x.csv", "data.target": "y", "optimizer.lr": 0.1}


@pytest.mark.parametrize("inner", [None, 2])
def test_what_is_held_out_decides_nothing(inner):
    """The outer rows say the opposite of the inner ones, or of the validation part: these are followed."""
    ended = [Outcome(1, 1.0, test={"loss": loss}, validation={"loss": 1 - loss}) for loss in (0.1, 0.9)]
    ended += [Outcome(1, 1.0, test={"loss": loss}) for loss in (0.8, 0.8, 0.2, 0.3)]
    fold = SimpleNamespace(places=[0, 1], inner=[[2, 3], [4, 5]])
    plan: Any = SimpleNamespace(question=SimpleNamespace(inner=inner))
    scores = [_score(plan, cast(Any, fold), candidate, ended) for candidate in (0, 1)]
    assert scores == pytest.approx([0.9, 0.1] if inner is None else [0.8, 0.25])
