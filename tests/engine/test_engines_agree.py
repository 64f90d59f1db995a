"""What the fused engine does besides the rule, as the eager one; see test_every_rule_on_every_engine.py."""

import math

import pytest
import torch
from torch import Tensor

from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.program import Untraceable, trace
from stepwell.engine.state import Unsupported
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.rules import RULES

STEPS = 25
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = ["contiguous", "transposed", "strided", "channels last", "none", "scalar", "empty", "many"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def traceable(rule):
    try:
        trace(rule)
    except Untraceable:
        return False
    return True


FUSED = [name for name, rule in RULES.items() if traceable(rule)]


def tensors(layout, dtype, seed):
    """Weights (or gradients) in a layout, the same numbers for a seed."""
    torch.manual_seed(seed)
    if layout == "transposed":
        made = [torch.randn(7, 5).t(), torch.randn(3)]
    elif layout == "strided":
        made = [torch.randn(9, 8)[:, ::2], torch.randn(20)[5:15:3]]
    elif layout == "channels last":
        made = [torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last), torch.randn(4)]
    elif layout == "scalar":
        made = [torch.randn(()), torch.randn(2)]
    elif layout == "empty":
        made = [torch.randn(0, 3), torch.randn(6)]
    elif layout == "many":
        made = [torch.randn(41, 421), torch.randn(16384), torch.randn(16385), torch.randn(1)]
    elif layout == "mixed":  # all of them in one engine, for those that are slow to start
        made = [torch.randn(7, 5).t(), torch.randn(9, 8)[:, ::2], torch.randn(1), torch.randn(0, 3)]
        made += [torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last), torch.randn(3700)]
    else:
        made = [torch.randn(6, 4), torch.randn(5)]
    # Values that every type holds, with the same gaps between them.
    return [
        torch.zeros(x.untyped_storage().nbytes() // 4, dtype=dtype)
        .as_strided(x.shape, x.stride(), x.storage_offset())
        .copy_(x.half())
        for x in made
    ]


def run(make, rule, layout, dtype, folded=None, steps=STEPS, **options):
    """Weights and state after some updates with changing rate and gradients."""
    weights = tensors(layout, dtype, 0)
    h = dict(rule.defaults)
    engine = make(rule, weights, h, **options)
    for step in range(1, steps + 1):
        gradients: list[Tensor | None] = list(tensors(layout, dtype, step))
        if layout in ("none", "mixed") and step % 3 == 1:
            gradients[1] = None
        totals = {}
        if rule.sums is not None:
            f = folded or Folded()
            totals["sums"] = tuple(add_up(rule, weights, gradients, engine.state, engine.steps, h, f))
        engine.follow()
        engine.step(gradients, {**h, **totals, "lr": h["lr"] * 0.97**step}, folded or Folded())
    found = {f"w{i}": w for i, w in enumerate(weights)}
    found |= {f"{name}{i}": x for i, state in enumerate(engine.state) for name, x in state.items()}
    return found, engine


def assert_agree(one, two, dtype):
    assert one.keys() == two.keys()
    limit = TOLERANCE[dtype]
    for name in one:
        assert one[name].dtype == two[name].dtype
        assert torch.isfinite(one[name]).all(), name
        torch.testing.assert_close(one[name], two[name], rtol=limit, atol=limit, msg=name)


FOLDINGS = [
    Folded(scale=-0.3),
    Folded(clip_value=0.2),
    Folded(l2=0.1),
    Folded(decay=0.2),
    Folded(l1=0.5),
    Folded(ema=0.9),
    Folded(scale=2.0, clip_value=0.7, l2=0.03, decay=0.1, l1=0.1, ema=0.99),
]


@pytest.mark.parametrize("folded", FOLDINGS, ids=lambda f: str(f).removeprefix("Folded"))
@pytest.mark.parametrize("name", FUSED)
def test_what_is_folded_in_agrees(name, folded):
    """Each thing that the pass does besides the rule, alone and all together, in float64."""
    average = folded.ema is not None
    eager, _ = run(Eager, RULES[name], "contiguous", torch.float64, folded, average=average)
    fused, _ = run(Fused, RULES[name], "contiguous", torch.float64, folded, average=average)
    assert_agree(eager, fused, torch.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [None, torch.float32, torch.bfloat16], ids=str)
def test_stochastic_rounding_gives_the_same_bits(kind, layout):
    """The random bits are those of (step, parameter, element) on both engines, for weights and state."""
    options = {"stochastic": True, "kind": kind}
    eager, _ = run(Eager, RULES["momentum"], layout, torch.bfloat16, **options)
    fused, _ = run(Fused, RULES["momentum"], layout, torch.bfloat16, **options)
    for name in eager:
        if eager[name].dtype is torch.float32:
            torch.testing.assert_close(eager[name], fused[name], rtol=1e-2, atol=1e-2)
            continue
        different = (eager[name] != fused[name]).double().mean() if eager[name].numel() else 0
        # float32 differs in its last bit now and then (a fused multiply-add), and so does a rounding.
        assert different < 0.01, name


@pytest.mark.parametrize("kind", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_state_may_have_another_type(dtype, kind):
    """Wider or narrower than the weights: each is computed in the widest and stored as it is."""
    eager, _ = run(Eager, RULES["momentum"], "contiguous", dtype, kind=kind)
    fused, _ = run(Fused, RULES["momentum"], "contiguous", dtype, kind=kind)
    assert fused["momentum_buffer0"].dtype is kind
    assert_agree(eager, fused, max(dtype, kind, key=TOLERANCE.__getitem__))


@pytest.mark.parametrize("kind", [Eager, Fused])
def test_stochastic_rounding_is_right_on_average(kind):
    """Steps far below half a unit in the last place move the mean by their sum; to nearest moves nothing."""
    for stochastic, moved in ((False, 0.0), (True, -0.1)):
        w = torch.ones(20_000, dtype=torch.bfloat16)
        engine = kind(RULES["sgd"], [w], {"lr": 1.0}, stochastic=stochastic)
        for _ in range(100):
            engine.step([torch.full_like(w, 1e-3)], {"lr": 1.0})
        mean = float(w.double().mean()) - 1
        assert math.isclose(mean, moved * float(torch.tensor(1e-3).bfloat16()) / 1e-3, abs_tol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", [Eager, Fused])
def test_half_precision_rounds_once(kind, dtype):
    """A half-precision update is float32's, rounded to the nearest at its end, bit for bit."""
    (w,), (g,) = tensors("many", dtype, 0)[:1], tensors("many", dtype, 1)[:1]
    expected = (w.float() - 0.3 * g.float()).to(dtype)
    kind(RULES["sgd"], [w], {"lr": 0.3}).step([g], {"lr": 0.3})
    assert (w != expected).float().mean() < 1e-3  # a fused multiply-add rounds once where two round twice


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("stochastic", [False, True])
def test_infinity_and_nan_pass_through(special, stochastic):
    """What is not finite stays what it is in every type, and spoils no other element."""
    for dtype in DTYPES:
        g = torch.zeros(33, dtype=dtype)
        g[5] = special
        results = []
        for kind in (Eager, Fused):
            w = torch.ones(33, dtype=dtype)
            kind(RULES["momentum"], [w], RULES["momentum"].defaults, stochastic=stochastic).step(
                [g], RULES["momentum"].defaults
            )
            results.append(w)
        assert torch.equal(results[0].isnan(), results[1].isnan())
        assert torch.equal(results[0].nan_to_num(), results[1].nan_to_num())
        assert int((~results[1].isfinite()).sum()) == 1


def test_an_update_without_limits_has_a_kernel_of_its_own():
    """No other value compiles anew, and a limit so wide that it changes nothing agrees with none."""
    rule, wide = RULES["adam"], Folded(clip_value=1e30, l2=0.1)
    results = []
    for folded in (wide, Folded(l2=0.1)):
        found, engine = run(Fused, rule, "many", torch.float64, folded, steps=6)
        results.append(found)
        jobs = engine._tables[0].jobs
        assert len(jobs) == 1
        before = dict(jobs)
        last: list[Tensor | None] = [*tensors("many", torch.float64, 9)]
        engine.step(last, {**rule.defaults, "lr": 0.3, "eps": 1e-3}, folded)
        assert jobs == before
    one, two = results
    assert_agree(one, two, torch.float64)


def test_gradients_changed_between_the_norm_and_the_step_count():
    """The step takes what it is given, not what the norm was asked of."""
    w, other = torch.ones(5), torch.full((5,), 2.0)
    engine = Fused(RULES["sgd"], [w], {"lr": 1.0})
    gradients: list[Tensor | None] = [torch.full((5,), 9.0)]
    engine.norm(gradients)
    gradients[0] = other
    norm = engine.step(gradients, {"lr": 1.0})
    assert torch.equal(w, torch.full((5,), -1.0)) and norm is not None
    assert float(norm) == pytest.approx(math.sqrt(20))
    for odd in (torch.ones(5), torch.ones(10)[::2], torch.ones(5, dtype=torch.float64)):
        w.fill_(0)
        engine.norm([odd])
        odd.mul_(3)
        norm = engine.step([odd], {"lr": 1.0})
        assert torch.equal(w, torch.full((5,), -3.0)) and norm is not None
        assert float(norm) == pytest.approx(math.sqrt(45))
        engine.norm([odd])
        odd.data = torch.full((5,), 4.0)
        engine.step([odd], {"lr": 1.0})
        assert torch.equal(w, torch.full((5,), -7.0))


def test_scalars_of_the_state_changed_from_outside_count():
    """A state that is loaded or set between two updates is the next one's, on both engines alike."""
    results = []
    for kind in (Eager, Fused):
        weights = [torch.ones(3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
        rule = RULES["asgd"]
        engine = kind(rule, weights, rule.defaults)
        for k in range(6):
            if k in (2, 4):
                engine.state[1]["eta"].fill_(0.5)
                engine.state[0]["mu"].mul_(0.25)
            if k == 5:
                engine.state[1]["mu"].data.mul_(0.5)  # which its version does not tell
                engine.state[0]["eta"].numpy()[...] *= 0.5
            gradients: list[Tensor | None] = [w.sin() for w in weights]
            if k == 3:
                gradients[0] = None
            engine.step(gradients, rule.defaults)
        results.append([*weights, *(x for state in engine.state for x in state.values())])
    assert all(torch.allclose(a, b, rtol=1e-14, atol=0) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads):
    """Weights and the norm are the same bits on any number of threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, threads):
            torch.set_num_threads(count)
            found, engine = run(Fused, RULES["adam"], "many", torch.float32, steps=5)
            results.append([*found.values(), engine.norm(tensors("many", torch.float32, 9))])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_are_torchs(dtype, layout):
    """Before and during the update, the norm of the gradients that are there, to float32's rounding."""
    weights, gradients = tensors(layout, dtype, 0), tensors(layout, dtype, 1)
    given = [gradients[0], None] if layout == "none" else gradients
    there = [g.double() for g in given if g is not None]
    expected = torch.linalg.vector_norm(torch.cat([g.reshape(-1) for g in there]))
    for kind in (Eager, Fused):
        engine = kind(RULES["sgd"], weights, {"lr": 0.0})
        tolerance = 1e-12 if dtype is torch.float64 else 1e-5 if kind is Fused else 5e-3
        for found in (engine.norm(given), engine.step(given, {"lr": 0.0})):
            assert found is not None
            torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_gradient_in_another_layout_or_type_is_taken_as_it_is():
    """A transposed gradient of a contiguous weight, an expanded one, and a wider type."""
    w, g = torch.ones(4, 4), torch.randn(4, 4)
    for odd in (g.t().contiguous().t(), g.double(), g[:1].expand(4, 4)):
        a, b = w.clone(), w.clone()
        Fused(RULES["sgd"], [a], {"lr": 0.1}).step([odd], {"lr": 0.1})
        b -= 0.1 * odd.float()
        torch.testing.assert_close(a, b)


def test_a_gradient_of_another_shape_is_refused():
    """Also where only the parameter changed its shape, which autograd does not see."""
    w = torch.ones(4, 4)
    engine = Fused(RULES["sgd"], [w], {"lr": 0.1})
    engine.step([torch.ones(4, 4)], {"lr": 0.1})
    w.data = torch.ones(5)
    engine.follow()
    with pytest.raises(UserError, match="a gradient has shape"):
        engine.step([torch.ones(4, 4)], {"lr": 0.1})
    assert torch.equal(w, torch.ones(5))


def test_what_has_no_kernel_is_said():
    """Other devices and types, and parameters in one memory, are refused with the reason."""
    both = torch.zeros(10)
    wrong = {
        "meta": [torch.zeros(3, device="meta")],
        "complex64": [torch.zeros(3, dtype=torch.complex64)],
        "share memory": [both[:6], both[4:]],
    }
    for reason, weights in wrong.items():
        with pytest.raises(Unsupported, match=reason):
            Fused(RULES["sgd"], weights, {"lr": 0.1})


def test_an_update_is_seen_by_autograd():
    """A graph that saved a weight refuses to go back once the weight was changed, as after torch's step."""
    w = torch.ones(3, requires_grad=True)
    loss = (w * w).sum()
    Fused(RULES["sgd"], [w], {"lr": 0.1}).step([torch.ones(3)], {"lr": 0.1})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
