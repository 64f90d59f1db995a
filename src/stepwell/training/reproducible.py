"""The same seed gives the same bits: random numbers of a run's own, and arithmetic that does not vary."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepwell.data import counter


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of all generators that a module may draw from: torch's, Python's and NumPy's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    # float64 holds 32-bit words, places and the kept half of a pair of normal numbers alike.
    _, words, place, kept, normal = np.random.get_state()
    state["numpy"] = torch.from_numpy(np.append(words, np.array([place, kept, normal], np.float64)))
    _, internal, normal = random.getstate()
    state["python"] = torch.from_numpy(np.array((*internal, normal is not None, normal or 0.0), np.float64))
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Puts back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    *words, place, kept, normal = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(words, np.uint32), int(place), int(kept), normal))
    *internal, kept, normal = state["python"].tolist()
    version = random.getstate()[0]
    random.setstate((version, tuple(map(int, internal)), normal if kept else None))


@contextmanager
def undisturbed() -> Iterator[None]:
    """torch as it is by itself whatever the caller has set (gradients, float32), and the caller's as it was.

    Python's random numbers too: libraries draw from them when they are imported.
    """
    kind, ours = torch.get_default_dtype(), random.getstate()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_default_dtype(kind)
        random.setstate(ours)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds Python's and NumPy's generators for users' modules, and gives all of them back as they were.

    seed: the recipe's.
    """
    seed = counter.key(seed, 3)
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def products_repeat(device: torch.device) -> bool:
    """Asks cuBLAS for products that repeat; False where it is too late, or the user has other wishes.

    torch and cuBLAS look at this variable once, when they are first used in a process.
    """
    if device.type != "cuda":
        return True
    name = "CUBLAS_WORKSPACE_CONFIG"
    if name not in os.environ and not torch.cuda.is_initialized():
        os.environ[name] = ":4096:8"
    return os.environ.get(name) in (":4096:8", ":16:8")


@contextmanager
def same_arithmetic(one_thread: bool, warn: bool) -> Iterator[None]:
    """Threads and algorithms that do not depend on chance, so that a run computes the same each time.

    Of several algorithms for an operation torch takes one that gives the same bits each time. Where
    there is none, it warns (`warn`, for a user's own module) or raises RuntimeError.
    """
    memory: Any = torch.utils.deterministic
    threads, kept = torch.get_num_threads(), torch.backends.cudnn.benchmark
    mode, fill = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    if one_thread:
        torch.set_num_threads(1)
    _make_deterministic(warn)
    _set_benchmark(False)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        _set_benchmark(kept)
        memory.fill_uninitialized_memory = fill


def _make_deterministic(warn: bool) -> None:
    """torch.use_deterministic_algorithms, which also tells torch's compiler: that takes a second to load.

    As long as nobody has loaded it, there is nobody to tell.
    """
    private: Any = torch._C
    if "torch._inductor" in sys.modules or not hasattr(private, "_set_deterministic_algorithms"):
        torch.use_deterministic_algorithms(True, warn_only=warn)
    else:
        private._set_deterministic_algorithms(True, warn_only=warn)


def _set_benchmark(value: bool) -> None:
    """Whether cuDNN tries its algorithms. A program may have forbidden to set it; then it is as it is."""
    with suppress(RuntimeError):
        torch.backends.cudnn.benchmark = value
