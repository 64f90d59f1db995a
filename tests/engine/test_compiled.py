"""Compiling in the process: once for a rule, whatever it runs on, and from several threads at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_engines_agree import FUSED

from stepwell.engine import llvm
from stepwell.engine.fused import Fused
from stepwell.engine.text import Folded
from stepwell.rules import RULES


@pytest.fixture
def compiled(monkeypatch):
    """The kernels that are compiled from here on; those of other tests are forgotten."""
    kernels: dict[object, Any] = {}
    monkeypatch.setattr(llvm, "_kernels", kernels)
    return kernels


def test_threads_that_start_at_once(compiled):
    """Eight threads compile all rules and step, each with its own weights: as one after the other."""

    def steps(name):
        rule = RULES[name]
        weights = [torch.linspace(-1, 1, 50_000), torch.ones(3, 2)]
        engine = Fused(rule, weights, rule.defaults)
        for _ in range(5):
            gradients: list[Any] = [w.sin() for w in weights]
            h: dict[str, Any] = {**rule.defaults}
            if rule.sums is not None:
                h["sums"] = tuple(engine.sums(gradients, h, Folded()))
            engine.step(gradients, h)
        return {
            **dict(enumerate(weights)),
            **{(i, n): x for i, s in enumerate(engine.state) for n, x in s.items()},
        }

    names = [*FUSED, *FUSED]  # each twice: two threads want the same kernel
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(steps, names))
    for name, found in zip(names, at_once, strict=True):
        alone = steps(name)
        assert all(torch.equal(found[key], alone[key]) for key in alone), name


def test_nothing_is_compiled_anew(compiled):
    """Other shapes, numbers of tensors, hyperparameters and foldings take the kernel that is there."""
    rule = RULES["adam"]

    def steps(shapes, folded, **changed):
        weights = [torch.ones(shape) for shape in shapes]
        engine = Fused(rule, weights, rule.defaults)
        engine.norm(weights)
        engine.step([w.clone() for w in weights], {**rule.defaults, **changed}, folded)

    steps([(3,)], Folded())
    assert len(compiled) == 2  # the update without limits, and the norm
    steps([(3, 5)] * 300, Folded(scale=0.1, l2=0.2, decay=0.3), lr=0.5, beta1=0.0)
    assert len(compiled) == 2
    steps([()], Folded(clip_value=0.1))
    assert len(compiled) == 3  # the update with limits
    steps([(0,), (7, 1)], Folded(l1=0.1, scale=-1.0), eps=1e-3)
    assert len(compiled) == 3


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("after", [1, 2, 3, 8])
def test_the_number_of_threads_may_change(before, after):
    """Between two updates; every chunk is done once, and the bits are the same."""
    threads = torch.get_num_threads()
    rule = RULES["momentum"]
    try:
        torch.manual_seed(0)
        first = [torch.randn(100_003), torch.randn(7), torch.randn(65_536)]
        results = []
        for changes in (False, True):
            weights = [w.clone() for w in first]
            engine = Fused(rule, weights, rule.defaults)
            for k in range(6):
                torch.set_num_threads((before, after)[k % 2] if changes else 1)
                gradients: list[Any] = [w.cos() for w in weights]
                if k in (2, 3):
                    gradients[k - 2] = None
                engine.step(gradients, rule.defaults)
            results.append(weights)
        assert all(map(torch.equal, *results))
    finally:
        torch.set_num_threads(threads)
