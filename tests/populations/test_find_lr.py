"""The rate of a recipe by a range test, and optimizer.lr=auto."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepwell as sw
from stepwell import cli
from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.optim.configs import AUTO, OPTIMIZERS, OWN_RATE
from stepwell.populations.find_lr import find_lr, settle
from stepwell.recipe import default_rate, is_open, read_recipe, resolve
from stepwell.training import train as training
from stepwell.training.run import Run

UNSET = object()
IRIS: dict[str, Any] = {"data": "iris", "model.hidden": [8], "training.epochs": 2}


def read(**keys: Any) -> Any:
    whole = {**IRIS, **{key.replace("__", "."): value for key, value in keys.items()}}
    recipe = read_recipe(None, {key: value for key, value in whole.items() if value is not UNSET})
    return recipe, sources.load(recipe.data)


def command(*words: str) -> int:
    """Runs stepwell with these words; returns the exit code."""
    sys.argv = ["stepwell", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_upper_end_is_where_gradient_descent_on_a_linear_model_diverges():
    """With all rows in a batch the loss is the mean of (x·w + b − y)², with the Hessian 2/N XᵀX.

    Its largest eigenvalue λ, of the standardized rows, is computed by NumPy. The usable rates end above 2/λ
    and below three times that: a direction that has sunk needs some updates to be seen rising.
    """
    keys = {"data": "diabetes", "model": "linear", "optimizer": "sgd", "training.batch_size": 1000}
    recipe, data = read(**{"model.hidden": UNSET, **keys})
    rows = Run(resolve(recipe, data), data).batches.at(0)[0][0].double().numpy()
    rows = np.c_[(rows - rows.mean(0)) / rows.std(0), np.ones(len(rows))]
    curvature = np.linalg.eigvalsh(2 * rows.T @ rows / len(rows))[-1]
    found = find_lr(recipe, data)
    assert found.high is not None and 1 < found.high / (2 / curvature) < 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_rate_or_says_why_not(name: str):
    """Each one is swept around its own rate and finds a usable one, or is refused, as with auto."""
    recipe, data = read(optimizer=name)
    if name in OWN_RATE:
        with pytest.raises(UserError, match=f"optimizer={name}, wh"):
            find_lr(recipe, data)
        with pytest.raises(UserError, match=f"auto is not for {name}, wh"):
            read(optimizer=name, optimizer__lr=AUTO)
        return
    found = find_lr(recipe, data, seeds=2)
    assert found.rate and found.low and found.high and found.low <= found.rate <= found.high
    assert default_rate(recipe) / 1e4 < found.rate < default_rate(recipe) * 1e3


def test_same_seed_same_rate():
    """Twice the same bits; seeds are the recipe's and those after it; rate, schedule, length do not enter."""
    one = sw.find_lr({**IRIS, "seed": 3}, seeds=2, updates=60, quiet=True)
    assert sw.find_lr({**IRIS, "seed": 3}, seeds=2, updates=60, quiet=True) == one
    alone = sw.find_lr(IRIS, seed=4, seeds=1, updates=60, quiet=True)["losses"][0]
    assert alone == pytest.approx(one["losses"][1], rel=1e-4)
    free = {"optimizer.lr": 5.0, "schedule": "step", "training.epochs": None, "training.seconds": 1}
    assert sw.find_lr({**IRIS, **free}, seed=3, seeds=2, updates=60, quiet=True) == one


def test_a_model_that_cannot_learn_has_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model whose output does not depend on its weights: one sentence, and auto says the same."""
    Path(tmp_path, "mute_net.py").write_text(
        "from torch import nn\n"
        "class Mute(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return 0 * super().forward(x)\n"
        "def net(input_shape, outputs):\n"
        "    return Mute(input_shape[0], outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    keys = {"data": "iris", "model": "mute_net:net", "training.epochs": 1}
    with pytest.raises(UserError, match=r"^no rate between 1e-07 and 1 lowers the loss"):
        sw.find_lr(keys, quiet=True)
    with pytest.raises(UserError, match=r"^optimizer.lr=auto: no rate between"):
        sw.train({**keys, "optimizer.lr": "auto"}, out="run", quiet=True)
    assert not Path("run").exists()


def test_auto_is_the_rate_that_is_found(tmp_path: Path):
    """The run's recipe has the number, its result how it was found, its weights are the number's."""
    found = find_lr(*read())
    result = sw.train({**IRIS, "optimizer.lr": "auto"}, out=str(tmp_path / "auto"), quiet=True)
    assert result["learning_rate"]["rate"] == found.rate and result["learning_rate"]["seeds"] == 5
    assert f"optimizer.lr=auto is {found.rate:g}" in result["learning_rate"]["notes"][0]
    assert read_recipe(tmp_path / "auto" / "recipe.yaml").optimizer.lr == found.rate
    given = sw.train({**IRIS, "optimizer.lr": found.rate}, out=str(tmp_path / "given"), quiet=True)
    assert given["weights"]["digest"] and "learning_rate" not in given
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("auto", "given")]
    assert models[0] == models[1]


def test_auto_in_a_file_and_resumed(tmp_path: Path):
    """A YAML file may say auto; a run that goes on has the number that was found, and tells of it again."""
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "data: iris\nmodel: {hidden: [8]}\noptimizer: {name: sgd, lr: auto}\ntraining: {epochs: 2}\n"
    )
    folder = tmp_path / "run"
    first = sw.train(file, out=str(folder), quiet=True)
    (folder / "result.json").unlink()
    (folder / "model.safetensors").unlink()
    again = sw.resume(folder, quiet=True)
    assert again["resumed"] and again["learning_rate"] == first["learning_rate"]
    assert again["weights"] == first["weights"]


def test_auto_where_nobody_settles_it():
    """Training by itself and `resolve` refuse auto; looking at a model needs no rate; a schedule says why."""
    recipe, data = read(optimizer__lr=AUTO)
    assert is_open(recipe)
    with pytest.raises(UserError, match=r"optimizer\.lr=auto is for stepwell train"):
        resolve(recipe, data)
    with pytest.raises(UserError, match=r"optimizer\.lr=auto is for stepwell train"):
        training.train(recipe, quiet=True)
    settled, found = settle(recipe, data)
    assert found is not None and settled.optimizer.lr == found["rate"]
    assert settle(settled, data) == (settled, None)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """It prints the rate, a curve, and the command that trains with it; --json one object."""
    monkeypatch.chdir(tmp_path)
    words = ["data=iris", "model.hidden=[8]", "training.epochs=2", "optimizer.lr=0.5"]
    assert command("find-lr", *words, "--seeds", "3", "--plot", "rates.svg", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figure"] == "rates.svg" and np.shape(found["losses"]) == (3, 200)
    assert command("find-lr", *words, "--seeds", "3") == 0
    printed = capsys.readouterr().out
    train = f"stepwell train data=iris 'model.hidden=[8]' training.epochs=2 optimizer.lr={found['rate']:g}"
    assert f"optimizer.lr={found['rate']:g}" in printed and f"Train with it: {train}\n" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["rates.svg"]
    assert command("inspect", "data=iris", "optimizer.lr=auto", "--json") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--low", "1", "--high", "0.1"], "low=1 is not below high=0.1"),
        (["--low", "0"], "low=0.0: the range"),
        (["--high", "inf"], "high=inf: the range"),
        (["--updates", "9"], "updates=9 are too few"),
        (["--seeds", "0"], "seeds=0: give 1 at least"),
        (["--plot", "rates.png"], "--plot rates.png: figures are written as SVG"),
        (["optimizer=prodigy"], "no learning rate is to be found for optimizer=prodigy"),
        (["optimizer.lr=fast"], "optimizer.lr=fast must be a number"),
        (
            ["data=iris", "--low", "1e-12", "--high", "1e-10"],
            "no rate between 1e-12 and 1e-10 lowers the loss",
        ),
        (
            ["data=diabetes", "optimizer=sgd", "--low", "1e4", "--high", "1e6"],
            "the loss blows up from the lowest",
        ),
    ],
)
def test_mistakes(words: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: Any):
    """One sentence, exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert command("find-lr", *words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"stepwell: {said}")
    assert not list(tmp_path.iterdir())
