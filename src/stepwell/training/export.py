"""Writes a trained network for other programs, and checks that it gives the same numbers there."""

from __future__ import annotations

import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepwell.data.tablefile import listing
from stepwell.errors import UserError
from stepwell.nn.network import Predictor
from stepwell.training import checkpoint, files
from stepwell.training.model_file import Trained
from stepwell.training.predict import require_writable, trained

ENDINGS = (".safetensors", ".pt2", ".onnx")


def export(run: str | Path, out: str | Path) -> dict[str, Any]:
    """Writes the run's network to `out`: .safetensors (weights), .pt2 (torch.export) or .onnx.

    .pt2 and .onnx take raw inputs (batch of any size) and return probabilities or values in the
    target's own units, as `predict` does. They are run once and compared with the original.

    Returns {"file", "inputs", "largest_difference", "outputs"} with shape, without the batch, and type of
    inputs and outputs; "features", the inputs' names, where they have any; and, in the order of the
    outputs, "classes" or "targets". For weights {"file", "tensors"}.
    """
    path = require_writable(out, ENDINGS)
    if path.suffix == ".onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise UserError(f"ONNX needs the package {missing[0]}: pip install onnx onnxscript onnxruntime")
    model = trained(run)
    if path.suffix == ".safetensors":
        about = {"classes": model.classes, "targets": model.targets, "preparation": model.preparation}
        checkpoint.write(path, model.network.state_dict(), about)
        return {"file": str(path), "tensors": len(model.network.state_dict())}
    module, x = Predictor(model.network).eval(), _example(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns of its own deprecations
        batch = torch.export.Dim("batch", min=1, max=1 << 20)
        program = torch.export.export(module, (x,), dynamic_shapes={"x": {0: batch}})
        write, run_again = (_write_onnx, _run_onnx) if path.suffix == ".onnx" else (_write_pt2, _run_pt2)
        differences: list[float] = []

        def write_checked(temporary: Path) -> None:
            """Compares before the file takes its place, so that an older good one is not lost."""
            write(program, temporary)
            for inputs in (x, x[:1], torch.cat([x, x, x])):
                with torch.no_grad():
                    differences.append(float((module(inputs) - run_again(temporary, inputs)).abs().max()))
            if not max(differences) <= 1e-4 * max(float(module(x).detach().abs().max()), 1.0):
                raise UserError(
                    f"{path} is not written: it would differ from the original by {max(differences):.3g}"
                )

        files.write_atomically(path, write_checked)
    with torch.no_grad():
        y = module(x)
    features = _features(model)
    return {
        "file": str(path),
        "inputs": [list(x.shape[1:]), str(x.dtype)],
        "largest_difference": max(differences),
        "outputs": [list(y.shape[1:]), str(y.dtype)],
        **({"features": features} if features else {}),
        **({"targets": model.targets} if model.task == "regression" else {"classes": model.classes}),
    }


def in_words(model: Trained, result: dict[str, Any]) -> str:
    """What an exported program takes and gives, in one sentence; `result` is that of `export`."""
    (shape, kind), (given, given_kind) = result["inputs"], result["outputs"]
    takes = f"{_plain(kind)} of shape {_batch(shape)}"
    if model.kind == "text":
        takes += ", each character as its place (from 0) among the classes"
    elif "features" in result:
        names = result["features"]
        takes += f", the features {listing(names, 6)}, in this order"
        takes += " (--json has them all)" if len(names) > 6 else ""
    else:
        takes += {"image": ", channels first", "sequence": ", time before features"}.get(model.kind, "")
        takes += ", as the data has them"
    pixels = model.preparation["source"] == "images" or model.preparation.get("pixels")
    inside = "" if model.kind == "text" else f"{' (0 to 255)' * bool(pixels)}; standardization is inside"
    gives = (
        f"{_plain(given_kind)} {'values' if model.task == 'regression' else 'probabilities'} {_batch(given)}"
    )
    if model.task == "regression":
        gives += f" of {listing(model.targets)}, in the data's own units"
    else:
        what = {"text": "of the next character, ", "multi-label": "of each label by itself, "}
        gives += f" {what.get(model.task, '')}in the order of the classes {listing(model.classes)}"
    return f"It takes {takes}{inside}. It gives {gives}."


def _plain(kind: str) -> str:
    return kind.removeprefix("torch.")


def _batch(shape: list[int]) -> str:
    return f"({', '.join(['batch', *map(str, shape)])})"


def _features(model: Trained) -> list[str]:
    """The names of the inputs, if they have any; "when − 1.7e9" where a number is subtracted before."""
    if model.kind != "features":
        return []
    offsets = {c["name"]: c["offset"] for c in model.preparation.get("columns", []) if c.get("offset")}
    names = model.preparation.get("features", [])
    return [f"{name} − {offsets[name]!r}" if name in offsets else name for name in names]


def _example(model: Trained) -> Tensor:
    """Inputs of the right shape and type, drawn from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    if model.kind == "text":
        return torch.randint(0, len(model.classes), (3, *model.input_shape), generator=generator)
    x = torch.randn(3, *model.input_shape, generator=generator)
    offset, scale = model.network.input_offset, model.network.input_scale
    return (x - offset) / scale


def _write_pt2(program: Any, path: Path) -> None:
    whole = io.BytesIO()  # written to a full disk, torch's own writer ends the process
    torch.export.save(program, whole)
    path.write_bytes(whole.getvalue())


def _run_pt2(path: Path, x: Tensor) -> Tensor:
    with open(path, "rb") as file:
        return torch.export.load(file).module()(x)


def _write_onnx(program: Any, path: Path) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of every operator that torchvision, not installed, would add
    try:
        torch.onnx.export(program, f=str(path), dynamo=True, external_data=False, verbose=False)
    finally:
        log.setLevel(level)
    _name_parts(path)


def _name_parts(path: Path) -> None:
    """Calls the samples' axis "batch" and the output "output", where torch has names such as s77, mul_3."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    last = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["output" if name == last else name for name in names]
    graph.output[0].name = "output"
    axis = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == axis:
                size.dim_param = "batch"
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _run_onnx(path: Path, x: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: x.numpy()})[0])
