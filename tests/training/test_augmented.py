"""Augmented runs: the same bits for any workers, split and interruption; test-time views; notes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_resume import SMALL, digest, train_with_interruptions

from stepwell.data import counter, sources
from stepwell.data.augment.partners import Mixed
from stepwell.recipe import read_recipe, resolve
from stepwell.training import predict as predicting
from stepwell.training import train
from stepwell.training.export import export
from stepwell.training.run import Run

EVERYTHING = {
    "augment.flip": 0.5,
    "augment.vertical_flip": 0.3,
    "augment.crop": 1,
    "augment.resized_crop": 0.5,
    "augment.scale": 0.8,
    "augment.rotation": 20,
    "augment.translation": 0.1,
    "augment.jitter": {"strength": 0.3, "hue": 0.1},
    "augment.erasing": {"share": 0.5, "value": "noise"},
    "augment.noise": 0.1,
    "augment.mixup": 0.4,
    "augment.cutmix": 1,
}


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    generator = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 6)):
        for label in ("cat", "dog", "owl"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (9, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def run_of(changes):
    asked = read_recipe(None, changes)
    data = sources.load(asked.data)
    return Run(resolve(asked, data), data)


def batches(run, updates):
    found = [run.batches.at(k) for k in range(updates)]
    run.batches.close()
    return found


def test_workers_do_not_change_a_bit(pets):
    """In memory, and decoded by 1 and by 4 threads: every batch of two epochs has the same bits."""
    about = {"data": str(pets), "training.batch_size": 16, "training.epochs": 2, **EVERYTHING}
    found = [
        batches(run_of({**about, "data.in_memory": memory, "data.workers": workers}), 10)
        for memory, workers in ((True, 0), (False, 1), (False, 4))
    ]
    for other in found[1:]:
        for here, there in zip(found[0], other, strict=True):
            (x, y), (u, v) = here[0], there[0]
            assert isinstance(y, Mixed) and isinstance(v, Mixed) and torch.equal(x, u)
            assert (
                torch.equal(y.own, v.own) and torch.equal(y.partner, v.partner) and torch.equal(y.lam, v.lam)
            )


def test_accumulation_is_the_same_update(pets):
    """An update of 32 as one batch, as 2 × 16 and as 4 × 8: the same samples, partners, λ and loss."""
    about = {"data": str(pets), "model": "linear", "training.device": "cpu", **EVERYTHING}
    found = []
    for accumulate in (1, 2, 4):
        run = run_of({**about, "training.batch_size": 32 // accumulate, "training.accumulate": accumulate})
        pieces = run.batches.at(1)
        assert len(pieces) == accumulate
        loss = torch.stack(list(run.losses())).sum()
        found.append(
            (torch.cat([x for x, _ in pieces]), torch.cat([y.lam for _, y in pieces]), loss.detach())
        )
        run.batches.close()
    for x, lam, loss in found[1:]:
        assert torch.equal(x, found[0][0]) and torch.equal(lam, found[0][1])
        torch.testing.assert_close(loss, found[0][2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("changes", [{}, {"training.accumulate": 2}, {"training.precision": "bf16"}], ids=str)
def test_resumed_equals_uninterrupted(changes, pets, tmp_path, monkeypatch):
    """Every method at once, stopped inside an epoch and resumed: the same bits, two workers decoding."""
    recipe = {
        **SMALL,
        **EVERYTHING,
        **changes,
        "data": str(pets),
        "data.in_memory": False,
        "data.workers": 2,
        "model.channels": [4],
        "training.batch_size": 8,
        "augment.test_time": "ten-crop",
    }
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [3, 11])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "iris"},
        {"data": "diabetes"},
        {"data": "diabetes", "loss": "huber"},
        {"data": "diabetes", "loss": "mae"},
        {"loss": "mse"},
        {"training.precision": "fp16"},
        {"optimizer": "lbfgs", "training.updates": 4},
    ],
    ids=str,
)
def test_mixup_in_every_kind_of_run(changes, tmp_path):
    """The loss that the loop takes is λ L(z, y) + (1 − λ) L(z, y'), at targets in standard deviations."""
    run = run_of({"augment.mixup": 1.0, "model.dropout": 0, "training.device": "cpu", **changes})
    (x, y), total = run.batches.at(0)[0], 0.0
    assert isinstance(y, Mixed)
    loss = next(iter(run.losses()))
    with torch.no_grad(), run.autocast():
        z = run.network(x)
        own, partner = (run.sample_loss(z, run.network.encode(t)) for t in (y.own, y.partner))
        for k in range(len(y)):
            total += float(y.lam[k] * own[k] + (1 - y.lam[k]) * partner[k])
    assert float(loss.detach()) == pytest.approx(
        total / len(y), rel=1e-3 if "training.precision" in changes else 1e-5
    )
    run.batches.close()


def test_nothing_is_wrapped_without_augmentation():
    """No augmentation: no transform, the plain loss, the network's own encoding."""
    run = run_of({})
    assert run.batches.transform is None and run.encode == run.network.encode
    assert "mixed" not in run.loss.__qualname__


@pytest.fixture(scope="module")
def cropped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cropped") / "run"
    changes = {
        "augment.test_time": "ten-crop",
        "augment.test_time.share": 0.75,
        "training.epochs": 2,
        "model": "cnn",
    }
    result, _ = train.train(None, changes, str(folder), quiet=True)
    return folder, result


def test_the_final_test_evaluate_and_predict_average_over_views(cropped, tmp_path):
    """The test metrics of the run, of `evaluate`, and of ten forward passes by hand are the same."""
    folder, result = cropped
    network = predicting.trained(folder).network
    data = sources.load(read_recipe().data)
    x, y = data.test.gather(torch.arange(len(data.test)))
    assert network.views is not None
    with torch.no_grad():
        p = torch.stack([network(view).softmax(-1) for view in network.views.of(x)]).mean(0)
    loss = float(-p.log()[torch.arange(len(y)), y].mean())
    assert result["test"]["loss"]["value"] == pytest.approx(loss, rel=1e-5)
    assert predicting.evaluate_file(folder, None)["test"] == result["test"]
    np.savez(tmp_path / "x.npz", x=x.numpy())
    found = predicting.predict(folder, tmp_path / "x.npz")
    np.testing.assert_allclose(found["probability_3"].to_numpy(), p[:, 3].numpy(), atol=1e-6)


def test_the_curves_are_of_single_images(cropped):
    """The validation loss in the curve is the forward pass's; that of the result is of the views."""
    folder, result = cropped
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [line["loss"] for line in lines if line["split"] == "validation"][-1]
    trained = predicting.trained(folder)
    trained.network.views = None
    data = sources.load(read_recipe().data)
    x, y = data.validation.gather(torch.arange(len(data.validation)))
    with torch.no_grad():
        plain = float(torch.nn.functional.cross_entropy(trained.network(x), y))
    assert curve == pytest.approx(plain, rel=1e-5)
    assert result["validation"]["loss"] != pytest.approx(plain, rel=1e-4)


def test_exported_programs_average_too(cropped, tmp_path):
    """A .pt2 file holds the ten views, for batches of any size."""
    out = export(cropped[0], tmp_path / "model.pt2")
    network = predicting.trained(cropped[0]).network
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 16
    program = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(program(x), network.predict(x), rtol=1e-5, atol=1e-6)
    assert out["largest_difference"] < 1e-5


def test_a_changed_test_time_is_noticed(cropped, tmp_path):
    """Views belong to the model: a recipe.yaml that says otherwise is refused."""
    import shutil

    from stepwell.errors import UserError

    shutil.copytree(cropped[0], tmp_path / "run")
    path = tmp_path / "run" / "recipe.yaml"
    path.write_text(path.read_text().replace("ten-crop", "five-crop"))
    with pytest.raises(UserError, match=r"augment\.test_time"):
        predicting.trained(tmp_path / "run")


def test_a_note_is_said_once_and_saved(tmp_path, capfd, monkeypatch):
    """A vertical flip of digits: one note on the screen and in result.json, after a resume too."""
    recipe = {**SMALL, "augment.vertical_flip": 0.5}
    train.train(None, recipe, str(tmp_path / "whole"))
    said = capfd.readouterr()
    assert (said.out + said.err).count("augment.vertical_flip may change the label") == 1
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [5])
    for name in ("whole", "parts"):
        notes = json.loads(Path(tmp_path / name / "result.json").read_text())["data"]["notes"]
        assert len(notes) == 1 and "vertical_flip" in notes[0]


def test_draws_are_those_of_the_library(pets):
    """The run's batches are what `apply` gives for the epoch's key: a loop of one's own can repeat them."""
    run = run_of({"data": str(pets), "training.batch_size": 16, "augment.crop": 2, "augment.flip": 0.5})
    from stepwell.data.augment.crop import crop
    from stepwell.data.augment.draws import Draws
    from stepwell.data.augment.flip import flip

    seed = counter.key(run.recipe.seed, 2)
    generator = torch.Generator().manual_seed(counter.key(seed, 0))
    index = torch.randperm(len(run.data.train), generator=generator)[:16]
    draws = Draws(counter.key(seed, 0, 1), index)
    want = flip(crop(run.data.train.gather(index)[0], draws, pad=2), draws, share=0.5)
    assert torch.equal(run.batches.at(0)[0][0], want)
    run.batches.close()
