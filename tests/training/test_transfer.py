"""A model that begins with a trained one has its weights to the bit; its head is new for other classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stepwell.data import sources
from stepwell.errors import UserError
from stepwell.recipe import read_recipe, resolve
from stepwell.training import checkpoint, source, train
from stepwell.training.run import Run

SMALL = {"training.updates": 3}


def arrays(
    path: Path, classes: list[int], count: int = 60, scale: float = 1.0, shape: tuple = (1, 8, 8)
) -> str:
    rng = np.random.default_rng(len(classes))
    y = np.array(classes)[np.arange(count) % len(classes)]
    np.savez(path, x=scale * (rng.normal(size=(count, *shape)) + 3).astype("f4"), y=y)
    return str(path)


def began(keys: dict) -> Run:
    """A run that has begun and made no update."""
    recipe, found = source.settle(read_recipe(None, {**SMALL, **keys}))
    data = sources.load(recipe.data)
    return Run(resolve(recipe, data), data, found)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / "model.safetensors")[0]


NETS = {
    "mlp": {"model.hidden": [7, 5], "model.dropout": 0.3},
    "cnn": {"model.channels": [4, 6], "model.dropout": 0.3},
    "resnet": {"model.depth": 8, "model.width": 2},
    "rnn": {"model.width": 4, "model.layers": 2},
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("same", [True, False], ids=["same classes", "other classes"])
def test_the_body_is_the_sources_to_the_bit(net, same, tmp_path):
    """All but the head is the source's, statistics too; the head is so where the classes are the same."""
    old, new = (
        arrays(tmp_path / "a.npz", [0, 1, 2]),
        arrays(tmp_path / "b.npz", [0, 1, 2] if same else [1, 2, 3, 4]),
    )
    train.train(None, {"data": old, "model": net, **NETS[net], **SMALL}, str(tmp_path / "old"), True)
    run = began({"data": new, "model.from": str(tmp_path / "old")})
    before, head = weights(tmp_path / "old"), list(run.parameters)[-2:]
    assert run.recipe.model.name == net and head[0].endswith("weight")
    for name, value in run.weights().items():
        assert (name in head and not same) or torch.equal(value, before[name]), name
    fresh = Run(run.recipe, run.data)  # the same seed without a source
    for name in head:
        assert torch.equal(run.weights()[name], before[name] if same else fresh.weights()[name])
    assert ("is new" in run.notes[0]) == (not same)


def test_other_names_in_another_order_make_a_new_head(tmp_path):
    """As many classes that mean others, or the same ones for numbers, are no reason to keep a head."""
    old, new = arrays(tmp_path / "a.npz", [0, 1, 2]), arrays(tmp_path / "b.npz", [1, 2, 3])
    train.train(None, {"data": old, **SMALL}, str(tmp_path / "old"), True)
    run, before = began({"data": new, "model.from": str(tmp_path / "old")}), weights(tmp_path / "old")
    assert not torch.equal(run.weights()["body.5.weight"], before["body.5.weight"])
    numbers = began({"data": new, "data.task": "regression", "model.from": str(tmp_path / "old")})
    assert numbers.weights()["body.5.weight"].shape[0] == 1
    mean = numbers.data.target_mean
    assert mean is not None and torch.equal(numbers.weights()["target_mean"], mean)


def test_a_kept_head_of_numbers_keeps_their_units(tmp_path):
    """Before any update the new run predicts what the source does, though the new targets are others."""
    data, run = "diabetes", str(tmp_path / "old")
    train.train(None, {"data": data, **SMALL}, run, True)
    table = tmp_path / "half.csv"
    bundle = sources.load(read_recipe(None, {"data": data}).data)
    x, y = bundle.train.gather(torch.arange(100))
    names = [*bundle.preparation["features"], "target"]
    np.savetxt(table, np.hstack([x, y / 2]), delimiter=",", header=",".join(names), comments="", fmt="%.9g")
    new = began({"data": str(table), "data.target": "target", "model.from": run})
    old = began({"data": data, "model.from": run})
    for each in (new, old):
        each.network.eval()
    assert torch.equal(new.network.predict(x), old.network.predict(x))


def test_keys_that_leave_the_weights_alone_may_be_others(tmp_path):
    """Dropout can be put in or taken out, though it shifts the numbers that layers have as names."""
    train.train(None, {"model.hidden": [6, 4], "model.dropout": 0.5, **SMALL}, str(tmp_path / "old"), True)
    run, before = began({"model.from": str(tmp_path / "old"), "model.dropout": 0}), weights(tmp_path / "old")
    pairs = zip(run.network.body.state_dict().values(), [0, 1, 2], strict=False)
    assert not any(isinstance(m, torch.nn.Dropout) for m in run.network.modules())
    names = ["body.1.weight", "body.1.bias", "body.4.weight"]
    assert all(torch.equal(value, before[names[i]]) for value, i in pairs)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("before", [0, 0.5])
def test_dropout_between_recurrent_layers_may_be_another(cell, before, tmp_path):
    """Put in or taken out, it leaves the weights of two layers where they were: outputs are the source's."""
    data = arrays(tmp_path / "a.npz", [0, 1, 2], shape=(6, 2))
    keys = {"model": "rnn", "model.cell": cell, "model.layers": 2, "model.width": 4, "model.dropout": before}
    train.train(None, {"data": data, **keys, **SMALL}, str(tmp_path / "old"), True)
    old = began({"data": data, "model.from": str(tmp_path / "old")})
    new = began({"data": data, "model.from": str(tmp_path / "old"), "model.dropout": 0.5 - before})
    x, _ = new.data.train.gather(torch.arange(8))
    for run in (old, new):
        run.network.eval()
    torch.testing.assert_close(new.network.predict(x), old.network.predict(x))
    pairs = zip(new.network.parameters(), old.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert list(new.weights()) != list(old.weights())  # the names that were no hindrance


@pytest.mark.parametrize("net", ["rnn", "transformer"])
def test_of_another_text_shared_characters_keep_their_rows(net, tmp_path):
    """Embedding and head: a character's row is the source's by its name, a new one's is freshly drawn."""
    (tmp_path / "old.txt").write_text("abcdef " * 300)
    (tmp_path / "new.txt").write_text("fedXaY " * 300)
    keys = {"model": net, "model.width": 8, "data.length": 8, **({"model.heads": 1} if net != "rnn" else {})}
    train.train(None, {"data": str(tmp_path / "old.txt"), **keys, **SMALL}, str(tmp_path / "old"), True)
    run = began({"data": str(tmp_path / "new.txt"), "data.length": 8, "model.from": str(tmp_path / "old")})
    fresh, old = Run(run.recipe, run.data).weights(), weights(tmp_path / "old")
    theirs = checkpoint.read(tmp_path / "old/model.safetensors")[1]["classes"]
    for name, value in run.weights().items():
        if name in ("body.embedding.weight", "body.linear.weight", "body.linear.bias"):
            for row, character in enumerate(run.data.classes):
                known = character in theirs
                wanted = old[name][theirs.index(character)] if known else fresh[name][row]
                assert torch.equal(value[row], wanted), (name, character)
        else:
            assert torch.equal(value, old[name]), name


def test_inputs_are_standardized_as_the_source_does(tmp_path):
    """The same row has the same output in both networks, though the new data's own mean is another."""
    old, new = arrays(tmp_path / "a.npz", [0, 1]), arrays(tmp_path / "b.npz", [0, 1], scale=2.5)
    train.train(None, {"data": old, **SMALL}, str(tmp_path / "old"), True)
    run = began({"data": new, "model.from": str(tmp_path / "old")})
    before = weights(tmp_path / "old")
    assert torch.equal(run.network.input_scale, before["input_scale"])
    assert torch.equal(run.network.input_offset, before["input_offset"])
    own = run.data.input_scale
    assert own is not None and not torch.allclose(run.network.input_scale, own)


def test_a_run_does_not_need_its_source_any_more(tmp_path, monkeypatch):
    """Interrupted, the source removed, it goes on bit for bit; a written recipe gives the same run again."""
    from test_resume import digest, interrupt_at

    from stepwell.errors import Interrupted

    data = arrays(tmp_path / "a.npz", [0, 1, 2])
    train.train(None, {"data": data, **SMALL}, str(tmp_path / "old"), True)
    changes = {"data": data, "model.from": str(tmp_path / "old"), "training.updates": 8}
    changes |= {"training.evaluate_every": 5, "training.log_every": 5}
    train.train(None, changes, str(tmp_path / "whole"), True)
    train.train(tmp_path / "whole/recipe.yaml", None, str(tmp_path / "again"), True)
    interrupt_at(monkeypatch, [4])
    with pytest.raises(Interrupted):
        train.train(None, changes, str(tmp_path / "cut"), True)
    shutil.rmtree(tmp_path / "old")
    train.resume(tmp_path / "cut", True)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole") == digest(tmp_path / "again")


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"model": "cnn"}, "model.name=cnn contradicts"),
        ({"model.norm": "batch"}, r"model.norm=batch, groups 8, .* whose model has none, groups 8, "),
        ({"model.hidden": [7]}, r"model.hidden=\[7\] contradicts model.from, whose model has \[6, 4\]"),
        ({"model.hiden": [6, 4]}, "did you mean model.hidden"),
        ({"model.channels": [6, 4]}, "belongs to cnn"),
        ({"data": "wide.npz"}, "takes images of 1×8×8, and this data has images of 1×9×8"),
        ({"data": "colour.npz"}, "this data has images of 3×8×8"),
        ({"data": "iris"}, "this data has 4 features"),
        ({"data": "bytes.npz"}, "other units"),
        ({"model.from": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_what_does_not_fit_is_said(keys, part, tmp_path, monkeypatch):
    """Contradicting keys, other shapes and units: one sentence with the key and what the source has."""
    monkeypatch.chdir(tmp_path)
    arrays(tmp_path / "a.npz", [0, 1])
    arrays(tmp_path / "wide.npz", [0, 1], shape=(1, 9, 8))
    arrays(tmp_path / "colour.npz", [0, 1], shape=(3, 8, 8))
    arrays(tmp_path / "bytes.npz", [0, 1], scale=255)
    train.train(None, {"data": "a.npz", "model.hidden": [6, 4], **SMALL}, "old", True)
    with pytest.raises(UserError, match=part):
        began({"data": "a.npz", "model.from": "old", **keys})


def test_nothing_but_a_head_is_kept_for_the_same_classes_only(tmp_path):
    """Of a linear model for other classes nothing would be kept, which is an error and no note."""
    old, new = arrays(tmp_path / "a.npz", [0, 1, 2]), arrays(tmp_path / "b.npz", [1, 2, 3])
    train.train(None, {"data": old, "model": "linear", **SMALL}, str(tmp_path / "old"), True)
    run, before = began({"data": old, "model.from": str(tmp_path / "old")}), weights(tmp_path / "old")
    assert all(torch.equal(value, before[name]) for name, value in run.weights().items())
    with pytest.raises(UserError, match=r"nothing but its head, .* classes '1', '2', '3', not '0', '1', '2'"):
        began({"data": new, "model.from": str(tmp_path / "old")})


def test_columns_must_be_the_same(tmp_path):
    """A table with another column in the place of one is refused by its name."""
    for name, columns in (("old", "height,age,label"), ("new", "height,weight,label")):
        rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join([columns, *rows, ""]))
    train.train(None, {"data": str(tmp_path / "old.csv"), **SMALL}, str(tmp_path / "run"), True)
    with pytest.raises(UserError, match="'age' this data has 'weight'"):
        began({"data": str(tmp_path / "new.csv"), "model.from": str(tmp_path / "run")})
