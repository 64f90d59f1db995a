"""Runs a compiled worker on torch's own threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

Worker = Callable[[int], None]  # what ctypes makes of a function's address; it gets the job's address


def worker(address: int) -> Worker:
    """The function at an address; while it runs, Python's other threads do too."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def run(function: Worker, address: int, job: int, threads: int) -> None:
    """Runs a worker on `threads` threads at once and waits for all of them.

    They are those of torch's OpenMP library, which are there already and know of each other's work: a
    second library would start a second set of threads that fights the first for the same cores.
    """
    if threads < 2:
        function(job)
    elif (parallel := _gomp_parallel()) is not None:
        parallel(address, job, threads, 0)
    else:
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(function, job) for _ in range(threads - 1)]
            function(job)
        for other in others:
            other.result()


@cache
def _gomp_parallel() -> Callable[..., None] | None:
    """GOMP_parallel(worker, job, threads, flags) of the library that torch computes with, if it is GNU's."""
    folder = Path(torch.__file__).parent
    for path in sorted([*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")]):
        try:
            parallel = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
