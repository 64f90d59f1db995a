"""The update of a stack's weights: each member by its own rule, with its own hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.fused import Fused
from stepwell.engine.stacked import Stacked
from stepwell.engine.state import AVERAGE, Unsupported
from stepwell.engine.text import Folded
from stepwell.optim import configs as optimizers
from stepwell.optim.clipping import clipped_by_unit
from stepwell.optim.max_norm import max_norm
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.optim.schedule_free import ScheduleFree
from stepwell.recipe import Recipe

# The parts of `Folded` beside the scale, in the order of RuleOptimizer.today.
AROUND = ("clip_value", "l2", "decay", "l1", "ema")


def prototypes(recipes: Sequence[Recipe], parameters: Sequence[Tensor]) -> list[RuleOptimizer]:
    """The optimizer of each recipe on `parameters`, which it never steps: it knows rules and values.

    Recipes with the same optimizer and regularization share one.
    """
    made: dict[str, RuleOptimizer] = {}
    for recipe in recipes:
        key = kind(recipe)
        if key not in made:
            averaging = recipe.training.average is not None
            made[key] = optimizers.build(recipe.optimizer, parameters, recipe.regularize, averaging)
    return [made[kind(recipe)] for recipe in recipes]


def kind(recipe: Recipe) -> str:
    """What the recipe says of its optimizer."""
    parts = [recipe.optimizer.model_dump_json(), recipe.regularize.model_dump_json()]
    # A schedule of the momentum changes the optimizer's own.
    moving = getattr(recipe.schedule, "low_momentum", None) is not None
    parts += [recipe.schedule.model_dump_json()] if moving else []
    return " ".join([*parts, str(recipe.training.average is not None)])


def signature(optimizer: RuleOptimizer) -> str:
    """Members with the same one are updated together: the same rules, and the same parts around them."""
    groups = [
        (
            optimizer.rule_of(group).name,
            len(group["params"]),
            *(group[part] is None for part in ("clip_norm", "clip_adaptive", "max_norm", "ema")),
        )
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__} {groups}"


@dataclass
class Now:
    """What belongs to one update: each member's rate (K,), and momentum and average's share or None."""

    rates: Tensor
    momentum: list[float | None]
    kept: list[float | None]


class Updates:
    """Updates stacked weights (K, …) in place; members with the same `signature` must lie side by side."""

    def __init__(
        self, weights: Sequence[Tensor], protos: Sequence[RuleOptimizer], parameters: Sequence[Tensor]
    ) -> None:
        """parameters: those that the prototypes were made with, in the order of the weights."""
        self.weights, self.protos, self.parameters = list(weights), list(protos), list(parameters)
        self.parts: list[Part] = []
        start = 0
        for _, run in groupby(protos, signature):
            own = list(run)
            self.parts.append(Part(self.weights, own, parameters, slice(start, start + len(own))))
            start += len(own)

    def step(self, gradients: Sequence[Tensor | None], now: Now) -> Tensor:
        """Makes one update; returns the norm of each member's gradients, (K,) float64."""
        with torch.no_grad():
            return torch.cat([part.step(gradients, now) for part in self.parts])

    def evaluated(self) -> list[Tensor]:
        """The weights to evaluate: averages where members keep one, those themselves where not."""
        if not any(part.has_others for part in self.parts):
            return self.weights
        with torch.no_grad():
            own = [part.evaluated() for part in self.parts]
            return [torch.cat(column) for column in zip(*own, strict=True)]

    def live(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name."""
        return {
            f"part{i}.group{j}.{index}.{name}": value
            for i, part in enumerate(self.parts)
            for j, (group, engine) in enumerate(zip(part.groups, part.engines, strict=True))
            for index, state in zip(group, engine.state, strict=True)
            for name, value in state.items()
        }

    def steps(self) -> list[list[list[int]]]:
        """The number of updates of each parameter."""
        return [[list(engine.steps) for engine in part.engines] for part in self.parts]

    def load(self, tensors: dict[str, Tensor], steps: list[list[list[int]]]) -> None:
        """Goes on with this state."""
        with torch.no_grad():
            for name, value in self.live().items():
                value.copy_(tensors[name])
        for part, own in zip(self.parts, steps, strict=True):
            for engine, counted in zip(part.engines, own, strict=True):
                engine.steps[:] = counted

    def kept(self, weights: Sequence[Tensor], rows: list[int]) -> Updates:
        """The same for the members of these rows alone, whose weights `weights` are."""
        after = Updates(weights, [self.protos[row] for row in rows], self.parameters)
        remaining = {part: [r - part.rows.start for r in rows if r in part.range] for part in self.parts}
        there = [part for part in self.parts if remaining[part]]
        # Those whose parts stood side by side may have become one part; the state is carried over by member.
        olds = [(part, row) for part in there for row in remaining[part]]
        news = [(part, row) for part in after.parts for row in range(part.rows.stop - part.rows.start)]
        with torch.no_grad():
            for (old, source), (new, target) in zip(olds, news, strict=True):
                for before, engine in zip(old.engines, new.engines, strict=True):
                    engine.steps[:] = before.steps
                    for was, state in zip(before.state, engine.state, strict=True):
                        for name, value in state.items():
                            value[target].copy_(was[name][source])
        return after


class Part:
    """The members of some rows: one rule a parameter group, the hyperparameters of each member its own."""

    def __init__(
        self, weights: list[Tensor], protos: list[RuleOptimizer], parameters: Sequence[Tensor], rows: slice
    ) -> None:
        self.protos, self.rows, self.range = protos, rows, range(rows.start, rows.stop)
        first = protos[0]
        order = {id(p): place for place, p in enumerate(parameters)}
        self.groups = [[order[id(p)] for p in group["params"]] for group in first.param_groups]
        self.owns = [[weights[i][rows] for i in group] for group in self.groups]
        self.engines: list[Any] = []
        self.plain = not any(_moves(proto) for proto in {id(p): p for p in protos}.values())
        self.values: list[tuple[dict[str, Any], list[Any]]] = []
        self._read()
        for number, (own, (h, _)) in enumerate(zip(self.owns, self.values, strict=True)):
            rule = first.rule_of(first.param_groups[number])
            average = first.param_groups[number]["ema"] is not None
            self.engines.append(_engine(rule, own, h, average, len(protos)))
        self.has_others = isinstance(first, ScheduleFree) or first.param_groups[0]["ema"] is not None

    def __hash__(self) -> int:
        return id(self)

    def _read(self) -> None:
        """Asks the prototypes for the hyperparameters: a number where all have the same, else a tensor."""
        self.values = []
        for index in range(len(self.groups)):
            read = {id(proto): proto.today(index) for proto in self.protos}
            told = [read[id(proto)] for proto in self.protos]
            h = {name: _column([own[name] for own, _ in told]) for name in told[0][0]}
            around = [_column([own[place] for _, own in told]) for place in range(len(AROUND))]
            self.values.append((h, around))

    def step(self, gradients: Sequence[Tensor | None], now: Now) -> Tensor:
        """Makes one update of these rows; returns the norm of each member's gradients."""
        rates = now.rates[self.rows]
        momentum, kept = now.momentum[self.rows], now.kept[self.rows]
        if not self.plain or any(value is not None for value in momentum):
            self._follow(rates, momentum)
        first = self.protos[0]
        work = []
        for number, (indices, engine) in enumerate(zip(self.groups, self.engines, strict=True)):
            own = [None if gradients[i] is None else gradients[i][self.rows] for i in indices]  # pyright: ignore
            if first.param_groups[number]["clip_adaptive"]:
                own = self._clipped_by_unit(number, own)
            looked = engine.look(own) if isinstance(engine, Fused) else own
            work.append((engine, looked, own))
        norm = None
        if any(group["clip_norm"] is not None for group in first.param_groups):
            norm = _total([_norm(engine, looked) for engine, looked, _ in work])
        norms, hs, folds = [], [], []
        for number, (h, around) in enumerate(self.values):
            fold = dict(zip(AROUND, around, strict=True))
            if kept[0] is not None:
                fold["ema"] = _column(kept)
            folds.append(Folded(self._scale(number, norm), **fold))
            hs.append({**h, "lr": rates})
        if self.engines[0].rule.sums is not None:
            parts = [
                engine.sums(own, h, fold) for (engine, own, _), h, fold in zip(work, hs, folds, strict=True)
            ]
            totals = tuple(sum(column) for column in zip(*filter(None, parts), strict=True))
            hs = [{**h, "sums": totals} for h in hs]
        for (engine, looked, _), h, fold in zip(work, hs, folds, strict=True):
            if isinstance(engine, Fused):
                engine.update(looked, h, fold, None)
                norms.append(looked.norm)
            else:
                norms.append(engine.step(looked, h, fold))
        self._shorten(work, folds)
        return _total(norms) if norms else torch.zeros(len(self.protos), dtype=torch.float64)

    def _follow(self, rates: Tensor, momentum: list[float | None]) -> None:
        """Puts today's rate and momentum into each prototype, and asks it anew."""
        told: list[list[Any]] = [[] for _ in self.groups]
        for proto, rate, now in zip(self.protos, rates.tolist(), momentum, strict=True):
            for index, group in enumerate(proto.param_groups):
                group["lr"] = rate
                if now is not None:
                    has = "momentum" in group
                    group.update({"momentum": now} if has else {"betas": (now, *group["betas"][1:])})
                told[index].append(proto.today(index))
        self.values = []
        for own in told:
            h = {name: _column([values[name] for values, _ in own]) for name in own[0][0]}
            self.values.append((h, [_column([around[i] for _, around in own]) for i in range(len(AROUND))]))

    def _scale(self, number: int, norm: Tensor | None) -> Any:
        """What each member's gradients are multiplied with, as RuleOptimizer does it."""
        limits = [proto.param_groups[number]["clip_norm"] for proto in self.protos]
        if norm is None or limits[0] is None:
            return 1.0
        return (torch.tensor(limits, dtype=torch.float64, device=norm.device) / (norm + 1e-6)).clamp(max=1.0)

    def _clipped_by_unit(self, number: int, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """Adaptive clipping, member by member: each has its own share."""
        ends = []
        for p, g in zip(self.owns[number], gradients, strict=True):
            if g is None:
                ends.append(None)
                continue
            shares = [proto.param_groups[number]["clip_adaptive"] for proto in self.protos]
            each = [clipped_by_unit([w], [h], s)[0] for w, h, s in zip(p, g, shares, strict=True)]
            ends.append(torch.stack(each))  # pyright: ignore[reportArgumentType]
        return ends

    def _shorten(self, work: list[Any], folds: list[Folded]) -> None:
        """Holds each member's units to its own `max_norm`, and its average to the shortened weights'."""
        for number, (engine, _, gradients) in enumerate(work):
            limits = [proto.param_groups[number]["max_norm"] for proto in self.protos]
            if limits[0] is None:
                continue
            for p, g, state in zip(engine.parameters, gradients, engine.state, strict=True):
                if p.dim() < 3 or g is None:
                    continue
                short = torch.vmap(max_norm)(p, torch.tensor(limits, dtype=p.dtype, device=p.device))
                if AVERAGE in state:
                    share = 1 - torch.as_tensor(folds[number].ema, dtype=p.dtype, device=p.device)
                    state[AVERAGE].add_((short - p) * share.reshape(-1, *[1] * (p.dim() - 1)))
                p.copy_(short)

    def evaluated(self) -> list[Tensor]:
        """The weights of these rows to evaluate, in the order of all weights."""
        found: dict[int, Tensor] = {}
        for number, (indices, engine) in enumerate(zip(self.groups, self.engines, strict=True)):
            for index, p, state, steps in zip(
                indices, engine.parameters, engine.state, engine.steps, strict=True
            ):
                value = p.detach()
                if isinstance(self.protos[0], ScheduleFree) and steps:
                    betas = [
                        proto.today(number)[0][proto.interpolation]  # pyright: ignore
                        for proto in self.protos
                    ]
                    beta = torch.tensor(betas, dtype=value.dtype, device=value.device)
                    beta = beta.view(-1, *[1] * (p.dim() - 1))
                    value = value + (1 - 1 / beta) * (state["z"].to(value.dtype) - value)
                elif AVERAGE in state:
                    value = state[AVERAGE]
                found[index] = value
        return [found[index] for index in sorted(found)]


def _moves(optimizer: RuleOptimizer) -> bool:
    """Whether another hyperparameter than the rate changes with the rate."""
    for index, group in enumerate(optimizer.param_groups):
        rate, before = group["lr"], dict(optimizer.today(index)[0])
        group["lr"] = 0.5 * rate
        after = dict(optimizer.today(index)[0])
        group["lr"] = rate
        if {**before, "lr": 0} != {**after, "lr": 0}:
            return True
    return False


def _engine(rule: Any, own: list[Tensor], h: dict[str, Any], average: bool, members: int) -> Any:
    try:
        return Fused(rule, own, h, average, members=members)
    except Unsupported:
        return Stacked(rule, own, h, average, members=members)


def _column(values: Sequence[Any]) -> Any:
    """One number where all are the same, else a tensor with one for each member."""
    if all(value == values[0] for value in values):
        return values[0]
    return torch.tensor([math.inf if v is None else float(v) for v in values], dtype=torch.float64)


def _norm(engine: Any, gradients: Any) -> Any:
    if isinstance(engine, Fused):
        engine.measure(gradients)
        return gradients.norm
    return engine.norm(gradients)


def _total(norms: Sequence[Any]) -> Any:
    parts = [norm for norm in norms if norm is not None]
    return parts[0] if len(parts) == 1 else torch.stack([part.square() for part in parts]).sum(0).sqrt()
