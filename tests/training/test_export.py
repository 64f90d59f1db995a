"""An exported model gives the numbers that the run's own network gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stepwell.errors import UserError
from stepwell.training.export import export
from stepwell.training.predict import trained
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
    for n in (1, 7):
        x = inputs(model, n)
        theirs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
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


def test_an_unknown_ending_is_refused(runs, tmp_path):
    """Only endings that are written are taken."""
    with pytest.raises(UserError, match=r"\.onnx"):
        export(runs / "mlp", tmp_path / "m.h5")
