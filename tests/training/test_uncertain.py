"""Monte-Carlo dropout in `stepwell predict`: columns, seed, rows of a file in any batch."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import polars
import pytest
import torch

from stepwell.cli import main
from stepwell.errors import UserError
from stepwell.nn.uncertainty import passes
from stepwell.training import evaluate, uncertain
from stepwell.training.predict import predict, trained
from stepwell.training.train import train

SHORT = {"training.updates": 40, "model.hidden": [16], "optimizer.lr": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on classes, on one number, on two numbers, and on classes without dropout; a file for each."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.random.default_rng(0).normal(size=(120, 3))
    y = np.c_[x @ [1, 2, 3], x[:, 0] ** 2]
    with open(folder / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c"], *x.tolist()])
    table = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}
    polars.DataFrame({**table, "kind": np.where(y[:, 0] > 0, "up", "down")}).write_csv(folder / "kinds.csv")
    polars.DataFrame({**table, "y": y[:, 0], "z": y[:, 1]}).write_csv(folder / "numbers.csv")
    drop = {"model.dropout": 0.3, **SHORT}
    kinds, numbers = str(folder / "kinds.csv"), str(folder / "numbers.csv")
    train(None, {"data": kinds, "data.target": "kind", **drop}, str(folder / "kinds"), quiet=True)
    train(None, {"data": kinds, "data.target": "kind", **SHORT}, str(folder / "plain"), quiet=True)
    both = {"data": numbers, "data.target": ["y", "z"], **drop}
    train(None, both, str(folder / "numbers"), quiet=True)
    return folder


def test_classes_have_entropy_and_mutual_information(folder):
    """H of the mean probabilities that the file shows; information between 0 and H; seeds differ."""
    found = predict(folder / "kinds", folder / "new.csv", monte_carlo=30)
    assert found.columns[3:] == [
        "prediction", "probability_down", "probability_up", "entropy", "mutual_information",
    ]  # fmt: skip
    p = found.select("probability_down", "probability_up").to_numpy().clip(1e-300)
    np.testing.assert_allclose(found["entropy"], -(p * np.log(p)).sum(1), rtol=1e-6, atol=1e-9)
    information = found["mutual_information"].to_numpy()
    assert (information >= 0).all() and (information <= found["entropy"].to_numpy()).all()
    assert information.max() > 1e-4
    assert found.equals(predict(folder / "kinds", folder / "new.csv", monte_carlo=30))
    assert not found.equals(predict(folder / "kinds", folder / "new.csv", monte_carlo=30, seed=1))


def test_information_is_the_entropy_that_single_passes_have_not(folder):
    """H(p̄) − mean of H(p_s), from the passes themselves in NumPy; labels have a deviation of each."""
    model = trained(folder / "kinds")
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    single = [y.double().numpy() for y in passes(model.network, x, 8, 3, function=model.network.predict)]
    p = np.stack(single)
    mean = p.mean(0)
    entropy = -(p * np.log(p)).sum(-1).mean(0)
    found = uncertain.outputs(model, x, 8, 3, 0)
    np.testing.assert_allclose(found[:, :2], mean, rtol=1e-6)
    total = -(mean * np.log(mean)).sum(-1)
    np.testing.assert_allclose(found[:, 2:], np.c_[total, total - entropy], rtol=1e-6, atol=1e-9)
    labels = replace(model, task="multi-label")
    assert uncertain.names(labels) == ["sd_down", "sd_up"]
    found = uncertain.outputs(labels, x, 8, 3, 0)
    np.testing.assert_allclose(found[:, 2:], p.std(0, ddof=1), rtol=1e-4, atol=1e-6)


def test_numbers_have_a_standard_deviation_in_their_own_units(folder):
    """The mean of many passes tends to their mean, and sd is that of single passes."""
    found = predict(folder / "numbers", folder / "new.csv", monte_carlo=200)
    assert found.columns[3:] == ["prediction_y", "prediction_z", "sd_y", "sd_z"]
    other = predict(folder / "numbers", folder / "new.csv", monte_carlo=200, seed=1)
    away = (found["prediction_y"] - other["prediction_y"]) / found["sd_y"]
    assert 0.5 < away.std() / (2 / 200) ** 0.5 < 2 and found["sd_y"].min() > 0


def test_rows_are_the_same_in_any_batch(folder, monkeypatch):
    """A row's masks follow from its number: batches of 7 give what batches of 512 give."""
    whole = predict(folder / "kinds", folder / "new.csv", monte_carlo=5)
    monkeypatch.setattr(evaluate, "BATCH", 7)
    parts = predict(folder / "kinds", folder / "new.csv", monte_carlo=5)
    for name in ("probability_up", "entropy", "mutual_information"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6)


def test_the_command_line_says_the_same(folder, monkeypatch, capsys):
    """--monte-carlo and --seed go through, to a file."""
    words = ["predict", "kinds", "new.csv", "--monte-carlo", "9", "--seed", "4", "--out", "out.csv"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["stepwell", *words])
    main()
    assert capsys.readouterr().out == "120 predictions written to out.csv\n"
    expected = predict(folder / "kinds", folder / "new.csv", monte_carlo=9, seed=4)
    np.testing.assert_allclose(polars.read_csv("out.csv")["entropy"], expected["entropy"])


def test_refused_without_dropout(folder):
    """All passes would be the same; the sentence names the key to train with."""
    with pytest.raises(
        UserError, match=r"needs a model with dropout, and .*plain has none: train with model"
    ):
        predict(folder / "plain", folder / "new.csv", monte_carlo=9)
