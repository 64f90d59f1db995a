"""Triton's kernels: interpreted on the CPU, and compiled for a GPU that need not be there."""

import inspect
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from stepwell.engine.program import SQUARES, trace
from stepwell.rules import RULES, Rule, State

pytest.importorskip("triton")

CASES = Path(__file__).with_name("triton_cases.py")
ARGUMENTS = "chunks places gradients begun skipped values new partials skip members"
TYPES = ["*i64", "*i64", "*i64", "*i64", "*i64", "*fp64", "*fp64", "*fp64", "*u8", "i32"]


def test_the_engine_agrees_under_tritons_interpreter():
    """Every case of triton_cases.py, in a process whose kernels are interpreted."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [*command, str(CASES)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 150


def compiled(rule, types, stochastic=False):
    """The PTX of a rule's kernel for a GPU of compute capability 9.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from stepwell.engine import triton_kernel

    program = SQUARES if rule is None else trace(rule)
    kernel = triton_kernel.kernel(program, {n: types[n != "w"] for n in program.elements}, stochastic)
    signature = dict(zip(ARGUMENTS.split(), TYPES, strict=True))
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(8)}
    source = ASTSource(kernel.function, signature, constexprs={}, attrs=aligned)
    options = {"num_warps": kernel.warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


F32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="kernels are interpreted")
@pytest.mark.parametrize(
    ("rule", "types", "stochastic"),
    [("adam", (F32, F32), False), ("momentum", (BF16, BF16), True), ("nadam", (BF16, F32), False)],
)
def test_a_gpu_loads_16_bytes_at_once(rule, types, stochastic, tmp_path, monkeypatch):
    """The kernel compiles for a GPU; each input and result of a whole block moves in pieces of 16 bytes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptx = compiled(RULES[rule], types, stochastic)
    inputs = 2 + sum(not s.scalar for s in RULES[rule].state)
    assert len(re.findall(r"ld\.global\.v4\.b32", ptx)) >= inputs
    assert len(re.findall(r"st\.global\.v4\.b32", ptx)) >= inputs - 1


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="kernels are interpreted")
def test_the_norms_kernel_compiles(tmp_path, monkeypatch):
    """It stores nothing but one sum a chunk."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert len(re.findall(r"st\.global", compiled(None, (F32, F32)))) == 1


def test_the_text_holds_no_name_of_a_user():
    """Names of rules, hyperparameters and state never reach the generated source."""
    from stepwell.engine import triton_kernel

    rule = Rule(
        'x"""; import os',
        lambda w, g, s, q, *, t, **h: (w - h["evil(); lr"] * g * s.sign(), s + g, q * 0.5),
        (State("os.system"), State("drop\ntable", scalar=True)),
        {"evil(); lr": 1.0, "lr": 1.0},
    )
    program = trace(rule)
    text = triton_kernel.source(program, dict.fromkeys(program.elements, BF16), stochastic=True)
    body = text.partition("members):\n")[2]
    words = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\d+\.?\d*e[-+]?\d+", "", body)))
    known = set(re.findall(r"\w+", inspect.getsource(triton_kernel)))
    assert {w for w in words if not re.fullmatch(r"[a-z]{1,2}\d*", w)} <= known
    assert not re.search("evil|import|system|drop", body)


def test_threads_get_one_kernel():
    """Many that ask at once for the same program get the same; its text can be read by inspect."""
    from stepwell.engine import triton_kernel

    program = trace(RULES["lion"])
    types = dict.fromkeys(program.elements, torch.float64)
    with ThreadPoolExecutor(8) as pool:
        kernels = set(pool.map(lambda _: triton_kernel.kernel(program, types), range(16)))
    (kernel,) = kernels
    assert inspect.getsource(kernel.function.fn) in triton_kernel.source(program, types)
    assert kernel.function.fn.__module__ in sys.modules
