"""Averages within a run: means written out from the weights that training went through."""

import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.recipe import read_recipe, resolve
from stepwell.recipe.training import EarlyStopping
from stepwell.training import train
from stepwell.training.conductor import Conductor
from stepwell.training.early_stopping import Patience
from stepwell.training.evaluated_weights import SAMPLES, deliver, evaluated_weights
from stepwell.training.loop import fit
from stepwell.training.predict import evaluate_file
from stepwell.training.run import Run

SMALL = {"data": "iris", "training.batch_size": 20, "optimizer.lr": 0.01}


class Watch:
    """The loop's hooks: keeps the weights after every update."""

    def __init__(self) -> None:
        self.weights: list[list[torch.Tensor]] = []

    def looking(self, run):
        return nullcontext()

    def on_gradients(self, run) -> None:
        pass

    def on_update_end(self, run) -> bool:
        return False

    def interrupted(self) -> bool:
        raise NotImplementedError

    def of(self, run):
        self.interrupted = lambda: self.weights.append(copies(run)) is not None
        return self


def copies(run):
    return [p.detach().clone() for p in run.parameters.values()]


def trained(**changes):
    """A run at its end, and the weights after each update."""
    own = {} if "model" in changes else {"model.hidden": [6]}
    recipe = read_recipe(None, {**SMALL, **own, **changes})
    data = sources.load(recipe.data)
    run = Run(resolve(recipe, data), data)
    watch = Watch().of(run)
    fit(run, watch)  # type: ignore[arg-type]
    # The loop asks whether something is due after each update, but not where something is.
    return run, watch.weights


# Updates per epoch are 6: 102 samples in batches of 20. Points of the average, of 60 updates.
POINTS = {
    "polyak": ({"training.average": "polyak"}, range(31, 61)),
    "polyak from a tenth on": ({"training.average": {"kind": "polyak", "start": 0.1}}, range(7, 61)),
    "epochs": ({"training.average": {"kind": "swa", "start": 0.5}}, range(36, 61, 6)),
    "cycles": ({"training.average": {"kind": "swa", "start": 0.3}, "schedule": "cyclical"}, (30, 45, 60)),
    "swa": ({"training.average": "swa", "schedule": "swa", "schedule.warmup": 0}, (48, 51, 54, 57, 60)),
}


@pytest.mark.parametrize("name", POINTS)
def test_the_average_is_the_mean_of_its_points(name):
    """In the network at the end: the mean of the weights at these updates, written out in float64."""
    changes, points = POINTS[name]
    run, weights = trained(
        **{"training.updates": 60, "training.log_every": 1000, "training.evaluate_every": 1000, **changes}
    )
    weights.append(copies(run))  # after the last update, at which something is due
    deliver(run)
    for k, found in enumerate(run.parameters.values()):
        mean = torch.stack([weights[point - 1][k].double() for point in points]).mean(0)
        torch.testing.assert_close(found.detach().double(), mean, rtol=1e-5, atol=1e-6)


def test_the_exponential_average_forgets_its_start():
    """ε = min(decay, (1 + n) / (10 + n)): folded by hand from the first weights on."""
    run, weights = trained(
        **{
            "training.updates": 40,
            "training.log_every": 1000,
            "training.evaluate_every": 1000,
            "training.average.kind": "ema",
            "training.average.decay": 0.7,
        }
    )
    weights.append(copies(run))
    deliver(run)
    for k, found in enumerate(run.parameters.values()):
        a = torch.zeros_like(weights[0][k], dtype=torch.float64)
        shares = [min(0.7, (1 + n) / (10 + n)) for n in range(1, 41)]
        # The start has a part in it of the product of all shares, which is nothing by now.
        for share, now in zip(shares, weights, strict=True):
            a = share * a + (1 - share) * now[k].double()
        torch.testing.assert_close(found.detach().double(), a, rtol=1e-4, atol=1e-5)


def test_evaluating_leaves_everything_as_it_was():
    """Weights, buffers, state and random numbers before and after; inside, other weights and statistics."""
    run, _ = trained(
        **{
            "data": "digits",
            "model": "cnn",
            "model.channels": [4],
            "training.updates": 8,
            "training.average": "polyak",
        }
    )
    before = {name: value.clone() for name, value in run.live.items()}
    state = torch.get_rng_state()
    with evaluated_weights(run):
        inside = run.weights()
        changed = [name for name, value in inside.items() if not torch.equal(value, before[f"model.{name}"])]
        assert any("running_mean" in name for name in changed) and any("weight" in name for name in changed)
    assert run.live.keys() == before.keys() and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in run.live.items())


def test_batch_norm_has_the_statistics_of_the_delivered_weights():
    """The mean and the biased variance over all training samples, but for what batches make of them."""
    run, _ = trained(
        **{
            "data": "digits",
            "model": "cnn",
            "model.channels": [4],
            "training.batch_size": 600,
            "training.updates": 8,
            "training.average": "ema",
        }
    )
    deliver(run)
    norm = next(m for m in run.network.modules() if isinstance(m, _BatchNorm))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    part = run.data.train
    assert len(part) < SAMPLES and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        run.network.eval()(part.gather(torch.arange(len(part)))[0])
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=0.02, atol=0.01)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.02, atol=0.01)


def test_frozen_statistics_and_layers_stay_with_an_average(tmp_path):
    """A frozen body keeps its weights and its batch norm's statistics to the bit, its head is averaged."""
    cnn = {"data": "digits", "model": "cnn", "model.channels": [4], "training.updates": 8}
    train.train(None, cnn, str(tmp_path / "first"), True)
    keys = {"data": "digits", "model.from": str(tmp_path / "first"), "model.freeze": "body", "seed": 1}
    keys |= {"training.updates": 8, "training.average": "polyak", "regularize.max_norm": 0.1}
    train.train(None, keys, str(tmp_path / "second"), True)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == {name for name in first if name.startswith("body.5.")} and len(changed) == 2


def test_the_curves_and_the_result_are_those_of_the_average(tmp_path, monkeypatch):
    """What was written at the last evaluation is the validation result of the delivered weights."""
    changes = {**SMALL, "training.epochs": 6, "training.average": "polyak", "training.weights": "last"}
    result, folder = train.train(None, changes, str(tmp_path / "run"), True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row.get("split") == "validation"][-1]
    assert last["loss"] == pytest.approx(result["validation"]["loss"], rel=1e-9)
    assert result["weights"]["delivered"] == "last"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.average": "ema", "optimizer": "lbfgs"}, "training.average has no effect"),
        ({"training.average": "ema", "optimizer": "schedule-free-sgd"}, "averages the weights itself"),
        ({"training.average": {"kind": "swa", "decay": 0.9}}, "decay has no effect"),
        ({"training.average": "mean"}, "must be one of ema, polyak, swa"),
        ({"training.early_stopping": 3, "data.validation": 0}, "without a validation part"),
        ({"training.early_stopping": 3, "training.weights": "last"}, "contradicts"),
        ({"training.early_stopping": -1}, "training.early_stopping=-1 must be at least 1"),
        ({"training.early_stopping": {"patience": 3, "threshold": 1}}, "early_stopping.threshold=1 must be"),
        ({"data": "diabetes", "regularize.label_smoothing": 0.1}, "the target is a number"),
        ({"regularize.max_norm": 0}, "max_norm=0 must be above 0"),
        ({"regularize.max_norm": 1, "model.norm": "weight"}, "sets the weights' length"),
        ({"model.norm": "spectral", "model.init": "lsuv"}, "init=lsuv has no effect"),
        ({"model.norm": "batch", "training.batch_size": 1}, "no variance in batches of one sample"),
        ({"training.average": "swa", "training.epochs": 4}, "1 ends of epochs to average"),
        ({"training.average": "swa", "training.updates": 5}, "0 ends of epochs to average"),
        ({"training.early_stopping": True}, "true does not say how much"),
        ({"training.average": {"ema": 1}}, "there is no key training.average.ema"),
        ({"regularize.max_norm": 1, "optimizer": "newton"}, "regularize.max_norm has no effect"),
        ({"regularize.max_norm": 1, "optimizer": "schedule-free-adamw"}, "max_norm=1.0 cannot be used"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message, tmp_path):
    """One sentence, and no folder."""
    with pytest.raises(UserError, match=message):
        train.train(None, {**SMALL, **changes}, str(tmp_path / "run"), True)
    assert not (tmp_path / "run").exists()


def test_the_best_weights_are_the_averages_of_their_update(tmp_path):
    """Delivered with training.weights=best: the validation loss of that evaluation, of the average."""
    keys = {
        "training.average": "ema",
        "training.weights": "best",
        "optimizer.lr": 0.2,
        "schedule": "constant",
    }
    result, _ = train.train(None, {**SMALL, "training.epochs": 30, **keys}, str(tmp_path / "run"), True)
    assert result["weights"]["best"]["update"] < result["updates"]
    assert result["validation"]["loss"] == pytest.approx(result["weights"]["best"]["loss"], rel=1e-6)


def test_early_stopping_delivers_the_best_however_small_its_lead():
    """Where `auto` would keep the last weights, since the lead is within the noise."""
    recipe = read_recipe(None, {**SMALL, "training.early_stopping": 3})
    assert resolve(recipe, sources.load(recipe.data)).training.weights == "best"


def test_a_fall_below_the_threshold_does_not_count():
    """Losses that fall by 5 % each time: counted without a threshold, and not with one of 10 %."""
    for threshold, waited in ((0.0, 0), (0.1, 2)):
        patience = Patience(EarlyStopping(patience=3, threshold=threshold))
        for loss in (1.0, 0.95, 0.91):
            patience.look(loss)
        assert patience.waited == waited


def test_labels_are_smoothed_in_training_alone(tmp_path):
    """The validation loss of the result is the plain cross-entropy of the delivered weights."""
    keys = {**SMALL, "training.epochs": 4, "regularize.label_smoothing": 0.3}
    result, folder = train.train(None, keys, str(tmp_path / "run"), True)
    assert result["test"]["loss"]["value"] == pytest.approx(
        evaluate_file(folder, None)["test"]["loss"]["value"]
    )
    run, _ = trained(**{"training.updates": 2, "regularize.label_smoothing": 0.3})
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(run.sample_loss(z, y), cross_entropy(z, y, reduction="none"))
    torch.testing.assert_close(run.loss(z, y), cross_entropy(z, y, label_smoothing=0.3))


def test_early_stopping_ends_where_a_slow_count_does(tmp_path, monkeypatch):
    """The run ends after the evaluation that is `patience` behind the lowest, and delivers that one."""
    kept = {}
    original = Conductor.evaluate

    def evaluate(self):
        original(self)
        kept[self.run.update] = {n: v.clone() for n, v in self.run.weights().items()}

    monkeypatch.setattr(Conductor, "evaluate", evaluate)
    changes = {**SMALL, "training.epochs": 200, "training.early_stopping": 4, "optimizer.lr": 0.05}
    result, folder = train.train(None, changes, str(tmp_path / "run"), True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["update"], row["loss"]) for row in rows if row.get("split") == "validation"]
    lowest = min(range(len(losses)), key=lambda k: losses[k][1])
    assert len(losses) == lowest + 1 + 4 and result["updates"] == losses[-1][0] < 1200
    assert result["ended_early"] and result["weights"]["best"]["update"] == losses[lowest][0]
    assert result["weights"]["delivered"] == "best"
    assert result["validation"]["loss"] == pytest.approx(losses[lowest][1], rel=1e-6)
    assert [row["event"] for row in rows if "event" in row] == ["ended early"]
