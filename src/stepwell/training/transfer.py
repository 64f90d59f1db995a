"""A model begins with the weights of a trained one: its body, and its head where it tells the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.data.dataset import DataSet, Kind
from stepwell.data.tablefile import listing
from stepwell.errors import UserError
from stepwell.nn.kinds import described
from stepwell.nn.layers import head_of
from stepwell.nn.network import Network

UNITS = 20.0  # times as large or small as the source's inputs: these are in other units


@dataclass
class Source:
    """A trained model to begin with.

    place: as the user named it. tensors: in the order of the model's own state_dict. about: see
    `model_file.save`.
    """

    place: str
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    digest: str


@torch.no_grad()
def begin(network: Network, data: DataSet, source: Source) -> list[str]:
    """Puts the source's weights into a fresh network; returns a note on what became of the head.

    The body keeps all its weights and statistics. The head is kept where task, classes and targets are
    the same in the same order, and else stays as the network has it, freshly drawn. Of text, embedding
    and head keep the rows of the characters that both know.

    The source's standardization of the inputs holds, not the new data's own: the first layer's weights
    were fitted to inputs in those units, a frozen body would get others than it was trained on, and of
    few samples the deviations are noisy. The targets' statistics go with the head.

    `require_same_inputs` comes before it.
    """
    about, place = source.about, source.place
    path = head_of(network.body, data.outputs)
    head = f"body.{path}." if path else "body."  # a body that is itself the head
    theirs, alike = about["classes"] or about["targets"], data.classes or data.targets
    same = (about["task"], theirs) == (data.task, alike)
    rows: set[str] = set()
    if data.kind == "text" and not same:
        rows = {f"{head}weight", f"{head}bias", _embedding(network, data.outputs)}
    what = "targets" if data.task == "regression" else "classes"
    other = f"{what} {listing(alike, 3)}, not {listing(theirs, 3)}"
    pairs = list(_pairs(network, source))
    if not (same or rows) and all(name.startswith(head) for name, _, _ in pairs):
        raise UserError(
            f"model.from: the model of {place} is nothing but its head, and this data has the {other}, so "
            "nothing of it would be kept: leave model.from out"
        )
    for name, value, old in pairs:
        if name in rows:
            _copy_rows(value, data.classes, old, theirs)
        elif same or not name.startswith(head):
            if old.shape != value.shape:
                raise UserError(
                    f"model.from: {name} of {place} has shape {tuple(old.shape)}, and this data needs "
                    f"{tuple(value.shape)}"
                )
            value.copy_(old)
    device = next(network.body.parameters()).device
    kept = ("input_scale", "input_offset", *(("target_mean", "target_std") if same else ()))
    for name in kept:
        if name in source.tensors:
            setattr(network, name, source.tensors[name].to(device, copy=True))
    if same:
        told = f"and the head, since the {what} are the same"
    elif rows:
        shared = len(set(theirs) & set(alike))
        told = f"and of embedding and head the rows of {shared} of this text's {len(alike)} characters"
    else:
        told = f"and the head is new, since this data has the {other}"
    return [f"the body's weights are those of {place}, {told}; inputs are standardized as there"]


def _pairs(network: Network, source: Source) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields the body's entries with those of the source that stand in their place.

    By order, not by name: in a Sequential the names are numbers, which a dropout that is new here shifts,
    and the second layer's weights are recurrent.weight_ih_l1 in an LSTM but recurrent.layers.1.weight_ih_l0
    where dropout lies between.
    """
    fresh = [(n, v) for n, v in network.state_dict().items() if n.startswith("body.")]
    old = [(n, v) for n, v in source.tensors.items() if n.startswith("body.")]
    last = [[re.sub(r"_l\d+$", "", name.rpartition(".")[2]) for name, _ in e] for e in (fresh, old)]
    if last[0] != last[1]:
        raise UserError(f"model.from: the model of {source.place} has other layers than what is built here")
    for (name, value), (_, values) in zip(fresh, old, strict=True):
        yield name, value, values


def _embedding(network: Network, characters: int) -> str:
    """The name of the weight with a row a character: the first embedding with that many rows."""
    names = (
        f"{path}.weight"
        for path, module in network.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings == characters
    )
    return next(names, "")


def _copy_rows(value: Tensor, ours: list[str], source: Tensor, theirs: list[str]) -> None:
    """Copies the rows of the characters that both have; the others stay."""
    place = {character: row for row, character in enumerate(theirs)}
    pairs = [(row, place[character]) for row, character in enumerate(ours) if character in place]
    if pairs:
        here, there = torch.tensor(pairs).T
        value[here] = source[there].to(value.device)


def require_same_inputs(data: DataSet, source: Source) -> None:
    """Raises UserError for data that the source's body cannot take, or would take for something else."""
    about, place = source.about, source.place
    kind, shape = about["kind"], tuple(about["input_shape"])
    if (kind, shape) != (data.kind, tuple(data.input_shape)):
        todo = "bring the data to this shape"
        if kind != data.kind:
            todo = "choose data of this kind"
        elif kind == "text":
            todo = f"set data.length={shape[0]}"
        elif data.preparation["source"] == "images" and shape[0] == data.input_shape[0]:
            todo = "scale the images to this size (data.size)"
        raise UserError(
            f"model.from: {place} takes {_described(kind, shape)}, and this data has "
            f"{_described(data.kind, data.input_shape)}: {todo}, or another model.from"
        )
    theirs, ours = about["preparation"].get("features"), data.preparation.get("features")
    if theirs and ours and theirs != ours:
        wrong = next((a, b) for a, b in zip(theirs, ours, strict=True) if a != b)
        raise UserError(
            f"model.from: where {place} has the feature {wrong[0]!r} this data has {wrong[1]!r}: give it the "
            "same columns in the same order"
        )
    if _offsets(about["preparation"]) != _offsets(data.preparation):
        raise UserError(
            f"model.from: columns of {place} hold numbers so large that they are kept relative to a value of "
            "its own data: leave such columns out of both (data.ignore)"
        )
    if data.input_scale is None:
        return
    ratio = (source.tensors["input_scale"] / data.input_scale.cpu()).flatten().tolist()
    if not 1 / UNITS <= median(ratio) <= UNITS:
        times = f"{1 / median(ratio):.3g}" if median(ratio) < 1 else f"1/{median(ratio):.3g}"
        raise UserError(
            f"model.from: the inputs of {place} spread {times} times as far as this data's, so these are in "
            "other units: bring them to the same ones"
        )


def _described(kind: Kind, shape: tuple[int, ...]) -> str:
    return f"text in pieces of {shape[0]} characters" if kind == "text" else described(kind, shape)


def _offsets(preparation: dict[str, Any]) -> list[float]:
    return [column.get("offset", 0.0) for column in preparation.get("columns", [])]
