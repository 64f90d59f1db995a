"""Time of an optimizer's update: Stepwell's one pass against torch's kernels and other packages.

    python benchmarks/update.py [--rounds 9] [--threads N] [--rules] [--device cuda] [--json FILE]

First the usual sequence of a training step, clipping by the global norm, AdamW, and an average of the
weights, on four models. Stepwell does all of it in `step`; torch in clip_grad_norm_, its optimizer and
_foreach_lerp_. Then, with --rules, every rule that needs no whole tensors, alone, on the 30 M model,
against torch's forms of it and against the floor: the bytes it must move over the bandwidth. With --device
cuda a model of 500 M takes the largest one's place in both.

Contestants take turns within a round, so that a disturbance of the machine hits all alike; the table
shows medians over the rounds, and the ratio is the median of each round's ratio. Bandwidth is measured in
the same rounds, by torch adding one array to another in place, over as many bytes as the rule touches; on a
GPU by torch copying.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import stepwell as sw
from stepwell.engine.program import trace_sums
from stepwell.optim.hyperparameters import ANY
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import RULES, Rule

Contestant = Callable[[], Any]
LEAST_SECONDS = 0.15  # of one measurement


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of an update, side by side with other optimizers.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each contestant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for all alike")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rules", action="store_true", help="also every rule alone, against its floor")
    parser.add_argument(
        "--only", nargs="*", default=[], help="models or rules whose name contains one of these"
    )
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    global device
    device = torch.device(options.device)
    warnings.filterwarnings("ignore")
    where = torch.cuda.get_device_name() if on_gpu() else f"{platform.machine()}, {options.threads} threads"
    about = (
        f"torch {torch.__version__}, Python {platform.python_version()}, {where}, "
        f"{options.rounds} rounds in turn"
    )
    print(about)
    figures: dict[str, Any] = {"about": about, "first steps": first_steps()}

    def wanted(name: str) -> bool:
        return not options.only or any(word in name for word in options.only)

    models = {**MODELS, **FOR_GPU} if on_gpu() else MODELS
    for name, shapes in models.items():
        if wanted(name):
            figures[name] = sequence(name, shapes, options.rounds)
    if options.rules:
        figures["rules"] = rules(options.rounds, wanted)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


# -- compiling --------------------------------------------------------------------------------------------

# In a process of its own, where nothing is compiled yet; what is imported, and LLVM, is there.
FIRST = """
import sys, time, torch, stepwell as sw
from stepwell.engine import llvm
llvm._machine()
made = [torch.ones(10, requires_grad=True) for _ in range(int(sys.argv[1]))]
for p in made:
    p.grad = torch.ones(10)
optimizer = sw.optim.AdamW(made, clip_norm=1.0, ema=0.9, engine="fused")
times = []
for _ in range(3):
    start = time.perf_counter()
    optimizer.step()
    times.append(time.perf_counter() - start)
print(times[0] - times[2])
"""


def first_steps() -> dict[str, float]:
    """Seconds that the first step takes longer than the third: it compiles."""
    found = {}
    for count in (1, 1000):
        words = [sys.executable, "-c", FIRST, str(count)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found[str(count)] = round(float(done.stdout), 3)
    print(
        f"the first step, which compiles: {found['1']:.3f} s for one tensor, "
        f"{found['1000']:.3f} s for 1,000 (which are looked over, too)"
    )
    return found


# -- the models: shapes of their parameters ---------------------------------------------------------------


def mlp() -> list[tuple[int, ...]]:
    """784-300-100-10: 6 tensors, 0.27 M."""
    return [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]


def resnet18() -> list[tuple[int, ...]]:
    """ResNet-18 for ImageNet: 62 tensors, 11.7 M."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inside = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, inside, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and inside != width:
                shapes += [(width, inside, 1, 1), (width,), (width,)]
            inside = width
    return [*shapes, (1000, 512), (1000,)]


def transformer(blocks: int, d: int, words: int) -> list[tuple[int, ...]]:
    """Blocks of width d, with places for 256 words."""
    block = [
        (d,),
        (d,),
        (3 * d, d),
        (3 * d,),
        (d, d),
        (d,),
        (d,),
        (d,),
        (4 * d, d),
        (4 * d,),
        (d, 4 * d),
        (d,),
    ]
    return [(words, d), (256, d), *(shape for _ in range(blocks) for shape in block), (d,), (d,)]


MODELS: dict[str, list[tuple[int, ...]]] = {
    "mlp, 0.27 M": mlp(),
    "resnet18, 11.7 M": resnet18(),
    "transformer, 30 M": transformer(8, 512, 9000),
    "1,000 tensors of 1,000": [(1000,)] * 1000,
}
FOR_GPU = {"transformer, 500 M": transformer(24, 1280, 22_000)}


device = torch.device("cpu")


def on_gpu() -> bool:
    return device.type == "cuda"


def wait() -> None:
    """Until a GPU has done what it was told."""
    if on_gpu():
        torch.cuda.synchronize()


def parameters(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(shape, device=device).mul_(0.02).requires_grad_() for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p) * 0.01
    return made


# -- clip + AdamW + average -------------------------------------------------------------------------------


def sequence(name: str, shapes: list[tuple[int, ...]], rounds: int) -> dict[str, Any]:
    size = sum(torch.Size(shape).numel() for shape in shapes)
    print(f"\n{name}: {len(shapes):,} tensors, {size:,} parameters; clip_grad_norm_ + AdamW + average")
    contestants = {"Stepwell": ours(shapes)}
    for form in ("fused", "foreach", "for-loop"):
        contestants[f"torch, {form}"] = theirs(shapes, form)
    contestants |= others(shapes)
    times = measure(contestants, rounds)
    return table(times, "torch, fused")


def ours(shapes: list[tuple[int, ...]]) -> Contestant:
    optimizer = sw.optim.AdamW(parameters(shapes), lr=1e-4, clip_norm=1.0, ema=0.999, engine="fused")
    return optimizer.step


def theirs(shapes: list[tuple[int, ...]], form: str) -> Contestant:
    flags: dict[str, Any] = {"fused": form == "fused", "foreach": form == "foreach"}
    return with_clip_and_average(shapes, lambda made: torch.optim.AdamW(made, lr=1e-4, **flags))


def with_clip_and_average(
    shapes: list[tuple[int, ...]], make: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> Contestant:
    made = parameters(shapes)
    optimizer, gradients = make(made), [p.grad for p in made]
    averages, weights = [p.detach().clone() for p in made], [p.detach() for p in made]

    def step() -> None:
        for p, g in zip(made, gradients, strict=True):
            p.grad = g  # HeavyBall takes it away
        torch.nn.utils.clip_grad_norm_(made, 1.0)
        optimizer.step()
        torch._foreach_lerp_(averages, weights, 0.001)  # pyright: ignore[reportPrivateImportUsage]

    return step


def others(shapes: list[tuple[int, ...]]) -> dict[str, Contestant]:
    """pytorch_optimizer and HeavyBall, where installed; the AdamW of the first is torch's own."""
    found: dict[str, Contestant] = {}
    for package, title, make in (
        ("pytorch_optimizer", "pytorch_optimizer", lambda module: module.load_optimizer("adamw")),
        ("heavyball", "HeavyBall", lambda module: module.AdamW),
    ):
        if find_spec(package):
            kind = make(importlib.import_module(package))
            title = f"{title} {importlib.metadata.version(package)}"
            found[title] = with_clip_and_average(
                shapes, lambda made, kind=kind: kind(made, lr=1e-4, weight_decay=0.01)
            )
    return found


# -- every rule alone -------------------------------------------------------------------------------------

# Rules that torch has → its class and arguments.
TORCHS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop-centered": (torch.optim.RMSprop, {"centered": True}),
    "rmsprop-momentum": (torch.optim.RMSprop, {"momentum": 0.9}),
    "rmsprop-centered-momentum": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "adadelta": (torch.optim.Adadelta, {}),
    "radam": (torch.optim.RAdam, {}),
    "nadam": (torch.optim.NAdam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "asgd": (torch.optim.ASGD, {}),
    "rprop": (torch.optim.Rprop, {}),
}
# Rules that torch does not have → their names in pytorch_optimizer.
PEERS = {
    "lion": "lion",
    "ademamix": "ademamix",
    "adan": "adan",
    "schedule-free-sgd": "schedulefreesgd",
    "schedule-free-adamw": "schedulefreeadamw",
    "schedule-free-radam": "schedulefreeradam",
}
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad)


def rules(rounds: int, wanted: Callable[[str], bool]) -> dict[str, Any]:
    shapes = FOR_GPU["transformer, 500 M"] if on_gpu() else MODELS["transformer, 30 M"]
    size = sum(torch.Size(shape).numel() for shape in shapes)
    print(f"\nevery rule alone, {size:,} parameters, milliseconds")
    print(
        f"{'':26}{'floor':>8}{'ours':>8}{'/floor':>8}"
        f"{'fused':>8}{'foreach':>8}{'loop':>8}{'/best of torch':>16}{'pytorch_optimizer':>19}"
    )
    found = {}
    for name, rule in RULES.items():
        if not rule.elementwise or not wanted(name):
            continue
        kept = sum(not s.scalar for s in rule.state)
        floor = traffic(size, kept, read_for_sums(rule))
        contestants: dict[str, Contestant] = {"ours": alone(rule, shapes), "floor": floor}
        if name in TORCHS:
            kind, arguments = TORCHS[name]
            forms = ["foreach", "loop"] + ["fused"] * (kind in FUSED and not arguments.get("centered"))
            for form in forms:
                flags: dict[str, Any] = {"foreach": form == "foreach"} | (
                    {"fused": form == "fused"} if kind in FUSED else {}
                )
                contestants[form] = kind(parameters(shapes), lr=1e-4, **arguments, **flags).step  # type: ignore[call-arg]
        if name in PEERS and find_spec("pytorch_optimizer"):
            load = importlib.import_module("pytorch_optimizer").load_optimizer
            contestants["peer"] = load(PEERS[name])(parameters(shapes), lr=1e-4).step
        times = measure(contestants, rounds)
        own = {form: statistics.median(t) * 1e3 for form, t in times.items()}
        best = (
            [
                min(t[i] for form, t in times.items() if form in ("fused", "foreach", "loop"))
                for i in range(rounds)
            ]
            if name in TORCHS
            else []
        )
        row = {
            **{f"{form}_ms": round(ms, 2) for form, ms in own.items()},
            "to_floor": ratio(times["ours"], times["floor"]),
            "to_torch": ratio(times["ours"], best) if best else None,
            "to_foreach": ratio(times["ours"], times["foreach"]) if best else None,
        }
        found[name] = row
        cells = [f"{own[form]:8.1f}" if form in own else f"{'':8}" for form in ("fused", "foreach", "loop")]
        to_torch = f"{row['to_torch']:16.2f}" if best else f"{'':16}"
        print(
            f"{name:26}{own['floor']:8.1f}{own['ours']:8.1f}{row['to_floor']:8.2f}{''.join(cells)}{to_torch}"
            + (f"{own['peer']:19.1f}" if "peer" in own else ""),
            flush=True,
        )
    return found


def alone(rule: Rule, shapes: list[tuple[int, ...]]) -> Contestant:
    """A whole step of an optimizer of this rule."""
    kind: Any = type("Alone", (RuleOptimizer,), {"rules": (rule,), "spread": {}, "ranges": {"alpha": ANY}})
    return kind(parameters(shapes), dict(rule.defaults), {"engine": "fused"}).step


def read_for_sums(rule: Rule) -> int:
    """How many arrays a rule must read before its update, to add up what it asks for."""
    if rule.sums is None:
        return 0
    program = trace_sums(rule)
    used = set(program.totals)
    for place in reversed(range(len(program.operations))):
        if place in used:
            used |= set(program.operations[place].inputs)
    operations = (program.operations[place] for place in used)
    return len({op.value for op in operations if op.name == "input" and op.value in program.elements})


def traffic(size: int, kept: int, before: int) -> Contestant:
    """Moves as many bytes as an update, over arrays of its own footprint: it reads w, g and the state and
    writes w and the state. By in-place additions, two reads to a write, as near to that as can be; on a
    GPU, whose bandwidth is told so, by copies. What is read `before`, for a rule's sums, by a dot product."""
    arrays = 2 + kept  # w, g, state
    moved = 4 * size * (arrays + 1 + kept)
    total = 4 * size * arrays
    a, b = torch.zeros(total // 8, device=device), torch.ones(total // 8, device=device)
    share = moved / ((2 if on_gpu() else 3) * 4 * a.numel())  # of one addition's traffic, or copy's
    whole, rest = int(share), share - int(share)
    part = int(rest * a.numel())

    move = Tensor.copy_ if on_gpu() else Tensor.add_

    c, d = torch.ones(before * size // 2, device=device), torch.ones(before * size // 2, device=device)

    def run() -> None:
        if before:
            torch.dot(c, d)
        for _ in range(whole):
            move(a, b)
        move(a[:part], b[:part])

    return run


# -- measuring --------------------------------------------------------------------------------------------


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Seconds a call, a list of one figure a round for each."""
    counts = {}
    for name, run in contestants.items():
        run()
        wait()
        start = time.perf_counter()
        run()
        wait()
        counts[name] = max(1, int(LEAST_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                run()
            wait()
            times[name].append((time.perf_counter() - start) / counts[name])
    return times


def ratio(ours_: list[float], others_: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours_, others_, strict=True)), 3)


def table(times: dict[str, list[float]], reference: str) -> dict[str, Any]:
    print(f"{'':28}{'µs an update':>14}{'least – most':>24}{'to torch fused':>16}")
    found = {}
    for name, seconds in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        micro = [s * 1e6 for s in seconds]
        found[name] = {"µs": round(statistics.median(micro), 1), "ratio": ratio(seconds, times[reference])}
        spread = f"{min(micro):,.0f} – {max(micro):,.0f}"
        print(
            f"{name:28}{statistics.median(micro):14,.0f}{spread:>24}{found[name]['ratio']:16.2f}", flush=True
        )
    return found


if __name__ == "__main__":
    main()
