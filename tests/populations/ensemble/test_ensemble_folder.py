"""The folder of an ensemble: one trained model for every verb, its figures right, its beginning checked."""

from __future__ import annotations

import json
import shutil
from itertools import combinations

import numpy as np
import polars
import pytest
import torch
from sklearn.datasets import load_iris

import stepwell as sw
from stepwell.cli import main
from stepwell.errors import Diverged, Interrupted, UserError
from stepwell.nn.ensemble import members_of
from stepwell.populations.ensemble import make
from stepwell.training.export import export
from stepwell.training.predict import evaluate_file, predict, trained

TINY = {"model.hidden": [8], "training.epochs": 4, "optimizer.lr": 0.02}
IRIS = {"data": "iris", **TINY}
CASES = {
    "iris": (IRIS, "independent"),
    "diabetes": ({"data": "diabetes", **TINY}, "folds"),
    "labels": ({"data": "labels.npz", **TINY}, "independent"),
    "soup": ({"data": "iris", **TINY, "training.epochs": 20}, "soup"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ensemble of three of each case."""
    folder = tmp_path_factory.mktemp("ensembles")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(150, 4)).astype(np.float32)
    y = (x[:, :2] + draw.normal(size=(150, 2)) > 0).astype(int)
    np.savez(folder / "labels.npz", x_train=x, y_train=y)
    np.savez(folder / "new.npz", x=load_iris(return_X_y=True)[0][::20].astype(np.float32))
    np.savez(folder / "new-labels.npz", x=x[:9])
    for name, (changes, kind) in CASES.items():
        data = str(folder / "labels.npz") if name == "labels" else changes["data"]
        sw.ensemble({**changes, "data": data}, kind=kind, members=3, out=str(folder / name), quiet=True)
    return folder


def result_of(folder, name):
    return json.loads((folder / name / "result.json").read_text())


def test_predict_is_the_mean_of_the_members_own(folder):
    """Each member as a network of its own, averaged in NumPy; entropy and information as columns."""
    model = trained(folder / "iris")
    x = torch.from_numpy(np.load(folder / "new.npz")["x"])
    each = np.stack([member.predict(x).detach().double().numpy() for member in members_of(model.network)])
    found = predict(folder / "iris", folder / "new.npz")
    assert len(each) == 3 and np.ptp(each, axis=0).max() > 0.01
    shown = found.select(polars.col("^probability_.*$")).to_numpy()
    np.testing.assert_allclose(shown, each.mean(0), rtol=1e-6)
    np.testing.assert_allclose(sw.load(folder / "iris")(x).detach(), each.mean(0), rtol=1e-5)
    entropy = -(shown * np.log(shown)).sum(1)
    inside = -(each * np.log(each)).sum(2).mean(0)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-6)
    np.testing.assert_allclose(found["mutual_information"], entropy - inside, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["diabetes", "labels"])
def test_values_and_labels_have_the_members_deviation(folder, name):
    """The mean, and a column of the standard deviation over members."""
    model = trained(folder / name)
    x = torch.from_numpy(np.load(folder / "new-labels.npz")["x"])
    if name == "diabetes":
        x = torch.randn(9, 10) * 0.05
        np.savez(folder / "new-numbers.npz", x=x.numpy())
    file = folder / ("new-numbers.npz" if name == "diabetes" else "new-labels.npz")
    each = np.stack([member.predict(x).detach().double().numpy() for member in members_of(model.network)])
    found = predict(folder / name, file)
    means, sds = found.select("^prob.*$" if name == "labels" else "prediction"), found.select("^sd.*$")
    np.testing.assert_allclose(means.to_numpy(), each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(sds.to_numpy(), each.std(0, ddof=1), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_evaluate_measures_what_the_result_says(folder, name):
    """The saved model, measured again from its folder, has the test metrics of result.json, to 1e-6."""
    again, result = evaluate_file(folder / name, None)["test"], result_of(folder, name)
    assert again.keys() == result["test"].keys()
    for metric, entry in result["test"].items():
        assert again[metric]["value"] == pytest.approx(entry["value"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["iris", "diabetes", "soup"])
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_exports_predict_the_same(folder, name, ending, tmp_path):
    """torch.export and ONNX give the mean prediction for batches of 1 and 7."""
    if ending == "onnx":
        pytest.importorskip("onnxscript")
    export(folder / name, tmp_path / f"m.{ending}")
    model, sides = trained(folder / name).network, 10 if name == "diabetes" else 4
    for n in (1, 7):
        x = torch.randn(n, sides)
        if ending == "pt2":
            theirs = torch.export.load(str(tmp_path / "m.pt2")).module()(x).detach().numpy()
        else:
            session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "m.onnx"))
            theirs = session.run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(theirs, model.predict(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_push_and_pull_keep_the_ensemble(folder, tmp_path):
    """The copy predicts the same bits; its card says how many networks it is."""
    sw.push(folder / "iris", tmp_path / "there", licence="mit")
    sw.pull(tmp_path / "there", tmp_path / "here")
    x = torch.randn(5, 4)
    assert torch.equal(sw.load(tmp_path / "here")(x), sw.load(folder / "iris")(x))
    assert "in 3 networks whose predictions are averaged" in (tmp_path / "here" / "README.md").read_text()
    assert [card["parameters"] for card in sw.zoo(tmp_path / "here")] == [3 * (4 * 8 + 8 + 8 * 3 + 3)]


def test_a_file_that_claims_more_members_is_refused(folder, tmp_path):
    """A stranger's file may say any number: one sentence, and no memory for what is not there."""
    from stepwell.training import checkpoint, model_file

    tensors, about = checkpoint.read(folder / "iris" / "model.safetensors")
    for claimed in (2, 4, 0, -1, 10**9, True, "3", None, 2.0):
        checkpoint.write(tmp_path / "m.safetensors", tensors, {**about, "members": claimed})
        with pytest.raises(UserError, match=r"not the model of a run|does not fit the recipe"):
            found, told = checkpoint.read(tmp_path / "m.safetensors")
            model_file.check(tmp_path / "m.safetensors", found, told)
            model_file.build(tmp_path / "m.safetensors", found, told)


def test_the_curve_is_that_of_all_subsets(folder):
    """Accuracy and loss of every choice of members, averaged in NumPy; the last point is the ensemble's."""
    model, result = trained(folder / "iris"), result_of(folder, "iris")
    data = sw_data("iris")
    x, y = data.test.gather(torch.arange(len(data.test)))
    each = np.stack([member.predict(x).detach().double().numpy() for member in members_of(model.network)])
    for row in result["ensemble"]["curve"]:
        chosen = list(combinations(range(3), row["members"]))
        means = [each[list(c)].mean(0) for c in chosen]
        accuracies = [(p.argmax(1) == y.numpy()).mean() for p in means]
        losses = [-np.log(p[np.arange(len(y)), y.numpy()]).mean() for p in means]
        assert row["subsets"] == len(chosen)
        for name, found in (("accuracy", accuracies), ("loss", losses)):
            values = [row[name][key] for key in ("mean", "low", "high")]
            assert values == pytest.approx([np.mean(found), min(found), max(found)], rel=1e-5)
    for name in ("accuracy", "loss"):
        assert row[name]["mean"] == pytest.approx(result["test"][name]["value"], rel=1e-5)


def sw_data(name):
    from stepwell.data import sources
    from stepwell.recipe import read_recipe

    return sources.load(read_recipe(None, {"data": name}).data)


@pytest.mark.parametrize("name", CASES)
def test_the_gain_is_the_ensemble_less_its_members(folder, name):
    """Over the mean and over the member of lowest validation loss, from the members' own test metrics."""
    result = result_of(folder, name)
    told, test = result["ensemble"], result["test"]
    best = min(told["each"], key=lambda one: one["validation"]["loss"])
    assert told["each"][told["over_best"]["member"]] == best
    for metric, entry in told["over_mean"].items():
        mean = np.mean([one["test"][metric]["value"] for one in told["each"]])
        assert entry["value"] == pytest.approx(test[metric]["value"] - mean, rel=1e-4, abs=1e-6)
        over = told["over_best"][metric]["value"]
        assert over == pytest.approx(test[metric]["value"] - best["test"][metric]["value"], abs=1e-6)


def test_members_together_lose_no_more_than_on_average(folder):
    """Jensen: the loss of the mean prediction is at most the mean of the losses (cross-entropy, squares)."""
    for name in ("iris", "diabetes", "labels"):
        assert result_of(folder, name)["ensemble"]["over_mean"]["loss"]["value"] <= 1e-9


def test_what_is_stopped_goes_on_to_the_same_end(folder, tmp_path, monkeypatch):
    """A signal after some updates, then `resume`: the model of an uninterrupted one, bit for bit."""
    changes = {**IRIS, "training.epochs": 8}
    whole, _ = make.ensemble(None, changes, "snapshots", 3, str(tmp_path / "whole"), True)
    from stepwell.training.signals import StopRequest

    asked = iter([None] * 9)
    monkeypatch.setattr(StopRequest, "signal", property(lambda s: next(asked, 15), lambda s, v: None), False)
    with pytest.raises(Interrupted, match="--resume"):
        make.ensemble(None, changes, "snapshots", 3, str(tmp_path / "cut"), True)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "result.json").exists()
    found = sw.resume(tmp_path / "cut", quiet=True)
    assert found["resumed"] and found["weights"]["digest"] == whole["weights"]["digest"]
    assert found["ensemble"] == whole["ensemble"]
    assert not sw.resume(tmp_path / "cut", quiet=True)["resumed"]


def test_the_recipe_says_the_schedule_that_was_chosen(tmp_path):
    """Equal cycles, one a member, where the recipe names no schedule for snapshots; else its own count."""
    from stepwell.recipe import read_recipe

    sw.ensemble(IRIS, kind="snapshots", members=2, out=str(tmp_path / "a"), quiet=True)
    schedule = read_recipe(tmp_path / "a" / "recipe.yaml").schedule
    assert (schedule.name, schedule.cycles, schedule.growth) == ("restarts", 2, 1)
    named = {**IRIS, "training.batch_size": 20, "schedule": "restarts", "schedule.cycles": 4}
    found = sw.ensemble(named, kind="snapshots", out=str(tmp_path / "b"), quiet=True)
    assert found["ensemble"]["members"] == 4


def test_members_that_diverge_are_left_out_or_said(tmp_path, monkeypatch):
    """With too high a rate all diverge, in one sentence; a single lost member is a note."""
    with pytest.raises(Diverged, match=r"2 of 2 members have diverged .*optimizer\.lr"):
        changes = {**IRIS, "optimizer.lr": 1e9, "optimizer": "sgd"}
        make.ensemble(None, changes, "independent", 2, str(tmp_path / "all"), True)
    from stepwell.populations.ensemble import independent

    train = independent.train_population

    def lose_one(*args, **named):
        outcomes = train(*args, **named)
        outcomes[1].weights, outcomes[1].diverged = None, 7
        return outcomes

    monkeypatch.setattr(independent, "train_population", lose_one)
    found, _ = make.ensemble(None, IRIS, "independent", 3, str(tmp_path / "one"), True)
    assert found["ensemble"]["members"] == 2 and "1 of 3 members" in found["notes"][0]


MISTAKES = {
    "--members 1": ({}, "independent", 1, "2 to 1,000 members; stepwell train trains one"),
    "no such kind": ({}, "snapshot", 3, "did you mean snapshots"),
    "no cycles": ({"schedule": "cosine"}, "snapshots", 3, "has no cycles"),
    "few cycles": ({"schedule": "restarts", "schedule.cycles": 2}, "average", 3, "ends 2 cycles"),
    "no validation": ({"data.validation": 0}, "soup", 3, "set data.validation"),
    "own steps": ({"optimizer": "lbfgs"}, "snapshots", 3, "chooses its steps itself"),
    "seconds": ({"training.epochs": None, "training.seconds": 1}, "snapshots", 3, "set training.epochs"),
    "early": ({"training.early_stopping": 3}, "average", 3, "training.early_stopping would end"),
    "best": ({"training.weights": "best"}, "snapshots", 3, "training.weights=best has no effect"),
    "twice": ({"training.average": "swa"}, "average", 3, "remove one"),
    "track": ({"training.track": ["tensorboard"]}, "independent", 3, "training.track has no effect"),
    "folds": ({}, "folds", 99, "too few for 99 folds"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(name, tmp_path):
    """Before anything is written; the sentence says what to do."""
    changes, kind, members, sentence = MISTAKES[name]
    with pytest.raises(UserError, match=sentence):
        sw.ensemble({**IRIS, **changes}, kind=kind, members=members, out=str(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_what_takes_a_single_model_says_so(folder, tmp_path):
    """model.from, inspect and --monte-carlo need one body; an average of weights is one."""
    from stepwell.report import signals_view
    from stepwell.training.train import train

    with pytest.raises(UserError, match="ensemble of 3 models"):
        train(None, {**IRIS, "model.from": str(folder / "iris")}, str(tmp_path / "a"), quiet=True)
    with pytest.raises(UserError, match="ensemble of 3 models"):
        signals_view.of_run(folder / "iris")
    with pytest.raises(UserError, match="whose members tell how sure"):
        predict(folder / "iris", folder / "new.npz", monte_carlo=3)
    begun = {"data": "iris", "model.from": str(folder / "soup"), "training.epochs": 1}
    train(None, begun, str(tmp_path / "b"), quiet=True)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    """--json is one object; without it a table with every member, their mean, and the gains; --resume."""
    monkeypatch.chdir(tmp_path)
    words = ["stepwell", "ensemble", "data=iris", "model.hidden=[8]", "training.epochs=2", "--members", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--out", "a", "--json"])
    main()
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == "a" and found["ensemble"]["members"] == 2
    monkeypatch.setattr("sys.argv", [*words, "--out", "b"])
    main()
    said = capsys.readouterr().out
    for part in (
        "seed 0",
        "seed 1",
        "mean of the members",
        "together",
        "Against the mean of the members: acc",
    ):
        assert part in said
    shutil.copytree("a", "c")
    (tmp_path / "c" / "result.json").unlink()
    monkeypatch.setattr("sys.argv", ["stepwell", "ensemble", "--resume", "c"])
    main()
    assert json.loads((tmp_path / "c" / "result.json").read_text())["test"] == found["test"]
    monkeypatch.setattr("sys.argv", ["stepwell", "ensemble", "--resume", "c", "seed=1"])
    with pytest.raises(SystemExit):
        main()


def test_text_is_measured_without_its_probabilities(tmp_path):
    """Of text: the loss of the mean, the curve of the first m members, no table of uncertainty."""
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question. " * 60)
    changes = {"data": str(tmp_path / "t.txt"), "data.length": 16, "model": "rnn", "model.width": 4}
    out = str(tmp_path / "run")
    found = sw.ensemble({**changes, "training.updates": 4}, members=2, out=out, quiet=True)
    told = found["ensemble"]
    assert told["uncertainty"] is None and told["calibration"] is None
    assert told["over_mean"]["loss"]["value"] <= 0
    last = told["curve"][-1]
    assert last["members"] == 2
    assert last["loss"]["mean"] == pytest.approx(found["test"]["loss"]["value"], rel=1e-6)


def test_calibration_is_that_of_the_served_predictions(folder):
    """The diagram's counts are all test samples; its weighted gap is the result's calibration error."""
    result = result_of(folder, "iris")
    found = result["ensemble"]["calibration"]["ensemble"]
    gaps = np.abs(np.array(found["accuracy"]) - found["confidence"]) * found["count"]
    assert sum(found["count"]) == result["data"]["test"]
    assert gaps.sum() / sum(found["count"]) == pytest.approx(result["test"]["ece"]["value"], rel=1e-6)
