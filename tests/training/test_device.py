"""What a GPU needs of an update, shown without one.

torch's meta device has shapes and no values: mixing it with the CPU raises, and so does asking it for
a number. What a real device adds (streams, its own rounding) is checked by benchmarks/gpu.py.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stepwell.data import sources
from stepwell.data.augment import units
from stepwell.recipe import read_recipe, resolve
from stepwell.training import run as run_module
from stepwell.training.loop import backward, update

META = torch.device("meta")

RECIPES = {
    "mlp": {"model.dropout": 0.1, "regularize.decay": 0.1},
    "cnn": {"model": "cnn", "augment.crop": 1, "augment.flip": 0.5, "augment.noise": 0.1},
    "every augmentation": {
        "model": "cnn",
        "training.accumulate": 2,
        "augment.crop": {"pad": 1, "fill": "zero"},
        "augment.flip": 0.5,
        "augment.vertical_flip": 0.5,
        "augment.resized_crop": 0.5,
        "augment.scale": 0.8,
        "augment.rotation": 20,
        "augment.translation": 0.1,
        "augment.fill": "zero",
        "augment.jitter": 0.3,
        "augment.erasing": {"share": 0.5, "value": "noise"},
        "augment.mixup": 0.4,
        "augment.cutmix": 1,
    },
    "mixed numbers": {"data": "diabetes", "augment.mixup": 0.4, "augment.noise": 0.1},
    "resnet": {"model": "resnet", "optimizer": "momentum", "training.accumulate": 2},
    "rnn": {"model": "rnn", "optimizer": "sgd"},
    "regression": {"data": "diabetes", "loss": "huber", "optimizer": "momentum-displacement"},
    "transformer": {"data": "TEXT", "model.layers": 1},
    "spectral": {"model": "cnn", "model.norm": "spectral", "model.dropout": {"p": 0.2, "kind": "spatial"}},
    "cumulative": {"model": "cnn", "model.norm.momentum": None},
    "by batch": {"model": "resnet", "model.depth": 8, "model.stochastic_depth": {"p": 0.5, "by": "batch"}},
    "attention": {"data": "TEXT", "model.layers": 1, "model.dropout": 0.1, "model.stochastic_depth": 0.5},
}


@pytest.mark.parametrize("moved", [True, False], ids=["data on the device", "data beside it"])
@pytest.mark.parametrize("name", RECIPES)
def test_an_update_stays_on_its_device_and_asks_it_for_nothing(name, moved, tmp_path, monkeypatch):
    """Batch, loss, gradients, norm and update are on the device, and no value comes back from there."""
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 40)
    changes = {k: str(tmp_path / "text.txt") if v == "TEXT" else v for k, v in RECIPES[name].items()}
    asked = read_recipe(None, changes)
    data = sources.load(asked.data)
    recipe = resolve(asked, data)
    recipe.training = recipe.training.model_copy(update={"device": "meta"})
    monkeypatch.setattr(run_module, "choose_device", torch.device)
    # The range of values is learnt where the data lies, before any of it is moved.
    monkeypatch.setattr(units, "extremes", lambda inputs: (0.0, 16.0))
    if moved:
        data.train = data.train.to(META)
    run = run_module.Run(recipe, data)
    assert run.batches.in_place == moved
    for _ in range(3):
        found = [backward(run), update(run)]
        assert all(t.device == META for batch in run.batches.at(run.update) for t in batch)
        run.update += 1
        assert all(t.device == META for t in [*found, *run.live.values()])
    run.batches.close()
    with pytest.raises(RuntimeError, match="meta"):  # the test would notice
        found[0].item()


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the processor wait for a device: asking a tensor for its value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waiting = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        assert func not in waiting, "a tensor was asked for its value"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_no_precision_waits(precision):
    """Ten updates ask no tensor for a value; with fp16 the first of them overflow and are skipped."""
    asked = read_recipe(None, {"training.precision": precision, "training.device": "cpu"})
    data = sources.load(asked.data)
    run = run_module.Run(resolve(asked, data), data)
    # A device's engine: that of the processor reads its own truth values, which is no waiting.
    run.optimizer._engine_name = "eager"
    if run.scaler is not None:
        run.scaler._init_scale = 2.0**20
    norms = []
    with NoWaiting():
        for _ in range(10):
            backward(run)
            norms.append(update(run))
            run.update += 1
        with pytest.raises(AssertionError, match="asked"):  # the test would notice
            norms[0].item()
    skipped = [float(norm) == 0.0 for norm in norms]
    assert skipped[0] == (precision == "fp16") and not skipped[-1]
    assert run.optimizer.engines()[0].steps == [10 - sum(skipped)] * len(run.parameters)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_a_moved_part_gathers_the_same(name, tmp_path):
    """`Part.to` keeps samples, targets and their order, and says how many bytes it takes."""
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 40)
    changes = {k: str(tmp_path / "text.txt") if v == "TEXT" else v for k, v in RECIPES[name].items()}
    part = sources.load(read_recipe(None, changes).data).train
    moved, index = part.to(torch.device("cpu", 0)), torch.tensor([3, 0, 7])
    for key in (0, 5):
        assert all(map(torch.equal, part.gather(index, key), moved.gather(index, key)))
    assert (moved.nbytes, len(moved)) == (part.nbytes, len(part)) and part.nbytes > 0
