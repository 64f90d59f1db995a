"""Batches by index arithmetic: update k of a run always sees the same samples in the same order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from stepwell.data import counter
from stepwell.data.dataset import Part

Targets = Any  # a tensor; a `Mixed`, which can be cut like one, where samples are mixed
Batch = tuple[Tensor, Targets]
Chunk = tuple[list[list[Batch]], torch.cuda.Event | None]  # the event says that it has been copied
# (inputs, targets, sample numbers, the epoch's key, samples of an update) → inputs, targets
Transform = Callable[[Tensor, Tensor, Tensor, int, int], tuple[Tensor, Targets]]

# Batches are gathered several at a time and split into views: one index operation for all of them.
CHUNK_BYTES = 4 << 20
CHUNK_UPDATES = 64
AHEAD = 4  # chunks fetched ahead where samples come from disk


class Batches:
    """The batches of each update: `at(k)` is a list of (inputs, targets), one for each accumulation.

    Epoch e = ⌊k / updates_per_epoch⌋ has its own permutation, drawn from (seed, e), so that any
    position of the run is reached in one step. Samples in the device's memory are gathered where they
    lie; others are fetched ahead by a thread, and copied to a GPU on a stream of their own.
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        accumulate: int,
        updates_per_epoch: int,
        seed: int,
        device: torch.device,
        transform: Transform | None = None,
    ) -> None:
        self.part = _on_device(part, device)
        self.size, self.batch_size = batch_size * accumulate, batch_size
        self.updates_per_epoch, self.seed, self.device, self.transform = (
            updates_per_epoch,
            seed,
            device,
            transform,
        )
        self.in_place = self.part.inputs.resident and self.part.targets.device.type == device.type
        sample = self.part.gather(torch.zeros(1, dtype=torch.int64, device=self._index_device()))
        update_bytes = sum(t.nbytes for t in sample) * self.size
        self.chunk = max(1, min(CHUNK_UPDATES, CHUNK_BYTES // update_bytes)) if self.in_place else 1
        self._order: tuple[int, Tensor] | None = None
        self._chunks: OrderedDict[tuple[int, int], Future[Chunk] | list[list[Batch]]] = OrderedDict()
        self._pool = None if self.in_place else ThreadPoolExecutor(1, thread_name_prefix="stepwell-batches")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" and not self.in_place else None

    def at(self, update: int) -> list[Batch]:
        """The batches of update `update`, counted from 0."""
        epoch, position = divmod(update, self.updates_per_epoch)
        number, place = divmod(position, self.chunk)
        chunk = self._chunks.get((epoch, number))
        if chunk is None:
            chunk = self._fetch(epoch, number)
        if isinstance(chunk, Future):
            self._fetch_ahead(epoch, number)
            batches, copied = chunk.result()
            self._wait_for_copy(batches, copied)
            chunk = self._chunks[epoch, number] = batches
        return chunk[place]

    def close(self) -> None:
        """Ends the thread that fetches ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, epoch: int, number: int) -> list[list[Batch]] | Future[Chunk]:
        """Starts reading a chunk; the oldest ones make room, keeping those that are still ahead."""
        while len(self._chunks) > (0 if self.in_place else AHEAD + 1):
            self._chunks.popitem(last=False)
        index = self._index(epoch, number)
        if self._pool is None:
            self._chunks[epoch, number], _ = self._read(epoch, index)
        else:
            self._chunks[epoch, number] = self._pool.submit(self._read, epoch, index)
        return self._chunks[epoch, number]

    def _fetch_ahead(self, epoch: int, number: int) -> None:
        chunks = -(-self.updates_per_epoch // self.chunk)
        for step in range(1, AHEAD + 1):
            later, place = divmod(number + step, chunks)
            if (epoch + later, place) not in self._chunks:
                self._fetch(epoch + later, place)

    def _index(self, epoch: int, number: int) -> Tensor:
        """The samples' numbers of a chunk, in order."""
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(counter.key(self.seed, epoch))
            order = torch.randperm(len(self.part), generator=generator)
            self._order = epoch, _copy(order[: self.updates_per_epoch * self.size], self._index_device())
        start = number * self.chunk * self.size
        return self._order[1][start : start + self.chunk * self.size]

    def _read(self, epoch: int, index: Tensor) -> Chunk:
        epoch_key = counter.key(self.seed, epoch, 1)
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            x, y = self.part.gather(index, epoch_key)
            if x.device != self.device:
                x, y = _copy(x, self.device), _copy(y, self.device)
            if self.transform is not None:
                x, y = self.transform(x, y, _copy(index, self.device), epoch_key, self.size)
            copied = None
            if self._stream is not None:
                copied = torch.cuda.Event()
                copied.record(self._stream)
        updates = list(zip(x.split(self.size), y.split(self.size), strict=True))
        if self.size == self.batch_size:
            return [[batch] for batch in updates], copied
        return [self._micro_batches(x, y) for x, y in updates], copied

    def _micro_batches(self, x: Tensor, y: Targets) -> list[Batch]:
        """Splits an update's samples evenly; batch norm has no variance in a lone one.

        A batch has one sample only at batch size 1, or where the update has no other. At batch size 2
        one batch takes 3, if the number is odd.
        """
        pieces = -(-len(y) // self.batch_size)
        if self.batch_size > 1:
            pieces = max(1, min(pieces, len(y) // 2))
        return list(zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True))

    def _wait_for_copy(self, chunk: list[list[Batch]], copied: torch.cuda.Event | None) -> None:
        """Orders the computation after the copy, and keeps the memory until the computation is done."""
        if copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)  # this chunk's own: those fetched ahead may still be on their way
            for x, y in (batch for batches in chunk for batch in batches):
                x.record_stream(stream)
                y.record_stream(stream)

    def _index_device(self) -> torch.device:
        return self.part.targets.device if self.in_place else torch.device("cpu")


def _copy(values: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting; from pinned memory, since only that can be copied meanwhile."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _on_device(part: Part, device: torch.device) -> Part:
    """Moves a part to the GPU once and for all, if it takes at most a quarter of what is free there."""
    if device.type != "cuda" or not part.inputs.resident:
        return part
    return part.to(device) if part.nbytes <= torch.cuda.mem_get_info(device)[0] // 4 else part
