"""An exported model gives the numbers that the run's own network gives."""

import json

import numpy as np
import polars
import pytest
import torch
from safetensors.torch import load_file

from stepwell.cli import main
from stepwell.errors import UserError
from stepwell.training.export import export
from stepwell.training.predict import predict, trained
from stepwell.training.train import train

RUNS = {
    "mlp": {},
    "cnn": {"model": "cnn", "model.channels": [4, 8]},
    "resnet": {"model": "resnet", "model.depth": 8, "model.width": 4},
    "rnn": {"model": "rnn", "model.width": 8},
    "numbers": {"data": "diabetes", "model": "linear"},
    "transformer": {"model.layers": 1, "model.width": 16, "model.heads": 2, "data.length": 12},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "t.txt").write_text("to be or not to be " * 100)
    for name, changes in RUNS.items():
        data = {"data": str(folder / "t.txt")} if name == "transformer" else {}
        train(None, {**data, **changes, "training.updates": 5}, str(folder / name), quiet=True)
    return folder


def inputs(model, n):
    generator = torch.Generator().manual_seed(n)
    if model.kind == "text":
        return torch.randint(0, len(model.classes), (n, *model.input_shape), generator=generator)
    return torch.rand(n, *model.input_shape, generator=generator) * 16


@pytest.mark.parametrize("name", RUNS)
def test_torch_export(runs, name, tmp_path):
    """The .pt2 program, loaded, predicts the same for batches of 1 and 7."""
    found = export(runs / name, tmp_path / "m.pt2")
    assert found["largest_difference"] <= 1e-6
    model, program = trained(runs / name), torch.export.load(str(tmp_path / "m.pt2")).module()
    for n in (1, 7):
        x = inputs(model, n)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model.network.predict(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_onnx(runs, name, tmp_path):
    """onnxruntime, running the .onnx file, predicts the same for batches of 1 and 7."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export(runs / name, tmp_path / "m.onnx")
    model, session = trained(runs / name), onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == ["x", "output"]
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "batch"
    for n in (1, 7):
        x = inputs(model, n)
        theirs = session.run(None, {"x": x.numpy()})[0]
        with torch.no_grad():
            ours = model.network.predict(x).numpy()
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * max(1, np.abs(ours).max()))


def test_safetensors_hold_the_weights(runs, tmp_path):
    """The .safetensors file has every weight and statistic under its name."""
    export(runs / "cnn", tmp_path / "m.safetensors")
    weights = trained(runs / "cnn").network.state_dict()
    loaded = load_file(tmp_path / "m.safetensors")
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


SAID = {
    "mlp": "float32 of shape (batch, 1, 8, 8), channels first, as the data has them; standardization is"
    " inside. It gives float32 probabilities (batch, 10) in the order of the classes '0', '1', '2', '3',",
    "numbers": "float32 of shape (batch, 10), the features 'age', 'sex', 'bmi', 'bp', 's1', 's2' and 4 more,"
    " in this order (--json has them all); standardization is inside. It gives float64 values (batch, 1) of"
    " 'target', in the data's own units.",
    "transformer": "int64 of shape (batch, 12), each character as its place (from 0) among the classes. It"
    " gives float32 probabilities (batch, 12, 8) of the next character, in the order of the classes",
    "pixels": "float32 of shape (batch, 3, 6, 5), channels first, as the data has them (0 to 255);"
    " standardization is inside. It gives float32 probabilities (batch, 4) of each label by itself, in the",
    "sequences": "float32 of shape (batch, 7, 2), time before features, as the data has them;"
    " standardization is inside. It gives float64 values (batch, 2) of ",
}


@pytest.mark.parametrize("name", SAID)
def test_what_it_takes_and_gives_is_said(runs, name, tmp_path, monkeypatch, capsys):
    """The sentence and --json have shapes, types, the order of features and classes; standardization too."""
    draw, run = np.random.default_rng(0), runs / name
    if not run.exists():
        x = (
            draw.integers(0, 256, (40, 6, 5, 3), np.uint8)
            if name == "pixels"
            else draw.normal(size=(40, 7, 2))
        )
        y = draw.integers(0, 2, (40, 4)) if name == "pixels" else draw.normal(size=(40, 2))
        np.savez(tmp_path / "d.npz", x_train=x, y_train=y)
        train(None, {"data": str(tmp_path / "d.npz"), "training.updates": 2}, str(run), quiet=True)
    words = ["stepwell", "export", str(run), "--out", str(tmp_path / "m.pt2")]
    monkeypatch.setattr("sys.argv", words)
    main()
    assert f"It takes {SAID[name]}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*words, "--json"])
    main()
    found, model = json.loads(capsys.readouterr().out), trained(run)
    shape, kind = found["inputs"]
    y = torch.export.load(str(tmp_path / "m.pt2")).module()(
        torch.ones(2, *shape, dtype=getattr(torch, kind[6:]))
    )
    assert [list(y.shape[1:]), str(y.dtype)] == found["outputs"]
    assert found.get("classes", found.get("targets")) == (model.classes or model.targets)


def test_features_are_named_as_they_are_computed(tmp_path):
    """The program, fed with a row made by hand from "features" and "targets", gives what `predict` gives."""
    when = [1_700_000_000 + 60 * i for i in range(60)]
    table = polars.DataFrame({"city": ["Ulm", "Köln", "Jena"] * 20, "when": when, "rent": [7.5, 9.0] * 30})
    table.write_csv(tmp_path / "t.csv")
    changes = {"data": str(tmp_path / "t.csv"), "data.target": "rent", "data.task": "regression"}
    train(None, {**changes, "training.updates": 5}, str(tmp_path / "run"), quiet=True)
    found = export(tmp_path / "run", tmp_path / "m.pt2")
    *cities, moment = found["features"]
    assert found["targets"] == ["rent"] and set(cities) == {"city = Ulm", "city = Köln", "city = Jena"}
    name, _, offset = moment.partition(" − ")
    row = [float(city == "city = Köln") for city in cities] + [when[1] - float(offset)]
    y = torch.export.load(str(tmp_path / "m.pt2")).module()(torch.tensor([row]))
    assert name == "when" and y.item() == pytest.approx(
        predict(tmp_path / "run", tmp_path / "t.csv")["prediction"][1], rel=1e-6
    )


def test_an_unknown_ending_is_refused(runs, tmp_path):
    """Only endings that are written are taken."""
    with pytest.raises(UserError, match=r"\.onnx"):
        export(runs / "mlp", tmp_path / "m.h5")
