"""Prints a program as the source of a Triton kernel: one pass over memory, whatever the rule.

Each instance of the kernel takes one chunk of one record. It computes the uniform operations in float64,
then updates the elements: loads every input once, computes in float32 (float64 for float64 weights),
stores every result once, and adds up the squares of the gradient on the way. What may change from one
update to the next is an input, so nothing is compiled again.

Elements are taken in two loops with the same body: blocks of `BLOCK` while they are whole and all addresses
allow 16 bytes at once, then blocks of `RAGGED`, element by element.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
import triton  # noqa: F401  (who has none gets an ImportError here)
from torch import Tensor

from stepwell.engine import generated, rounding
from stepwell.engine.program import COMPARISONS, Operation, Program

BLOCK, RAGGED = 1024, 512  # elements of a block in the first loop and the second
# Triton would otherwise look at each number and address, and compile again for a new kind of them.
HEAD = """\
import triton
import triton.language as tl
import triton.language.core as core


@triton.jit(do_not_specialize=["skip", "members"])
def update(chunks, places, gradients, begun, skipped, values, new, partials, skip, members):
"""
FLOATS = {torch.float64: "tl.float64", torch.float32: "tl.float32", torch.float16: "tl.float16"}
SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
SYMBOLS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
WRAPS = "sanitize_overflow=False"  # sums and products of bits leave out what is too much
TRUTHS = (*COMPARISONS, "and", "or")  # operations that give truth values

_lock = threading.Lock()
_kernels: dict[object, Kernel] = {}


class Kernel:
    """The compiled kernel of one program for one choice of element types."""

    def __init__(self, text: str, warps: int) -> None:
        self.function, self.warps = generated.module("kernel", text).update, warps

    def launch(self, instances: int, *arguments: Tensor | int) -> None:
        """Starts so many instances, on the current device. The arguments are tables there, in this order:

        chunks: (record, start, length). places: of each record, the addresses of the element inputs but
        g, of the scalars of the state, and its share of the seed. gradients: their addresses, 0 for a
        record that is to be left alone. begun: updates of each record, this one included; skipped: how
        many of them were skipped. values: of each member, the uniform inputs but t and the state's (see
        `columns`). new: gets the new scalars of the state. partials: gets Σ g² of each chunk. skip: where
        it is true, everything stays as it is, and the update is counted in `skipped`. members: a number.
        """
        self.function[(instances,)](*arguments, num_warps=self.warps, enable_fp_fusion=True)


def kernel(program: Program, types: Mapping[str, torch.dtype], stochastic: bool = False) -> Kernel:
    """The kernel of a program whose element inputs have these types; printed once a process.

    stochastic: bfloat16 results are rounded up or down by chance, in proportion to how near each is.
    """
    key = (program.operations, *program.results.items(), *types.items(), stochastic)
    with _lock:
        if key not in _kernels:
            # A thread then takes 16 bytes of the smallest type at once, and no second helping.
            warps = BLOCK // 32 * min(kind.itemsize for kind in types.values()) // 16
            _kernels[key] = Kernel(source(program, types, stochastic), min(warps, 8))
        return _kernels[key]


def source(program: Program, types: Mapping[str, torch.dtype], stochastic: bool = False) -> str:
    """The text of a kernel's module: numbered names and numbers, no name that a user gave."""
    return HEAD + "".join(f"    {line}\n" for line in _Printer(program, types, stochastic).lines)


def scalar_states(program: Program) -> list[str]:
    """The scalars of the state, in the order of the kernel's tables."""
    return [name for name in program.results if name in program.scalars]


def columns(program: Program) -> list[str]:
    """The uniform inputs that stand in `values`, in their order."""
    return [name for name in program.scalars if name != "t" and name not in program.results]


class _Printer:
    def __init__(self, program: Program, types: Mapping[str, torch.dtype], stochastic: bool) -> None:
        self.program, self.types, self.stochastic = program, types, stochastic
        self.real = FLOATS[torch.float64 if torch.float64 in types.values() else torch.float32]
        self.states, self.columns = scalar_states(program), columns(program)
        self.others = [name for name in program.elements if name != "g"]
        self.lines: list[str] = []
        self.names = 0
        self._chunk()
        for place, op in enumerate(program.operations):
            if op.uniform:
                expression = self._uniform(op)
                self.lines.append(f"v{place} = {expression}")
        self._store_scalars()
        self._prepare()
        for kind, block, first, end in (("a", BLOCK, "0", "whole"), ("b", RAGGED, "whole", "length")):
            self._loop(kind, block, first, end)
        self.lines.append("tl.store(partials + chunk, tl.sum(a.to(tl.float64)) + tl.sum(b.to(tl.float64)))")

    # -- once a chunk -----------------------------------------------------------------------------------

    def _chunk(self) -> None:
        width = len(self.others) + len(self.states) + 1
        self.lines += [
            "chunk = tl.program_id(0)",
            "record = tl.load(chunks + 3 * chunk)",
            f"start = tl.multiple_of(tl.load(chunks + 3 * chunk + 1), {BLOCK})",
            "size = tl.load(chunks + 3 * chunk + 2).to(tl.int32)",
            "g = tl.load(gradients + record)",
            "first = (start == 0) & (g != 0)",
            "flag = tl.load(skip)",
            "length = tl.where((g != 0) & (flag == 0), size, 0)",
            f"row = places + record * {width}",
            f"value = values + record % members * {len(self.columns)}",
        ]
        if not self.program.results:
            return
        # Of a record's chunks one counts the skipped update; the others read t only if it is not skipped.
        self.lines += [
            "missed = tl.load(skipped + record)",
            "t = tl.load(begun + record) - missed",
            "tl.store(skipped + record, missed + 1, mask=first & (flag != 0))",
        ]
        if self.stochastic:  # see `rounding.seed`
            self.lines.append(f"seed = (t * {0x9E3779B1} + tl.load(row + {width - 1})) & {rounding.BITS}")

    def _uniform(self, op: Operation) -> str:
        if op.name == "constant":
            return f"tl.full((), {self._number(op.value)}, tl.float64)"
        if op.name != "input":
            return self._operation(op, [f"v{i}" for i in op.inputs], "tl.float64")
        if op.value == "t":
            return "t.to(tl.float64)"
        if op.value in self.states:
            place = len(self.others) + self.states.index(op.value)
            return f"tl.load(tl.load(row + {place}).to(tl.pointer_type(tl.float64)))"
        return f"tl.load(value + {self.columns.index(op.value)})"

    def _store_scalars(self) -> None:
        """By the chunk that holds the record's first element, to a table that no other chunk reads."""
        for number, name in enumerate(self.states):
            after = self._number_of(
                f"v{self.program.results[name]}", self.program.results[name], "tl.float64"
            )
            place = next(i for i, op in enumerate(self.program.operations) if op.value == name)
            self.lines.append(
                f"tl.store(new + record * {len(self.states)} + {number}, "
                f"tl.where(flag == 0, {after}, v{place}), mask=first)"
            )

    def _prepare(self) -> None:
        """What the loops use: numbers in their type, reciprocals, addresses, and where the first one ends."""
        operations = self.program.operations
        inner = [op for op in operations if not op.uniform]
        used = {i for op in inner for i in op.inputs} | set(self.program.results.values())
        divisors = {op.inputs[1] for op in inner if op.name == "div"}
        for i in sorted(used):
            if operations[i].uniform:
                truth = operations[i].name in TRUTHS
                self.lines.append(f"u{i} = v{i}" if truth else f"u{i} = v{i}.to({self.real})")
            if operations[i].uniform and i in divisors:
                self.lines.append(
                    f"r{i} = (1.0 / {self._number_of(f'v{i}', i, 'tl.float64')}).to({self.real})"
                )
        for k, name in enumerate(self.program.elements):
            where = "g" if name == "g" else f"tl.load(row + {self.others.index(name)})"
            self.lines.append(f"a{k} = {where}")
        together = " | ".join(f"a{k}" for k in range(len(self.program.elements)))
        self.lines.append(f"whole = tl.where((({together}) & 15) == 0, length // {BLOCK} * {BLOCK}, 0)")

    # -- once a block -----------------------------------------------------------------------------------

    def _loop(self, kind: str, block: int, first: str, end: str) -> None:
        """One of the two loops; it adds up g² in `kind`."""
        whole = kind == "a"
        self.lines += [f"{kind} = tl.zeros(({block},), {self.real})", f"{kind}o = tl.arange(0, {block})"]
        for k, name in enumerate(self.program.elements):
            stored = FLOATS.get(self.types[name], "tl.uint16")
            pointer = f"a{k}.to(tl.pointer_type({stored}))"
            pointer = f"tl.multiple_of({pointer}, 16)" if whole else pointer
            self.lines.append(f"{kind}p{k} = {pointer} + start")
        self.lines.append(f"for i in range({first}, {end}, {block}):")
        outside, self.lines = self.lines, []
        self.mask = "" if whole else ", mask=inside"
        if not whole:
            self.lines.append(f"inside = i + {kind}o < length")
        at = {name: f"{kind}p{k} + i + {kind}o" for k, name in enumerate(self.program.elements)}
        for place, op in enumerate(self.program.operations):
            if op.name == "input" and not op.uniform:
                self._load(place, at[op.value], self.types[op.value])
            elif not op.uniform:
                x = [f"u{i}" if self.program.operations[i].uniform else f"x{i}" for i in op.inputs]
                expression = self._operation(op, x, self.real)
                self.lines.append(f"x{place} = {expression}")
            if op.value == "g":
                self.lines.append(f"{kind} += x{place} * x{place}")
        if self.stochastic and torch.bfloat16 in self.types.values():
            self.lines.append(f"element = start + i + {kind}o + seed")
        for salt, (name, place) in enumerate(self.program.results.items()):
            if name in at:
                self._store(place, at[name], self.types[name], salt)
        self.lines = outside + [f"    {line}" for line in self.lines]

    def _load(self, place: int, at: str, kind: torch.dtype) -> None:
        other = ", other=0" if self.mask else ""
        self.lines.append(f"x{place} = tl.load({at}{self.mask}{other})")
        if kind is torch.bfloat16:  # the upper half of a float32
            self.lines.append(f"x{place} = (x{place}.to(tl.uint32) << 16).to(tl.float32, bitcast=True)")
        if kind is torch.float16 or self.real == "tl.float64":
            self.lines.append(f"x{place} = x{place}.to({self.real})")

    def _store(self, place: int, at: str, kind: torch.dtype, salt: int) -> None:
        name = f"u{place}" if self.program.operations[place].uniform else f"x{place}"
        value = self._number_of(name, place, self.real)
        if kind is torch.bfloat16:
            self._bfloat16(value, salt)
            value = "bits"
        else:
            value = f"{value}.to({FLOATS[kind]})"
        self.lines.append(f"tl.store({at}, {value}{self.mask})")

    def _bfloat16(self, value: str, salt: int) -> None:
        """`bits`: rounded to the nearest (to even at a tie), or by 16 random bits; NaN stays."""
        self.lines += [f"wide = {value}.to(tl.float32)", "bits = wide.to(tl.uint32, bitcast=True)"]
        noise = f"((bits >> 16) & 1) + {0x7FFF}"
        if self.stochastic:  # see `rounding.noise`
            salted = (rounding.SALT * (salt + 1)) & rounding.BITS
            self.lines.append(f"noise = (element + {salted}).to(tl.uint32)")
            for shift, factor in rounding.MIX:
                factor = f"tl.full((), {factor}, tl.uint32)"
                self.lines.append(f"noise = core.mul(noise ^ (noise >> {shift}), {factor}, {WRAPS})")
            noise = "noise >> 16"
        self.lines.append(f"rounded = core.add(bits, {noise}, {WRAPS}) >> 16")
        self.lines.append(f"bits = tl.where(wide != wide, {0x7FC0}, rounded).to(tl.uint16)")

    # -- single operations ------------------------------------------------------------------------------

    def _operation(self, op: Operation, x: list[str], real: str) -> str:
        """The expression of an operation on these names; may write lines of its own before it."""
        if op.name == "where":
            condition = self._truth_of(x[0], op.inputs[0])
            a, b = (self._number_of(x[k], op.inputs[k], real) for k in (1, 2))
            return f"tl.where({condition}, {a}, {b})"
        if op.name in ("and", "or"):
            a, b = (self._truth_of(name, i) for name, i in zip(x, op.inputs, strict=True))
            return f"{a} {SYMBOLS[op.name]} {b}"
        x = [self._number_of(name, i, real) for name, i in zip(x, op.inputs, strict=True)]
        if op.name == "div" and x[1].startswith("u"):  # a product is quicker
            return f"{x[0]} * {x[1].replace('u', 'r', 1)}"
        if op.name in SYMBOLS:
            return f"{x[0]} {SYMBOLS[op.name]} {x[1]}"
        if op.name in ("max", "min"):  # NaN if either is
            beyond = f"({x[0]} {'>' if op.name == 'max' else '<'} {x[1]})"
            return f"tl.where({beyond} | ({x[0]} != {x[0]}), {x[0]}, {x[1]})"
        return getattr(self, f"_{op.name}")(op, x, real)

    def _neg(self, op: Operation, x: list[str], real: str) -> str:
        return f"-{x[0]}"

    def _abs(self, op: Operation, x: list[str], real: str) -> str:
        return f"tl.abs({x[0]})"

    def _exp(self, op: Operation, x: list[str], real: str) -> str:
        return f"tl.exp({x[0]})"

    def _log(self, op: Operation, x: list[str], real: str) -> str:
        return f"tl.log({x[0]})"

    def _sqrt(self, op: Operation, x: list[str], real: str) -> str:
        # Of float32 tl.sqrt is an approximation that takes the smallest numbers for 0.
        return f"tl.sqrt({x[0]})" if real == "tl.float64" else f"tl.sqrt_rn({x[0]})"

    def _sign(self, op: Operation, x: list[str], real: str) -> str:
        return f"({x[0]} > 0).to({real}) - ({x[0]} < 0).to({real})"

    def _tanh(self, op: Operation, x: list[str], real: str) -> str:
        """By exp, which is exact enough far from 0, and by Lambert's continued fraction near it."""
        size, near = self._named(f"tl.abs({x[0]})"), "13.0"
        for k in (11, 9, 7, 5, 3, 1):
            near = f"({k}.0 + {x[0]} * {x[0]} / {near})"
        far = self._named(f"1.0 - 2.0 / (tl.exp(2.0 * {size}) + 1.0)")
        return f"tl.where({size} < 0.5, {x[0]} / {near}, tl.where({x[0]} < 0, -{far}, {far}))"

    def _pow(self, op: Operation, x: list[str], real: str) -> str:
        exponent = self.program.operations[op.inputs[1]]
        if exponent.name == "constant" and abs(exponent.value) in (0.5, 1.0, 2.0, 3.0):
            size = abs(exponent.value)
            power = self._sqrt(op, x, real) if size == 0.5 else " * ".join(x[:1] * int(size))
            return f"1.0 / ({power})" if exponent.value < 0 else power
        base, y = x
        size = self._named(f"tl.where({y} == 0, 1.0, tl.exp2({y} * tl.log2(tl.abs({base}))))")
        odd = self._named(f"tl.where(tl.floor({y} * 0.5) * 2.0 != {y}, -{size}, {size})")
        signed = self._named(f"tl.where(tl.floor({y}) != {y}, {self._number(float('nan'))}, {odd})")
        return f"tl.where({base} < 0, {signed}, {size})"

    def _named(self, expression: str) -> str:
        """A new name for it."""
        self.names += 1
        self.lines.append(f"n{self.names} = {expression}")
        return f"n{self.names}"

    # -- kinds of values --------------------------------------------------------------------------------

    def _number(self, value: float) -> str:
        return repr(value) if abs(value) < float("inf") else f'float("{value}")'

    def _number_of(self, name: str, place: int, real: str) -> str:
        """A value as a number of this type."""
        own = "tl.float64" if name[0] == "v" else self.real
        if self.program.operations[place].name in TRUTHS or own != real:
            return f"{name}.to({real})"
        return name

    def _truth_of(self, name: str, place: int) -> str:
        return name if self.program.operations[place].name in TRUTHS else f"({name} != 0)"
