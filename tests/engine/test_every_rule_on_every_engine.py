"""Every rule on every engine, in every type and layout, against its text run plainly on one tensor at a time.

Triton's kernels need a process of their own, and shards two: test_triton.py, test_sharded.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.sharded import Sharded
from stepwell.engine.stacked import Stacked
from stepwell.engine.state import AVERAGE, Unsupported, new_state
from stepwell.engine.text import Folded, gradient, whole_update
from stepwell.rules import RULES

STEPS = 8
MEMBERS = 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
# In turn: what is folded into the update can be another each time, and the fused engine has two kernels.
FOLDED = [
    Folded(scale=0.7, clip_value=1.1, l2=2.0, decay=1.0, l1=0.5, ema=0.9),
    Folded(scale=-1.0, decay=1.0, ema=0.8),
    Folded(l1=1.0, ema=0.0),
    Folded(clip_value=0.2, ema=0.99),
]

# Layout → a parameter beside an ordinary one. `lead` is the members' dimension, or nothing.
LAYOUTS: dict[str, Any] = {
    "contiguous": lambda *lead: torch.randn(*lead, 6, 4),
    "transposed": lambda *lead: torch.randn(*lead, 7, 5).mT,
    "strided": lambda *lead: torch.randn(*lead, 9, 8)[..., ::2],
    "channels last": lambda *lead: torch.randn(*lead, 4, 5, 5, 3).movedim(-1, -3),
    "None gradient": lambda *lead: torch.randn(*lead, 6, 4),
    "tied": lambda *lead: torch.randn(*lead, 4, 4),
    "0-d": lambda *lead: torch.randn(lead),
    "empty": lambda *lead: torch.randn(*lead, 0, 3),
    "large": lambda *lead: torch.randn(*lead, 20001),
}


def draw(layout: str, dtype: torch.dtype, seed: int, *lead: int) -> list[Tensor]:
    torch.manual_seed(seed)
    made = [LAYOUTS[layout](*lead), torch.randn(*lead, 3)]
    return [in_type(x, dtype) for x in made]


def in_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Values that every type holds, with the same gaps between them."""
    memory = torch.zeros(x.untyped_storage().nbytes() // x.element_size(), dtype=dtype)
    return memory.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(x.half())


def gradients_at(weights: list[Tensor], layout: str, step: int, *lead: int) -> list[Tensor | None]:
    drawn = draw(layout, weights[0].dtype, step, *lead)
    if layout == "tied":  # one weight in two places of a model: its gradient is the sum of both
        w = weights[0].to(torch.float64, copy=True).requires_grad_()
        ((drawn[0].double() @ w).tanh() @ w.mT).square().mean().backward()
        assert w.grad is not None
        drawn[0] = w.grad.to(weights[0].dtype)
    return [None, drawn[1]] if layout == "None gradient" and step % 3 == 1 else [*drawn]


class Plainly:
    """The oracle: the rule's text on one tensor after the other, rounded once to the weights' type."""

    def __init__(self, rule: Any, weights: list[Tensor], h: dict[str, Any]) -> None:
        self.rule, self.weights = rule, weights
        self.state = [new_state(rule, w, h, average=True) for w in weights]
        self.steps = [0 for _ in weights]

    def step(self, gradients: list[Tensor | None], h: dict[str, Any], folded: Folded) -> dict[str, Any]:
        """Returns the sums that the rule asked for, for the engines."""
        wide = torch.promote_types(self.weights[0].dtype, torch.float32)
        work = []
        for i, g in enumerate(gradients):
            if g is not None:
                state = [
                    self.state[i][s.name] if s.scalar else self.state[i][s.name].to(wide)
                    for s in self.rule.state
                ]
                work.append((i, self.weights[i].to(wide), g.to(wide), state))
        totals = {}
        if self.rule.sums is not None:
            parts = [
                self.rule.sums(w, gradient(w, g, folded), *state, t=self.steps[i] + 1, **h)
                for i, w, g, state in work
            ]
            totals = {
                "sums": tuple(sum(p.double().sum() for p in column) for column in zip(*parts, strict=True))
            }
        for i, w, g, state in work:
            self.steps[i] += 1
            average = self.state[i][AVERAGE].to(wide)
            now = {**h, **totals}
            w, state, average = whole_update(self.rule, w, g, state, average, self.steps[i], now, folded)
            self.weights[i].copy_(w)
            self.state[i][AVERAGE].copy_(average)
            for s, value in zip(self.rule.state, state, strict=True):
                self.state[i][s.name].copy_(torch.as_tensor(value, dtype=torch.float64 if s.scalar else None))
        return totals


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    if not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    from torch._C._distributed_c10d import HashStore
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def check(make: Any, rule: Any, layout: str, dtype: torch.dtype, lead: tuple[int, ...] = ()) -> None:
    """The engine's weights, state, averages and steps are the oracle's, of each member if there are some."""
    weights = draw(layout, dtype, 0, *lead)
    apart = (
        [[w[k].clone() for w in weights] for k in range(*lead)] if lead else [[w.clone() for w in weights]]
    )
    oracles = [Plainly(rule, own, dict(rule.defaults)) for own in apart]
    engine, local = make(rule, weights)
    for step in range(1, STEPS + 1):
        folded = FOLDED[step % len(FOLDED)]
        h = {**rule.defaults}
        lr = h["lr"] if rule.name == "prodigy" else min(max(h["lr"], 0.1), 0.5)  # to be seen in bfloat16
        h["lr"] = lr * 0.97**step
        each = [gradients_at(oracle.weights, layout, step) for oracle in oracles]
        together = [
            None if any(g is None for g in gs) else stacked_as_they_lie(gs) if lead else gs[0]
            for gs in zip(*each, strict=True)
        ]
        totals = [oracle.step(own, h, folded) for oracle, own in zip(oracles, each, strict=True)]
        sums = totals[0]
        if lead and sums:
            sums = {"sums": tuple(map(torch.stack, zip(*(t["sums"] for t in totals), strict=True)))}
        engine.follow()
        if sums and hasattr(engine, "sums") and dtype is torch.float64:  # else the last bits may cancel
            own = [None if g is None else local(g) for g in together]
            found = tuple(engine.sums(own, h, folded))
            torch.testing.assert_close(found, sums["sums"], rtol=1e-12, atol=1e-15)
            sums = {"sums": found}
        engine.step([None if g is None else local(g) for g in together], {**h, **sums}, folded)
    for k, oracle in enumerate(oracles):
        assert list(engine.steps) == oracle.steps
        for i, w in enumerate(oracle.weights):
            pairs = {"w": (engine.parameters[i], w)}
            if w.numel():  # Adafactor's means over nothing are NaN
                pairs |= {name: (engine.state[i][name], value) for name, value in oracle.state[i].items()}
            for name, (found, expected) in pairs.items():
                compare(whole(found)[k] if lead else whole(found), expected, f"{name}{i}, {layout}")


def compare(found: Tensor, expected: Tensor, where: str) -> None:
    """The same within the type's tolerance.

    In half precision one element in 1,000 may differ: its last bit decides on which side of a rule's
    `select` it is. float16 may overflow, in the same elements.
    """
    assert found.dtype == expected.dtype and found.shape == expected.shape, where
    half = found.dtype.itemsize == 2
    finite = expected.isfinite()
    assert torch.equal(found.isfinite(), finite), where
    assert finite.all() or found.dtype is torch.float16, where
    limit = TOLERANCE[found.dtype]
    near = torch.isclose(found[finite], expected[finite], rtol=limit, atol=limit)
    assert int((~near).sum()) <= (near.numel() / 1000 if half else 0), where


def stacked_as_they_lie(members: Sequence[Any]) -> Tensor:
    """The members behind one another, each in the layout that it has alone."""
    (first, *_), count = members, len(members)
    span = 1 + sum((n - 1) * s for n, s in zip(first.shape, first.stride(), strict=True) if n)
    memory = first.new_empty(count * max(span, 0))
    return memory.as_strided((count, *first.shape), (span, *first.stride())).copy_(torch.stack([*members]))


def whole(x: Any) -> Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("engine", ["eager", "fused", "stacked", "sharded"])
@pytest.mark.parametrize("name", RULES)
def test_every_engine_runs_the_rules_text(name, engine, dtype, request):
    """Weights, state, average and steps after 8 updates with changing foldings, in every layout."""
    rule = RULES[name]
    h = dict(rule.defaults)

    def plain(x: Tensor) -> Tensor:
        return x

    def eager(rule: Any, weights: list[Tensor]) -> Any:
        return Eager(rule, weights, h, average=True), plain

    def fused(rule: Any, weights: list[Tensor]) -> Any:
        return Fused(rule, weights, h, average=True), plain

    def stacked(rule: Any, weights: list[Tensor]) -> Any:
        return Stacked(rule, weights, h, average=True, members=MEMBERS), plain

    def sharded(rule: Any, weights: list[Tensor]) -> Any:
        from torch.distributed.tensor import DTensor, Replicate, Shard

        here = request.getfixturevalue("mesh")

        def local(x: Tensor) -> Tensor:
            cut = rule.elementwise and x.dim() > 0
            return DTensor.from_local(x, here, [Shard(0) if cut else Replicate()])

        inner = Fused if rule.elementwise else Eager
        parameters = [local(w) for w in weights]
        return Sharded(rule, parameters, lambda own: inner(rule, own, h, average=True)), local

    make = {"eager": eager, "fused": fused, "stacked": stacked, "sharded": sharded}[engine]
    for layout in LAYOUTS:
        try:
            check(make, rule, layout, dtype, (MEMBERS,) if engine == "stacked" else ())
        except Unsupported as reason:
            assert engine == "fused" and not rule.elementwise, reason


class Wrong(Eager):
    """An engine with a fault, which the table must see."""

    fault = ""

    def step(self, gradients: Any, h: Any, folded: Any = FOLDED[0], skip: Any = None) -> Any:
        if self.fault == "half the rate":
            h = {**h, "lr": h["lr"] / 2}
        elif self.fault:
            folded = replace(folded, **{self.fault: 0.0})
        return super().step(gradients, h, folded, skip)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("fault", ["half the rate", "decay", "l1", "l2"])
@pytest.mark.parametrize("name", RULES)
def test_the_table_sees_a_faulty_engine(name, fault, dtype):
    """Half the rate, or a part of what is folded in left out, shows in each rule and type."""
    if (name, fault) == ("lars", "l2") and dtype.itemsize == 2:
        pytest.skip("LARS divides by the norm of what it adds l2 to")
    rule = RULES[name]

    def make(rule: Any, weights: list[Tensor]) -> Any:
        engine = Wrong(rule, weights, dict(rule.defaults), average=True)
        engine.fault = fault
        return engine, lambda x: x

    with pytest.raises(AssertionError):
        check(make, rule, "large", dtype)
