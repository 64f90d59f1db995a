"""From which size of a batch a second thread pays: forward and backward of MLPs with one and two threads.

    python benchmarks/threads.py

`Run.is_small` takes its limit from this table.
"""

import itertools
import statistics
import time

import torch
from torch import nn

SHAPES = ([64, 128, 128, 10], [784, 128, 128, 10], [64, 512, 512, 10], [30, 1024, 1024, 2])
BATCH, STEPS, ROUNDS = 64, 200, 5


def step_seconds(sizes: list[int], threads: int) -> float:
    """Median seconds of a forward and backward pass."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    net, x, y = nn.Sequential(*layers), torch.randn(BATCH, sizes[0]), torch.randint(0, sizes[-1], (BATCH,))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(STEPS):
            net.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
        times.append((time.perf_counter() - start) / STEPS)
    return statistics.median(times)


if __name__ == "__main__":
    print(f"torch {torch.__version__}; batch {BATCH}; µs a step")
    print(f"{'network':<22}{'million multiplications':>24}{'1 thread':>10}{'2 threads':>11}{'ratio':>8}")
    for shape in SHAPES:
        weights = sum(a * b for a, b in itertools.pairwise(shape))
        one, two = (1e6 * step_seconds(shape, threads) for threads in (1, 2))
        name, size = "-".join(map(str, shape)), weights * BATCH / 1e6
        print(f"{name:<22}{size:>24.1f}{one:>10.0f}{two:>11.0f}{two / one:>8.2f}")
