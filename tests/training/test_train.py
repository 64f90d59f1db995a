"""A recipe trains to a run folder, and what it trains is what torch trains."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stepwell as sw
from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.recipe import choose_device, read_recipe, resolve
from stepwell.training import conductor, evaluate
from stepwell.training.run import Run
from stepwell.training.train import train

SHARED = Path(__file__).parents[3] / "shared" / "data"
QUICK = {"training.epochs": 2, "training.log_every": 5, "training.weights": "last"}


def run_of(changes):
    recipe = read_recipe(None, changes)
    data = sources.load(recipe.data)
    return Run(resolve(recipe, data), data)


def rows(folder, split=None):
    found = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if split is None or row.get("split") == split]


@pytest.mark.parametrize("seed", range(5))
def test_digits_with_the_defaults(seed, tmp_path):
    """The default recipe reaches 97 % on digits' test part, with each of five seeds."""
    result, _ = train(None, {"seed": seed}, str(tmp_path / "run"), quiet=True)
    assert result["test"]["accuracy"]["value"] >= 0.97


@pytest.mark.parametrize(
    ("changes", "torchs"),
    [
        ({}, lambda p: torch.optim.Adam(p, lr=1e-3)),
        ({"regularize.decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1)),
        (
            {"optimizer": "momentum", "regularize.l2": 0.01},
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
        ),
    ],
)
def test_the_loop_is_a_bare_torch_loop(changes, torchs, tmp_path):
    """The delivered weights are those of torch's own optimizer and losses over the same batches."""
    changes = {**changes, **QUICK, "schedule": "constant"}
    run = run_of(changes)
    body = run.network.body
    optimizer = torchs(body.parameters())
    images = run.data.train.inputs.gather(torch.arange(len(run.data.train))).double()
    mean, deviation = images.mean(), images.std(correction=0)
    assert run.updates is not None
    for update in range(run.updates):
        x, y = run.batches.at(update)[0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(body(((x - mean) / deviation).float()), y).backward()
        optimizer.step()
    _, folder = train(None, changes, str(tmp_path / "run"), quiet=True)
    weights = sw_weights(folder)
    for name, value in body.state_dict().items():
        torch.testing.assert_close(weights[f"body.{name}"], value, rtol=2e-3, atol=2e-5)


def sw_weights(folder):
    from stepwell.training.checkpoint import read

    return read(folder / "model.safetensors")[0]


def test_accumulation_is_the_large_batch(tmp_path):
    """Four batches of 16 accumulated train as batches of 64, the smaller last batch of an epoch included."""
    one = train(None, {**QUICK, "training.batch_size": 64}, str(tmp_path / "one"), quiet=True)[1]
    four = {**QUICK, "training.batch_size": 16, "training.accumulate": 4}
    two = train(None, four, str(tmp_path / "two"), quiet=True)[1]
    for name, value in sw_weights(one).items():
        torch.testing.assert_close(sw_weights(two)[name], value, rtol=1e-3, atol=1e-5)


def test_metrics_say_what_happened(tmp_path):
    """Lines come at the stated updates; rates are the schedule's; norms are those of the update made."""
    changes = {
        **QUICK,
        "schedule": "cosine",
        "schedule.warmup": 0.25,
        "optimizer": "sgd",
        "optimizer.lr": 0.05,
    }
    result, folder = train(None, changes, str(tmp_path / "run"), quiet=True)
    total = result["updates"]
    train_rows = rows(folder, "train")
    assert [r["update"] for r in train_rows] == sorted({*range(5, total + 1, 5), total // 2, total})
    assert [r["update"] for r in rows(folder, "validation")] == [total // 2, total]
    rise = round(0.25 * total)
    for row in train_rows:
        k = row["update"] - 1  # the rate of update k, counted from 0
        slow = 0.05 * (k + 1) / (rise + 1)
        if k >= rise:
            slow = 0.05 * (1 + math.cos(math.pi * (k - rise) / (total - rise))) / 2
        assert row["hyperparameters"]["lr"] == pytest.approx(slow)
        gradients = [layer["grad"] for layer in row["layers"].values()]
        assert math.hypot(*gradients) == pytest.approx(row["grad_norm"], rel=1e-5)
        for layer in row["layers"].values():  # SGD: the update is rate × gradient
            assert layer["update"] == pytest.approx(slow * layer["grad"], rel=1e-2, abs=1e-7)
    assert result["validation"]["loss"] == pytest.approx(rows(folder, "validation")[-1]["loss"], rel=1e-6)
    quick = rows(folder, "test")[-1]["accuracy"]
    assert quick == pytest.approx(result["test"]["accuracy"]["value"])


def test_best_weights_are_those_of_the_lowest_validation_loss(tmp_path):
    """With weights=best the delivered model has the lowest validation loss that was logged."""
    changes = {
        "data": "diabetes",
        "training.epochs": 60,
        "model.hidden": [256, 256],
        "training.weights": "best",
    }
    result, folder = train(None, changes, str(tmp_path / "run"), quiet=True)
    losses = [row["loss"] for row in rows(folder, "validation")]
    assert result["validation"]["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < losses[-1]


def test_auto_keeps_the_last_weights_unless_the_best_are_clearly_better(tmp_path):
    """A net that overfits delivers the best weights; one whose best is ahead by chance, the last."""
    overfits = {"data": "diabetes", "training.epochs": 200}
    one, _ = train(None, overfits, str(tmp_path / "one"), quiet=True)
    assert one["weights"]["delivered"] == "best"
    two, folder = train(None, {"data": "digits"}, str(tmp_path / "two"), quiet=True)
    losses = [row["loss"] for row in rows(folder, "validation")]
    assert two["weights"]["delivered"] == "last" and min(losses) < losses[-1]


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    """Two runs of one recipe are equal to the bit; the caller's random numbers are not touched."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    folders = [
        train(None, {**QUICK, "model.dropout": 0.5, "seed": s}, str(tmp_path / f"{i}"), quiet=True)[1]
        for i, s in enumerate((1, 1, 2))
    ]
    assert torch.equal(torch.rand(3), expected)
    models = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert models[0] == models[1] != models[2]
    assert (folders[0] / "metrics.jsonl").read_text() == (folders[1] / "metrics.jsonl").read_text()


def test_the_saved_recipe_trains_the_same(tmp_path):
    """recipe.yaml holds every key, decided; training it again gives the same model."""
    _, one = train(
        None, {**QUICK, "optimizer": "momentum", "schedule": "step"}, str(tmp_path / "a"), quiet=True
    )
    saved = read_recipe(one / "recipe.yaml")
    assert saved.training.device == str(choose_device("auto")) and saved.training.evaluate_every == 20
    again = sw.train(str(one / "recipe.yaml"), out=str(tmp_path / "b"), quiet=True)
    assert (one / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert Path(again["report"]).exists()


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_bundled_sets_learn(name, model, tmp_path):
    """Every bundled set, with a linear model and an MLP, ends well above what guessing gives."""
    result, _ = train(None, {"data": name, "model": model}, str(tmp_path / "r"), quiet=True)
    metric = "r2" if name == "diabetes" else "accuracy"
    assert result["test"][metric]["value"] > (0.3 if name == "diabetes" else 0.8 if name == "iris" else 0.9)


def test_a_budget_in_seconds_ends_in_time(tmp_path):
    """One second of training ends after about a second, with the schedule run down."""
    result, folder = train(None, {"training.seconds": 1.0}, str(tmp_path / "run"), quiet=True)
    assert 1.0 <= result["seconds"] < 3.0
    assert rows(folder, "train")[-1]["hyperparameters"]["lr"] < 3e-4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns(precision, tmp_path):
    """bf16 and fp16 arithmetic reach what fp32 reaches on digits, within three points."""
    result, _ = train(
        None, {"training.precision": precision, "training.epochs": 30}, str(tmp_path / "run"), quiet=True
    )
    assert result["test"]["accuracy"]["value"] > 0.94


def test_mse_on_classes_learns_worse_than_cross_entropy_from_a_bad_start(tmp_path):
    """The lectures' counter-example: from large weights MSE's gradient vanishes, cross-entropy's does not."""
    norms = {}
    for loss in ("mse", "cross-entropy"):
        run = run_of({"loss": loss, "model": "linear"})
        with torch.no_grad():
            for p in run.parameters.values():
                p.mul_(200)
        x, y = run.batches.at(0)[0]
        run.loss(run.network(x), y).backward()
        norms[loss] = torch.nn.utils.get_total_norm(
            [p.grad for p in run.parameters.values() if p.grad is not None]
        ).item()
    assert norms["mse"] < 0.2 * norms["cross-entropy"]


def test_a_users_own_model(tmp_path, monkeypatch):
    """model=MODULE:FUNCTION trains a module of the user's, with arguments."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, outputs, width=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[-1] ** 2, width), nn.Tanh(), "
        "nn.Linear(width, outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    result, _ = train(None, {"model": "mine:net", "model.arguments.width": 12, **QUICK}, "run", quiet=True)
    assert result["parameters"] == 64 * 12 + 12 + 12 * 10 + 10


@pytest.mark.skipif(not (SHARED / "mnist.npz").exists(), reason="needs ../shared/data/mnist.npz")
def test_mnist_learns_in_three_hundred_updates(tmp_path):
    """Real MNIST from its file: 300 updates of the default MLP pass 90 % on its test part."""
    changes = {"data": str(SHARED / "mnist.npz"), "training.updates": 300}
    result, _ = train(None, changes, str(tmp_path / "run"), quiet=True)
    assert result["data"]["test"] == 10_000
    assert result["test"]["accuracy"]["value"] > 0.9


@pytest.mark.parametrize("task", ["multi-label", "sequence", "several targets"])
def test_other_tasks_from_arrays(task, tmp_path):
    """Labels, sequences and several targets, made so that they can be learnt, are learnt."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(600, 12, 3) if task == "sequence" else (600, 5)).astype(np.float32)
    if task == "sequence":
        y, model, metric = (x.sum((1, 2)) > 0).astype(np.int64), "rnn", "accuracy"
    elif task == "multi-label":
        y, model, metric = (x[:, :3] + x[:, 1:4] > 0).astype(np.int64), "mlp", "micro_f1"
    else:
        y, model, metric = np.stack([x[:, 0] * 50 + 7, x[:, 1] ** 2], 1), "mlp", "r2"
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y)
    changes = {"data": str(tmp_path / "d.npz"), "model": model, "training.updates": 500, "optimizer.lr": 0.01}
    result, _ = train(None, changes, str(tmp_path / "run"), quiet=True)
    assert result["test"][metric]["value"] > 0.85


def test_an_untrainable_model_is_refused(tmp_path, monkeypatch):
    """A model whose weights are all frozen has nothing to train, and no folder is left."""
    (tmp_path / "frozen.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs)).requires_grad_(False)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no weights to train"):
        train(None, {"model": "frozen:net"}, "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{}, {"training.batch_size": 50}, {"training.accumulate": 3}])
def test_samples_seen_are_counted(changes):
    """`run.samples` after every update is the number of targets that its batches had."""
    run, seen = run_of({"data": "iris", **changes}), 0
    for update in range(3 * run.updates_per_epoch):
        seen += sum(len(y) for _, y in run.batches.at(update))
        run.update = update + 1
        assert run.samples == seen


def test_speed_is_measured_beside_evaluations(tmp_path, monkeypatch):
    """Evaluating each epoch, a run still has a line of timing.jsonl for every second of training alone."""
    now = [0.0]

    def evaluate(*arguments):
        now[0] += 100.0
        return quick(*arguments)

    def clock():
        now[0] += 0.01  # some of these pass in each epoch
        return now[0]

    quick = conductor.evaluate.quick
    monkeypatch.setattr(conductor.time, "monotonic", clock)
    monkeypatch.setattr(conductor.evaluate, "quick", evaluate)
    _, folder = train(
        None,
        {"data": "iris", "training.epochs": 300, "training.evaluate_every": 2},
        str(tmp_path / "r"),
        True,
    )
    rows = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert len(rows) > 5 and rows[-1]["update"] == 600
    assert all(10 < row["samples_per_second"] < 102 / 0.01 for row in rows)


def test_a_budget_in_seconds_is_evaluated_by_its_hundredths(tmp_path):
    """Two updates an epoch make no thousands of evaluations: one a hundredth, and one at the end."""
    _, folder = train(None, {"data": "iris", "training.seconds": 1.5}, str(tmp_path / "r"), quiet=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 1 <= sum(row["split"] == "validation" for row in rows) <= 101


@pytest.mark.parametrize(
    ("layer", "made", "output", "said"),
    [
        ("Linear", "Net(64, outputs)", "torch.zeros(len(x), 10)", "depends on no weight"),
        (
            "Embedding",
            "Net(2, outputs, sparse=True)",
            "super().forward((x.flatten(1).sum(1) > 0).long())",
            "the gradient of weight is sparse",
        ),
    ],
)
def test_a_users_model_that_cannot_be_trained_is_refused(layer, made, output, said, tmp_path, monkeypatch):
    """An output without weights, or a sparse gradient, is refused before a folder is made."""
    (tmp_path / "own_model.py").write_text(
        f"import torch\nclass Net(torch.nn.{layer}):\n    def forward(self, x):\n        return {output}\n"
        f"def make(shape, outputs):\n    return {made}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_model", raising=False)
    with pytest.raises(UserError, match=said):
        train(None, {"model": "own_model:make"}, "run", quiet=True)
    assert not Path("run").exists()


def test_evaluation_takes_few_large_images_at_a_time():
    """A batch of evaluation is 512 small samples, and no more than 2²² numbers of large ones."""
    sizes = {
        shape: max(map(len, evaluate.slices(2000, shape, kind)))
        for shape, kind in [((20,), "features"), ((3, 32, 32), "image"), ((3, 224, 224), "image")]
    }
    assert list(sizes.values()) == [512, 512, 27]
    assert [len(i) for i in evaluate.slices(3, (3, 4000, 4000), "image")] == [1, 1, 1]
