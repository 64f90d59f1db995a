"""The fused engine with Triton's kernels, on CPU tensors by Triton's interpreter.

`test_triton.py` runs this file in a process of its own: Triton must be told before it is imported that
its kernels are to be interpreted, and every other test of that process would get these kernels too.
"""

import math
from typing import Any

import pytest
import test_engines_agree as agree
import test_stacked as stacked
import torch

import stepwell as sw
from stepwell.engine import choose, fused, rounding, triton_kernel
from stepwell.engine.device_table import DeviceTable
from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.state import Unsupported
from stepwell.engine.text import Folded
from stepwell.rules import RULES, Rule, State

LLVM = fused.TABLES["cpu"]
fused.TABLES["cpu"] = fused.TABLES["cuda"]

EVERYTHING = Folded(scale=2.0, clip_value=0.7, l2=0.03, decay=0.1, l1=0.1, ema=0.99)
FOLDED = {torch.float64: EVERYTHING, torch.bfloat16: Folded(ema=0.9)}


@pytest.fixture
def launches(monkeypatch):
    """The kernels that are launched from here on, in their order."""
    seen = []
    launch = triton_kernel.Kernel.launch

    def noted(kernel, instances, *arguments):
        seen.append(kernel)
        for x in arguments[:-2]:  # Triton compiles again for tables that do not begin at 16 bytes
            assert x.data_ptr() % 16 == 0
        launch(kernel, instances, *arguments)

    monkeypatch.setattr(triton_kernel.Kernel, "launch", noted)
    return seen


@pytest.mark.parametrize("dtype", agree.DTYPES, ids=str)
@pytest.mark.parametrize("name", agree.FUSED)
def test_every_rule_is_eager(name, dtype):
    """All layouts, several chunks and blocks, a missing gradient; with everything folded in, or nothing."""
    folded = FOLDED.get(dtype)
    steps = 3 if dtype.itemsize > 2 else 2
    options = {"folded": folded, "average": folded is not None, "steps": steps}
    eager, one = agree.run(Eager, RULES[name], "mixed", dtype, **options)
    triton, two = agree.run(Fused, RULES[name], "mixed", dtype, **options)
    assert isinstance(two._tables[0], DeviceTable)
    assert one.steps == two.steps
    agree.assert_agree(eager, triton, dtype)


def test_a_parameter_without_dimensions():
    """One number is updated, beside another parameter."""
    for name in ("adam", "lion"):
        eager, _ = agree.run(Eager, RULES[name], "scalar", torch.float32, steps=2)
        triton, _ = agree.run(Fused, RULES[name], "scalar", torch.float32, steps=2)
        agree.assert_agree(eager, triton, torch.float32)


@pytest.mark.parametrize("name", agree.FUSED)
def test_members_are_separate_engines(name, monkeypatch):
    """A population: every hyperparameter and folded thing of each member is its own."""
    monkeypatch.setattr(stacked, "K", 3)
    monkeypatch.setattr(stacked, "STEPS", 2)
    monkeypatch.setattr(stacked, "SHAPES", [(4, 3), (3,)])
    stacked.test_stacked_equals_separate_engines(name, Fused, torch.float64)


def test_members_norms(monkeypatch):
    """One norm a member, also of members in several chunks."""
    monkeypatch.setattr(stacked, "SHAPES", [(3,), (2100,)])
    stacked.test_norms_are_each_members(Fused)


@pytest.mark.parametrize("layout", ["mixed", "none"])
@pytest.mark.parametrize("dtype", agree.DTYPES, ids=str)
def test_norms(dtype, layout):
    """As of the other engines, before and during the update."""
    agree.test_norms_are_torchs(dtype, layout)


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("stochastic", [False, True])
def test_special_numbers(special, stochastic):
    """Infinity and NaN stay what they are in every type, and spoil no other element."""
    agree.test_infinity_and_nan_pass_through(special, stochastic)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_once(dtype):
    """To the nearest, to even at a tie: bit for bit as torch, where nothing is computed."""
    numbers = (
        torch.arange(1 << 15).to(torch.int16).view(dtype)[: 0x7C00 if dtype is torch.float16 else 0x7F80]
    )
    halfway = (numbers[:-1].double() + numbers[1:].double()) / 2
    g = torch.cat([numbers.double(), halfway, halfway * (1 + 2.0**-20), torch.zeros(1)]).float()
    g.view(torch.int32)[-1] = 0x7FFFFFFF  # a NaN that rounded up would be −0
    w = torch.zeros_like(g)
    triton = Fused(RULES["momentum"], [w], RULES["momentum"].defaults, kind=dtype)
    triton.step([g], RULES["momentum"].defaults)
    found = triton.state[0]["momentum_buffer"]
    assert found[-1].isnan()
    assert torch.equal(found[:-1].view(torch.int16), g[:-1].to(dtype).view(torch.int16))


@pytest.mark.parametrize("kind", [None, torch.float32], ids=str)
def test_stochastic_rounding_bits(kind):
    """They are those of (step, parameter, element) on every engine, for weights and state."""
    options = {"stochastic": True, "kind": kind, "steps": 3}
    eager, _ = agree.run(Eager, RULES["momentum"], "mixed", torch.bfloat16, **options)
    triton, _ = agree.run(Fused, RULES["momentum"], "mixed", torch.bfloat16, **options)
    for name in eager:
        same = (eager[name] == triton[name]).double()
        assert eager[name].dtype is torch.float32 or not len(same.reshape(-1)) or same.mean() > 0.99, name


def test_stochastic_rounding_of_members(monkeypatch):
    """The bits of a population are those of LLVM's kernel."""
    results = []
    for table in (LLVM, fused.TABLES["cuda"]):
        monkeypatch.setitem(fused.TABLES, "cpu", table)
        weights = [torch.ones(2, 700, dtype=torch.bfloat16), torch.ones(2, 5, dtype=torch.bfloat16)]
        engine = Fused(RULES["sgd"], weights, {"lr": 1e-3}, stochastic=True, members=2)
        for _ in range(3):
            engine.step([torch.full_like(w, 0.7) for w in weights], {"lr": 1e-3})
        results.append(weights)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(results[0][0][0], results[0][0][1])


@pytest.mark.parametrize("name", ["adam", "nadam"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_skipped_update_leaves_everything(name, dtype):
    """As if it had not been: weights, state, scalars, random bits, and the steps of each parameter."""
    rule, ends = RULES[name], []
    for skipped in (set(), {1, 2, 4}):
        weights = agree.tensors("contiguous", dtype, 0)
        engine = Fused(rule, weights, rule.defaults, stochastic=True)
        for step in range(6 if skipped else 3):
            made = sorted(set(range(6)) - {1, 2, 4}).index(step) if skipped and step not in skipped else step
            g = agree.tensors("contiguous", dtype, made + 1)
            given = [g[0], None if made % 2 and step not in {4} else g[1]]
            if step in skipped:
                given[0] = torch.full_like(g[0], math.nan)
            skip = torch.tensor(step in skipped)
            norm = engine.step(given, rule.defaults, skip=skip if skipped else None)
            assert norm is not None and bool(norm == 0) == (step in skipped)
        ends.append((weights, [x for own in engine.state for x in own.values()], engine.steps))
    assert ends[0][2] == ends[1][2] == [3, 2]
    for k in range(2):
        assert all(torch.equal(a, b) for a, b in zip(ends[0][k], ends[1][k], strict=True))


def test_numbers_may_be_on_the_device():
    """A rate or a factor that is a tensor there is used without its value on the host, and back again."""
    w, v = torch.ones(5), torch.ones(5)
    engine, other = (Fused(RULES["sgd"], [x], {"lr": 0.1}) for x in (w, v))
    for lr, scale in ((0.1, 1.0), (0.3, 2.0), (0.1, 1.0), (0.1, 0.5)):
        odd = lr == 0.3
        engine.step(
            [torch.ones(5)],
            {"lr": torch.tensor(lr).double() if odd else lr},
            Folded(scale=torch.tensor([scale])),
        )
        other.step([torch.ones(5)], {"lr": lr}, Folded(scale=scale))
        assert torch.equal(w, v)


def test_one_launch_an_update_and_no_new_kernel(launches):
    """Whatever the number of tensors, t and the hyperparameters; another one for the norm when clipping."""
    printed = None
    for count in (1, 2, 5):
        weights = [torch.nn.Parameter(torch.randn(3 + k)) for k in range(count)]
        optimizer = sw.optim.AdamW(weights, clip_norm=1.0, ema=0.9, engine="fused")
        for step in range(3):
            optimizer.param_groups[0].update(lr=0.1 / (step + 1), clip_norm=None if step == 2 else 0.1 + step)
            for w in weights:
                w.grad = torch.randn_like(w)
            optimizer.step()
            del launches[: 2 if step == 0 else 0]  # what compiles the two kernels, with nothing to do
            assert len(launches) == (1 if step == 2 else 2)
            launches.clear()
        printed = printed or len(triton_kernel._kernels)
    assert len(triton_kernel._kernels) == printed


def test_an_optimizer_on_it_follows_and_is_saved():
    """Groups, schedules, moved weights, another type in mid-run, a loaded state: as on the eager engine."""
    ends = []
    for engine in ("fused", "eager"):
        torch.manual_seed(0)
        first = torch.nn.Linear(4, 3)
        net = torch.nn.Sequential(first, torch.nn.Linear(3, 2)).double()

        def make(net=net, engine: Any = engine):
            groups = [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[1].parameters()}]
            return sw.optim.NAdam(groups, lr=lambda t: 0.1 / (1 + t), clip_norm=0.5, engine=engine)

        optimizer = make()
        for step in range(6):
            optimizer.zero_grad()
            (net(torch.ones(2, 4, dtype=first.weight.dtype)) ** 2).sum().backward()
            optimizer.step()
            if step == 1:
                first.weight.data = first.weight.data.clone()
            if step == 2:
                saved, optimizer = optimizer.state_dict(), make()
                optimizer.load_state_dict(saved)
            if step == 3:
                net.float()
        assert isinstance(optimizer.engines()[0], Fused if engine == "fused" else Eager)
        state = optimizer.state
        ends.append([*net.parameters(), *(x for p in net.parameters() for x in state[p].values())])
    for a, b in zip(*ends, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_odd_operations():
    """Powers of negative numbers and with exponents of any kind, tanh, exp, log, signs and comparisons."""

    def text(w, g, one, sign, *, t, lr, p):
        x = torch.where((g > 0) & (w < 1), g**p, torch.tanh(g)) + torch.exp(-abs(g)) + torch.log(abs(g) + 1)
        y = abs(g) ** 1.5 + abs(g) ** -0.5 + g**3 + torch.sign(g) + torch.maximum(g, w) * (g != w)
        w = x + y * ((-p) ** 3.0 + (p + 1) ** -1.0 + (t - 2) ** p + torch.tanh(p)) * lr
        return w, p / t, g > 0  # for each element one number of all, and a truth value

    rule = Rule("odd", text, (State("one"), State("sign")), {"lr": 0.1, "p": 2.0})
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        ends = []
        for kind in (Eager, Fused):
            w = torch.linspace(-3, 3, 51, dtype=dtype)
            g = torch.linspace(-2, 2, 51, dtype=dtype) * torch.tensor([1e-3, 0.3, 1.0], dtype=dtype).repeat(
                17
            )
            engine = kind(rule, [w], {"lr": 0.1, "p": 2.0})
            for p in (2.0, 3.0, 0.0):
                given = torch.tensor(p, dtype=torch.float64) if kind is Eager else p
                engine.step([g + 1e-4], {"lr": 0.1, "p": given})
            ends.append(torch.stack([w, engine.state[0]["one"], engine.state[0]["sign"]]))
        assert ends[0].isfinite().all()
        torch.testing.assert_close(*ends, rtol=limit, atol=limit)


def test_where_it_cannot_be_compiled_the_eager_engine_runs(monkeypatch):
    """And who asked for the fused one hears why, once."""

    def broken(*arguments):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(triton_kernel.Kernel, "launch", broken)
    with pytest.raises(Unsupported, match=r"cannot be compiled .*no C compiler"):
        Fused(RULES["sgd"], [torch.ones(3)], {"lr": 0.1})
    with pytest.warns(RuntimeWarning, match=r"sgd runs on the eager engine here: .*no C compiler"):
        engine = choose.engine_for(RULES["sgd"], [torch.ones(3)], {"lr": 0.1}, name="fused")
    assert isinstance(engine, Eager)


def test_seeds_are_those_of_rounding():
    """A record's share and the step make the seed that the other engines use."""
    engine = Fused(RULES["sgd"], [torch.ones(3, dtype=torch.bfloat16)] * 1, {"lr": 1.0}, stochastic=True)
    own = int(engine._tables[0].places[0, -1])
    for t in (1, 77, 10**6):
        assert (t * 0x9E3779B1 + own) & rounding.BITS == rounding.seed(t, 0)
