"""Prints a program as LLVM IR and compiles it in the process: one pass over memory, whatever the rule.

The kernel is a worker that any number of threads run at once. Each takes the chunks of its own part of
memory, so that what it updated last is still in its core's cache, and then those that another has not come
to. It computes the uniform operations of a chunk's tensor in float64, then updates its elements: loads
every input once, computes in float32 (float64 for float64 weights), stores every result once, and adds up
the squares of the gradient, or what the program says, on the way.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from llvmlite import binding, ir

from stepwell.engine import rounding
from stepwell.engine.program import COMPARISONS, Operation, Program

CHUNK = 1 << 13  # elements that a thread takes at a time

F64, F32, F16 = ir.DoubleType(), ir.FloatType(), ir.HalfType()
I64, I32, I16, I1 = (ir.IntType(bits) for bits in (64, 32, 16, 1))
POINTER, VOID = ir.PointerType(), ir.VoidType()
WIDTHS = [F16, F32, F64]
STORED = {torch.float64: F64, torch.float32: F32, torch.float16: F16}

# The places of a job, eight bytes each.
ARRIVED, THREADS, PARTS, CHUNK_TABLE, POINTERS, SCALARS, NEW_SCALARS, PARTIALS, SEEDS = range(9)
# Those of a thread's part of the chunks: the next to take and the end. Each part has a cache line alone.
NEXT, END, PART = 0, 1, 8

CONTRACT = ("contract",)  # a · b + c may round once
DIVISION = ("contract", "arcp")  # and a division by a uniform number be a product with its reciprocal
ADD_UP = ("contract", "reassoc")  # so that a sum can be kept in several lanes

_lock = threading.Lock()
_kernels: dict[object, Kernel] = {}


class Kernel:
    """Machine code of one program for one choice of element types; `address` is its worker.

    totals: how many numbers it adds up over a chunk.
    """

    def __init__(self, module: ir.Module, totals: int) -> None:
        self.totals = totals
        machine = _machine()
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = True
        builder = binding.create_pass_builder(machine, options)
        builder.getModulePassManager().run(parsed, builder)
        self._engine = binding.create_mcjit_compiler(parsed, machine)  # held: it owns the code, and `machine`
        self._engine.finalize_object()
        self.address = self._engine.get_function_address("worker")


def kernel(program: Program, types: Mapping[str, torch.dtype], stochastic: bool = False) -> Kernel:
    """The kernel of a program whose element inputs have these types; compiled once a process.

    stochastic: bfloat16 results are rounded up or down by chance, in proportion to how near each is.
    Raises ValueError for an element type that is not float64, float32, bfloat16 or float16.
    """
    key = (program.operations, program.totals, *program.results.items(), *types.items(), stochastic)
    with _lock:  # LLVM's parser and optimizer are not made for two threads at once
        if key not in _kernels:
            _kernels[key] = Kernel(_Printer(program, types, stochastic).module, len(program.totals) or 1)
        return _kernels[key]


@cache
def _host() -> tuple[binding.Target, dict[str, str]]:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    about = {"cpu": binding.get_host_cpu_name(), "features": binding.get_host_cpu_features().flatten()}
    return binding.Target.from_default_triple(), about


def _machine() -> binding.TargetMachine:
    """This processor; a new one each time, since who compiles with it frees it with the code."""
    target, about = _host()
    return target.create_target_machine(cpu=about["cpu"], features=about["features"], opt=3)


@cache
def _data_layout() -> str:
    return str(_machine().target_data)


class _Printer:
    def __init__(self, program: Program, types: Mapping[str, torch.dtype], stochastic: bool) -> None:
        for name, kind in types.items():
            if kind not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
                raise ValueError(f"{name} is {kind}")
        self.program, self.types, self.stochastic = program, types, stochastic
        self.real = F64 if torch.float64 in types.values() else F32
        self.totals = len(program.totals) or 1
        self.module = ir.Module("stepwell")
        self.module.triple = binding.get_default_triple()
        self.module.data_layout = _data_layout()
        self._worker(self._update())

    # -- the update of one chunk ----------------------------------------------------------------------

    def _update(self) -> ir.Function:
        """void update(n, first, seed, scalars, new scalars, totals, one pointer an element input)"""
        names = self.program.elements
        kind = ir.FunctionType(VOID, [I64, I64, I64, POINTER, POINTER, POINTER, *[POINTER for _ in names]])
        function = ir.Function(self.module, kind, "update")
        function.linkage = "internal"
        function.attributes.add("noinline")
        n, first, seed, scalars, new_scalars, totals, *pointers = function.args
        for pointer in function.args[3:]:
            pointer.add_attribute("noalias")
        b = ir.IRBuilder(function.append_basic_block("entry"))
        values: dict[int, Any] = {}
        for place, operation in enumerate(self.program.operations):
            if operation.uniform:
                values[place] = self._operation(b, operation, values, F64, scalars)
        self._store_scalars(b, first, new_scalars, values)
        inner = {p: self._to(b, v, self.real) for p, v in values.items()}
        entry, loop, end = b.block, b.append_basic_block("loop"), b.append_basic_block("end")
        b.cbranch(b.icmp_signed("<", ir.Constant(I64, 0), n), loop, end)

        b.position_at_end(loop)
        i, sums = b.phi(I64), [b.phi(self.real) for _ in range(self.totals)]
        where = dict(zip(names, pointers, strict=True))
        for place, operation in enumerate(self.program.operations):
            if operation.name == "input" and not operation.uniform:
                inner[place] = self._load(b, where[operation.value], i, self.types[operation.value])
            elif not operation.uniform:
                inner[place] = self._operation(b, operation, inner, self.real, scalars)
            if operation.value == "g":
                g = inner[place]
        add, multiply = cast(Any, b.fadd), cast(Any, b.fmul)
        terms = [inner[place] for place in self.program.totals] or [multiply(g, g, flags=CONTRACT)]
        sums_now = [
            add(total, self._to(b, term, self.real), flags=ADD_UP)
            for total, term in zip(sums, terms, strict=True)
        ]
        for salt, (name, place) in enumerate(self.program.results.items()):
            if name in where:
                noise = self._noise(b, b.add(first, i), seed, salt) if self.stochastic else None
                self._store(b, self._to(b, inner[place], self.real), where[name], i, self.types[name], noise)
        following = b.add(i, ir.Constant(I64, 1))
        b.cbranch(b.icmp_signed("<", following, n), loop, end)
        i.add_incoming(ir.Constant(I64, 0), entry)
        i.add_incoming(following, loop)
        b.position_at_end(end)
        ends = [b.phi(self.real) for _ in sums]
        for before, after, now in zip(sums, ends, sums_now, strict=True):
            for phi in (before, after):
                phi.add_incoming(ir.Constant(self.real, 0.0), entry)
                phi.add_incoming(now, loop)
        for number, result in enumerate(ends):
            b.store(self._to(b, result, F64), self._at(b, totals, F64, ir.Constant(I64, number)))
        b.ret_void()
        return function

    def _store_scalars(self, b: ir.IRBuilder, first: Any, place: Any, values: Any) -> None:
        """The new scalars of the state, written by the chunk that holds the tensor's first element."""
        new = [v for k, v in self.program.results.items() if k in self.program.scalars]
        if new:
            with b.if_then(b.icmp_signed("==", first, ir.Constant(I64, 0))):
                for number, result in enumerate(new):
                    b.store(
                        self._to(b, values[result], F64), self._at(b, place, F64, ir.Constant(I64, number))
                    )

    # -- single operations ----------------------------------------------------------------------------

    def _operation(
        self, b: ir.IRBuilder, op: Operation, values: Mapping[int, Any], real: Any, scalars: Any
    ) -> Any:
        if op.name == "constant":
            return ir.Constant(real, op.value)
        if op.name == "input":
            number = self.program.scalars.index(op.value)
            return b.load(self._at(b, scalars, F64, ir.Constant(I64, number)), typ=F64)
        x = [values[i] for i in op.inputs]
        if op.name == "where":
            return b.select(self._truth(b, x[0]), self._to(b, x[1], real), self._to(b, x[2], real))
        if op.name in ("and", "or"):
            return getattr(b, op.name + "_")(self._truth(b, x[0]), self._truth(b, x[1]))
        x = [self._to(b, value, real) for value in x]
        if op.name in COMPARISONS:
            sign = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}[op.name]
            return b.fcmp_unordered(sign, *x) if op.name == "ne" else b.fcmp_ordered(sign, *x)
        if op.name in ("add", "sub", "mul"):
            make: Any = {"add": b.fadd, "sub": b.fsub, "mul": b.fmul}[op.name]
            return make(*x, flags=CONTRACT)
        if op.name == "div":
            divide: Any = b.fdiv
            by_uniform = not op.uniform and self.program.operations[op.inputs[1]].uniform
            return divide(*x, flags=DIVISION if by_uniform else ())
        if op.name == "neg":
            return b.fneg(x[0])
        if op.name in ("max", "min"):  # NaN if either is
            first = b.fcmp_ordered(">" if op.name == "max" else "<", *x)
            return b.select(b.or_(first, b.fcmp_unordered("uno", x[0], x[0])), x[0], x[1])
        if op.name == "sign":
            zero, one = ir.Constant(real, 0.0), ir.Constant(real, 1.0)
            negative = b.select(b.fcmp_ordered("<", x[0], zero), ir.Constant(real, -1.0), zero)
            return b.select(b.fcmp_ordered(">", x[0], zero), one, negative)
        if op.name == "pow":
            return self._power(b, op, x, real)
        return self._intrinsic(b, {"abs": "fabs"}.get(op.name, op.name), real, x)

    def _power(self, b: ir.IRBuilder, op: Operation, x: list[Any], real: Any) -> Any:
        exponent = self.program.operations[op.inputs[1]]
        if exponent.name == "constant" and abs(exponent.value) in (0.5, 1.0, 3.0):
            size = abs(exponent.value)
            if size == 0.5:
                power = self._intrinsic(b, "sqrt", real, x[:1])
            else:
                power = x[0] if size == 1 else b.fmul(x[0], b.fmul(x[0], x[0]))
            return b.fdiv(ir.Constant(real, 1.0), power) if exponent.value < 0 else power
        return self._intrinsic(b, "pow", real, x)

    def _intrinsic(self, b: ir.IRBuilder, name: str, real: Any, x: list[Any]) -> Any:
        kind = ir.FunctionType(real, [real] * len(x))
        return b.call(self._declared(f"llvm.{name}.{'f64' if real is F64 else 'f32'}", kind), x)

    def _declared(self, name: str, kind: ir.FunctionType) -> ir.Function:
        known = self.module.globals.get(name)
        return known if known is not None else ir.Function(self.module, kind, name)

    def _truth(self, b: ir.IRBuilder, x: Any) -> Any:
        return x if x.type == I1 else b.fcmp_unordered("!=", x, ir.Constant(x.type, 0.0))

    def _to(self, b: ir.IRBuilder, x: Any, real: Any) -> Any:
        if x.type == real:
            return x
        if x.type == I1:
            return b.uitofp(x, real)
        if {x.type, real} == {F64, F16}:  # by way of float32: processors have no other
            x = self._to(b, x, F32)
        return b.fptrunc(x, real) if WIDTHS.index(x.type) > WIDTHS.index(real) else b.fpext(x, real)

    # -- memory ---------------------------------------------------------------------------------------

    def _at(self, b: ir.IRBuilder, base: Any, kind: Any, i: Any) -> Any:
        return b.gep(base, [i], source_etype=kind)

    def _load(self, b: ir.IRBuilder, base: Any, i: Any, kind: torch.dtype) -> Any:
        if kind is torch.bfloat16:  # the upper half of a float32
            bits = b.zext(b.load(self._at(b, base, I16, i), typ=I16), I32)
            return self._to(b, b.bitcast(b.shl(bits, ir.Constant(I32, 16)), F32), self.real)
        return self._to(b, b.load(self._at(b, base, STORED[kind], i), typ=STORED[kind]), self.real)

    def _store(self, b: ir.IRBuilder, x: Any, base: Any, i: Any, kind: torch.dtype, noise: Any) -> None:
        if kind is torch.bfloat16:
            b.store(self._bfloat16(b, self._to(b, x, F32), noise), self._at(b, base, I16, i))
        else:
            b.store(self._to(b, x, STORED[kind]), self._at(b, base, STORED[kind], i))

    def _bfloat16(self, b: ir.IRBuilder, x: Any, noise: Any) -> Any:
        """Rounds to the nearest (to even at a tie), or by 16 random bits; infinity and NaN stay."""
        bits = b.bitcast(x, I32)
        upper = b.lshr(bits, ir.Constant(I32, 16))
        if noise is None:
            noise = b.add(ir.Constant(I32, 0x7FFF), b.and_(upper, ir.Constant(I32, 1)))
        rounded = b.lshr(b.add(bits, noise), ir.Constant(I32, 16))
        size = b.and_(bits, ir.Constant(I32, 0x7FFFFFFF))
        special = b.icmp_unsigned(">=", size, ir.Constant(I32, 0x7F800000))
        is_nan = b.icmp_unsigned(">", size, ir.Constant(I32, 0x7F800000))
        kept = b.select(is_nan, b.or_(upper, ir.Constant(I32, 0x40)), upper)
        return b.trunc(b.select(special, kept, rounded), I16)

    def _noise(self, b: ir.IRBuilder, element: Any, seed: Any, salt: int) -> Any:
        """16 random bits for an element: see `rounding.noise`."""
        x = b.add(b.trunc(element, I32), b.trunc(seed, I32))
        x = b.add(x, ir.Constant(I32, (rounding.SALT * (salt + 1)) & rounding.BITS))
        for shift, factor in rounding.MIX:
            x = b.mul(b.xor(x, b.lshr(x, ir.Constant(I32, shift))), ir.Constant(I32, factor))
        return b.lshr(x, ir.Constant(I32, 16))

    # -- the worker -----------------------------------------------------------------------------------

    def _worker(self, update: ir.Function) -> None:
        """void worker(job): takes chunks (record, start, length) until none is left."""
        names, bytes_of = self.program.elements, {n: k.itemsize for n, k in self.types.items()}
        function = ir.Function(self.module, ir.FunctionType(VOID, [POINTER]), "worker")
        (job,) = function.args
        entry, turn, take, work, end = (
            function.append_basic_block(name) for name in ("entry", "turn", "take", "work", "end")
        )
        b = ir.IRBuilder(entry)

        def number(value: int) -> ir.Constant:
            return ir.Constant(I64, value)

        def field(place: int, kind: Any) -> Any:
            return b.load(self._at(b, job, I64, number(place)), typ=kind)

        threads = field(THREADS, I64)
        tables = (PARTS, CHUNK_TABLE, POINTERS, SCALARS, NEW_SCALARS, PARTIALS, SEEDS)
        parts, chunk_table, pointers, scalars, new_scalars, partials, seeds = (
            field(t, POINTER) for t in tables
        )
        mine = b.atomic_rmw("add", self._at(b, job, I64, number(ARRIVED)), number(1), "monotonic")
        last = b.add(mine, threads)
        b.branch(turn)

        b.position_at_end(turn)  # to the next part, the own one first
        turns = b.phi(I64)
        part = self._at(b, parts, I64, b.mul(b.urem(turns, threads), number(PART)))
        stop = b.load(self._at(b, part, I64, number(END)), typ=I64)
        b.cbranch(b.icmp_signed("<", turns, last), take, end)
        turns.add_incoming(mine, entry)

        b.position_at_end(take)
        c = b.atomic_rmw("add", self._at(b, part, I64, number(NEXT)), number(1), "monotonic")
        following = b.add(turns, number(1))
        turns.add_incoming(following, take)
        b.cbranch(b.icmp_signed("<", c, stop), work, turn)

        b.position_at_end(work)
        line = b.mul(c, number(3))
        record, start, length = (
            b.load(self._at(b, chunk_table, I64, b.add(line, number(k))), typ=I64) for k in range(3)
        )
        row = self._at(b, scalars, F64, b.mul(record, number(len(self.program.scalars))))
        kept = sum(k in self.program.scalars for k in self.program.results)
        new_row = self._at(b, new_scalars, F64, b.mul(record, number(kept)))
        places = []
        for k, name in enumerate(names):
            place = self._at(b, pointers, POINTER, b.add(b.mul(record, number(len(names))), number(k)))
            offset = b.mul(start, number(bytes_of[name]))
            places.append(self._at(b, b.load(place, typ=POINTER), ir.IntType(8), offset))
        seed = b.load(self._at(b, seeds, I64, record), typ=I64)
        totals = self._at(b, partials, F64, b.mul(c, number(self.totals)))
        b.call(update, [length, start, seed, row, new_row, totals, *places])
        b.branch(take)
        b.position_at_end(end)
        b.ret_void()
