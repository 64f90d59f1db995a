"""Members of one shape as one model whose tensors have the members in their first dimension."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from stepwell.data import counter
from stepwell.data.augment.partners import Mixed
from stepwell.nn import draws, losses
from stepwell.nn.mixed import mixed_loss
from stepwell.nn.network import Network
from stepwell.nn.running_statistics import reestimate
from stepwell.populations.feed import Feed
from stepwell.populations.judge import Judge
from stepwell.populations.member import Member, Outcome, newest_loss
from stepwell.populations.noise import Count, Noise, Supply
from stepwell.populations.rates import Rates
from stepwell.populations.recording import NotRecordable, Program
from stepwell.populations.updates import Updates, prototypes
from stepwell.training import model_file
from stepwell.training.evaluated_weights import samples_of
from stepwell.training.finish import leads
from stepwell.training.reproducible import own_randomness, random_state, restore_random_state, same_arithmetic
from stepwell.training.run import Run, network_of


class Stack:
    """Trains members of one shape together, as `Alone` does one of them.

    Weights, buffers, state and batches of all members lie one behind the other. Forward, loss and backward
    of all are one recorded program; the update is one pass for all members with the same rule. Each member
    has its own seed, order, random numbers, hyperparameters and data; what diverges or has ended goes along
    unseen until it is worth taking the others out.

    members: of one `shape`, those with the same rule side by side. numbers: their places in the population.
    """

    how = "stacked"

    def __init__(self, numbers: Sequence[int], members: Sequence[Member]) -> None:
        self.numbers, self.members, self.count = list(numbers), list(members), len(members)
        self.place = 0  # among the groups of a population
        recipe, data = members[0].recipe, members[0].data
        with own_randomness(recipe.seed, torch.device("cpu")):
            self.run = Run(recipe, data)
            self.network, self.device = self.run.network, self.run.device
            self.random = random_state(self.device)
        self.run.batches.close()
        self.names = list(self.run.parameters)
        self._begin()
        parameters = [self.run.parameters[name] for name in self.names]
        recipes = [member.recipe for member in members]
        self.updates = Updates(self.weights, prototypes(recipes, parameters), parameters)
        self.feed = Feed(members, self.device)
        self.learner = _Learner(self.network, self.feed.standardized)
        self.noise = Noise([counter.key(r.seed, 1) for r in recipes], self.device)
        self.drawn: dict[Any, int] = {}  # random numbers that a batch of this shape asks for
        self.programs: dict[Any, Program] = {}
        learnt = losses.build(recipe.loss, data.task, recipe.regularize.label_smoothing)
        self.learnt: Any = mixed_loss(learnt) if self.feed.mixes else learnt
        self.judge = Judge(self.network, [*self.names, *self.buffers], self.run.sample_loss, self.device)
        self.update, self.end = 0, self.run.updates or 0
        self.rates = Rates(recipes, self.end)
        self.pending: list[tuple[Tensor, Tensor]] = []  # loss and gradient norm since the last check, (K,)
        self.since: list[Tensor] = []  # losses since the last evaluation, (updates, K)
        self.results = [Outcome(0, 0.0, how=self.how) for _ in members]
        self.best: list[Tensor] | None = None  # each member's state at its lowest validation loss
        self.done: dict[int, Outcome] = {}  # of members that were taken out

    def _begin(self) -> None:
        """Stacks the weights and buffers that each member begins with; equal beginnings are made once."""
        made: dict[Any, dict[str, Tensor]] = {}
        states = []
        for member in self.members:
            key = (member.recipe.seed, id(member.data))
            if key not in made:
                with own_randomness(member.recipe.seed, torch.device("cpu")):
                    network, _ = network_of(member.recipe, member.data, self.device)
                own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
                made[key] = {name: value.detach() for name, value in own.items()}
            states.append(made[key])
        rest = [name for name in states[0] if name not in self.run.parameters]
        self.weights = [torch.stack([own[name] for own in states]) for name in self.names]
        self.buffers: dict[str, Tensor] = {n: torch.stack([own[n] for own in states]) for n in rest}

    @property
    def updates_per_epoch(self) -> int:
        """Updates of one pass over a training part."""
        return self.feed.updates_per_epoch

    @property
    def state(self) -> list[Tensor]:
        """Weights and buffers as they are now, of which training goes on."""
        return [*self.weights, *self.buffers.values()]

    @property
    def fraction(self) -> float:
        """How much of the training is done, in [0, 1]."""
        return self.update / self.end

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.update >= self.end or not any(map(self._trains, self._rows))

    @property
    def _rows(self) -> range:
        return range(len(self.members))

    def _trains(self, row: int) -> bool:
        result = self.results[row]
        return result.diverged is None and result.stopped_at is None and not result.ended_early

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """What training goes on in: arithmetic that repeats, and generators that are the stack's own."""
        # A user's own dropout draws from torch's generator, which is the stack's here.
        with own_randomness(self.members[0].recipe.seed, self.device), same_arithmetic(False, False):
            restore_random_state(self.random, self.device)
            try:
                yield
            finally:
                self.random = random_state(self.device)

    # -- training -----------------------------------------------------------------------------------

    def run_to(self, update: float, interrupted: Callable[[], bool]) -> None:
        """Trains until so many updates are made, all have ended, or `interrupted()` is true."""
        training = self.members[0].recipe.training
        with self.surroundings():
            while not self.finished and self.update < update:
                self.step()
                every = training.evaluate_every
                evaluating = self.update >= self.end or (every is not None and self.update % every == 0)
                due = evaluating or self.update % training.log_every == 0
                if due:
                    self._check()
                if evaluating:
                    self._evaluate()
                    self._take_out()
                if interrupted():
                    return

    def step(self) -> None:
        """Makes one update of every member."""
        self.network.train()
        gradients, loss = self._gradients(self.feed.at(self.update))
        norm = self.updates.step(gradients, self.rates.at(self.update, self.updates_per_epoch))
        self.update += 1
        self.pending.append((loss, norm))

    def _gradients(self, batches: list[Any]) -> tuple[list[Tensor | None], Tensor]:
        """The gradients of each member's mean loss over its batches, and that loss."""
        samples = sum(x.shape[1] for x, _ in batches)
        x, targets = batches[0]
        gradients, loss = self._backward(x, targets, x.shape[1] / samples)
        for x, targets in batches[1:]:
            more, own = self._backward(x, targets, x.shape[1] / samples)
            pairs = zip(gradients, more, strict=True)
            gradients = [b if a is None else a if b is None else a + b for a, b in pairs]
            loss = loss + own
        return gradients, loss

    def _backward(
        self, x: Tensor, targets: tuple[Tensor, ...], share: float
    ) -> tuple[list[Tensor | None], Tensor]:
        """The gradients of `share` times the loss of one batch a member; the buffers are those after it."""
        key = (x.shape, x.dtype, share)
        if x.shape not in self.drawn:
            self.drawn[x.shape] = self._count_draws(x[0], [target[0] for target in targets])
        inputs = [*self.state, x, *targets, self.noise.take(self.drawn[x.shape])]
        if key not in self.programs:
            self.programs[key] = Program(lambda *given: self._learn(given, share), inputs)
        found = self.programs[key](*inputs)
        count = len(self.weights)
        after: list[Any] = found[count + 1 :]
        self.buffers = dict(zip(self.buffers, after, strict=True))
        return found[:count], found[count]  # pyright: ignore[reportReturnType]

    def _count_draws(self, x: Tensor, targets: list[Tensor]) -> int:
        """How many random numbers the layers of one member ask for."""
        count = Count()
        names = [*self.names, *self.buffers]
        state = {f"network.{n}": v[0].clone() for n, v in zip(names, self.state, strict=True)}
        with torch.no_grad(), draws.supplied(count), self.run.autocast():
            functional_call(self.learner, state, (x, *targets))
        return count.asked

    def _learn(self, given: Sequence[Tensor], share: float) -> list[Tensor | None]:
        """What is recorded: (weights, buffers, x, targets, numbers) → gradients, losses, buffers."""
        count, names = len(self.weights), [*self.names, *self.buffers]
        leaves = [w.detach().requires_grad_() for w in given[:count]]
        x, *targets, numbers = given[len(names) :]

        def one(state: list[Tensor], x: Tensor, targets: list[Tensor], numbers: Tensor) -> Any:
            own = {f"network.{name}": value for name, value in zip(names, state, strict=True)}
            with draws.supplied(Supply(numbers)):
                z, *encoded = functional_call(self.learner, own, (x, *targets))
            return z, encoded, [own[f"network.{name}"] for name in self.buffers]

        with torch.enable_grad(), self.run.autocast():
            state = [*leaves, *given[count : len(names)]]
            z, encoded, after = torch.vmap(one, randomness="different")(state, x, targets, numbers)
            flat = [target.flatten(0, 1) for target in encoded]
            each = self.learnt(z.flatten(0, 1), Mixed(*flat) if self.feed.mixes else flat[0])
            loss = each.view(len(x), -1).mean(1)  # (K,) from (K·B,), or of text from (K·B, T)
            loss = loss * share if share != 1 else loss
            gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        held = [None if g is None else g.contiguous() for g in gradients]
        return [*held, loss.detach(), *(value.detach() for value in after)]

    # -- checks and evaluations ---------------------------------------------------------------------

    def _check(self) -> None:
        """Marks the members whose losses, gradients or weights are no longer finite."""
        columns = zip(*self.pending, strict=True)
        loss, norm = (torch.stack([v.double().cpu() for v in column]) for column in columns)  # (n, K)
        finite = loss.isfinite() & norm.isfinite()
        sound = finite.all(0)
        for w in self.weights:
            sound = sound & w.detach().flatten(1).isfinite().all(1).cpu()
        first = self.update - len(self.pending) + 1
        for row in sound.logical_not().nonzero().flatten().tolist():
            if self._trains(row):
                wrong = finite[:, row].logical_not().nonzero()
                self.results[row].diverged = first + int(wrong[0]) if len(wrong) else self.update
        self.since.append(loss)
        self.pending.clear()

    def _evaluate(self) -> None:
        """Adds a row to the curve of each member that trains, and keeps its best weights."""
        means = torch.cat(self.since).mean(0).tolist()
        self.since.clear()
        rows = [row for row in self._rows if self._trains(row)]
        if not rows:
            return
        state = self._evaluated(rows)
        better = []
        found = self.judge.quick(state, [self.members[row].data for row in rows], "validation")
        for place, (row, own) in enumerate(zip(rows, found, strict=True)):
            result, pace = self.results[row], self.rates.paces[row]
            if len(self.members[row].data.validation):
                pace.look(own.get("loss", math.inf))
            if own and own["loss"] < result.best.get("loss", math.inf):
                result.best = {"update": self.update, "loss": own["loss"]}
                better.append(place)
            epoch = self.update / self.updates_per_epoch
            line = {"update": self.update, "epoch": epoch, "loss": means[row], "validation": own}
            result.curve.append(line)
            result.ended_early = pace.ended_early
        if better and self.best is None:
            self.best = [value.new_zeros(len(self.members), *value.shape[1:]) for value in state]
        if better and self.best is not None:
            index = torch.tensor([rows[place] for place in better], device=self.device)
            for kept, value in zip(self.best, state, strict=True):
                kept.index_copy_(0, index, value if len(better) == len(value) else value[better])

    def _evaluated(self, rows: list[int]) -> list[Tensor]:
        """The state to evaluate of these rows: averages, with their own statistics, where there are some."""
        weights = self.updates.evaluated()
        state: list[Tensor] = [w.detach() for w in weights] + list(self.buffers.values())
        everyone = len(rows) == len(self.members)
        state = state if everyone else [value[rows] for value in state]
        if weights is not self.weights:
            others = {row for part in self.updates.parts if part.has_others for row in part.range}
            self._measure_statistics(state, [(p, row) for p, row in enumerate(rows) if row in others])
        return state

    def _measure_statistics(self, state: list[Tensor], places: list[tuple[int, int]]) -> None:
        """Batch norm's statistics of averaged weights, member by member; without batch norm nothing."""
        count = len(self.names)
        for place, row in places:
            member = self.members[row]
            own = dict(zip([*self.names, *self.buffers], (value[place] for value in state), strict=True))
            _load(self.network, own)
            self.network.train()
            with torch.no_grad(), self.run.autocast():
                reestimate(self.network, samples_of(member.recipe, member.data, self.device))
            after = dict(self.network.named_buffers())
            for kept, name in zip(state[count:], self.buffers, strict=True):
                if name in after:
                    kept[place] = after[name]

    # -- who goes on, and the end -------------------------------------------------------------------

    def losses(self) -> dict[int, float]:
        """The newest validation loss, NaN where it was not finite, of each member that may still be chosen.

        Those that have ended early may; those that diverged or were given up may not.
        """
        every = {**self.done, **dict(zip(self.numbers, self.results, strict=True))}
        return {n: newest_loss(own) for n, own in every.items() if own.diverged is own.stopped_at is None}

    def leave(self, number: int, update: int) -> None:
        """Gives a member up at this update: it trains no further."""
        result = self.done[number] if number in self.done else self.results[self.numbers.index(number)]
        result.stopped_at = update

    def _take_out(self) -> None:
        """Goes on without those that have ended, once they are half of all."""
        rows = [row for row in self._rows if self._trains(row)]
        if not rows or 2 * len(rows) > len(self.members):
            return
        self._conclude([row for row in self._rows if not self._trains(row)], True)
        self._keep(rows)

    def _keep(self, rows: list[int]) -> None:
        """Goes on with the members of these rows alone."""
        self.weights = [w[rows] for w in self.weights]
        self.buffers = {name: value[rows] for name, value in self.buffers.items()}
        self.updates = self.updates.kept(self.weights, rows)
        for part in (self.feed, self.noise, self.rates):
            part.keep(rows)
        self.best = None if self.best is None else [value[rows] for value in self.best]
        self.numbers, self.members = [self.numbers[r] for r in rows], [self.members[r] for r in rows]
        self.results = [self.results[r] for r in rows]
        self.programs.clear()
        self.drawn.clear()

    def outcomes(self, weights: bool = False) -> dict[int, Outcome]:
        """How each ended: the delivered weights are chosen and tested, as at the end of `stepwell train`."""
        with self.surroundings():
            self._conclude(list(self._rows), weights)
        self.feed.close()
        if not weights:
            for outcome in self.done.values():
                outcome.weights = None
        return self.done

    def _conclude(self, rows: list[int], weights: bool) -> None:
        """Chooses, tests and notes the weights of these rows."""
        for row in rows:
            result = self.results[row]
            last = result.curve[-1]["update"] if result.ended_early else self.update
            result.updates = result.diverged or result.stopped_at or last
            result.epochs = result.updates / self.updates_per_epoch
            self.done[self.numbers[row]] = result
        rows = [row for row in rows if self.results[row].diverged is None]
        if not rows:
            return
        state = self._delivered(rows)
        data = [self.members[row].data for row in rows]
        self.judge.show(model_file.views(self.members[0].recipe.augment))
        for split in ("validation", "test"):
            for row, own in zip(rows, self.judge.quick(state, data, split), strict=True):
                setattr(self.results[row], split, own)
        self.judge.show(None)
        if weights:
            ours = dict(zip(self.judge.names, state, strict=True))
            tensors = self.network.state_dict(keep_vars=True)
            first = {id(value): name for name, value in _tensors(self.network).items()}  # of tied ones
            pairs = [(name, ours[first[id(value)]]) for name, value in tensors.items() if id(value) in first]
            for place, row in enumerate(rows):
                self.results[row].weights = {name: value[place].clone() for name, value in pairs}

    def _delivered(self, rows: list[int]) -> list[Tensor]:
        """The state of each row to deliver, last or best, as `training.finish.choose_weights` decides."""
        last = self._evaluated(rows)
        best = self.best
        wanted = self.members[0].recipe.training.weights
        if wanted == "last" or best is None:
            return last
        data = [self.members[row].data for row in rows]
        best = [value[rows] for value in best]
        pairs = zip(*(self.judge.predictions(own, data, "validation") for own in (last, best)), strict=True)
        chosen = []
        for place, (row, (ours, theirs)) in enumerate(zip(rows, pairs, strict=True)):
            result = self.results[row]
            if not result.best or result.best["update"] == result.updates or not len(ours.loss):
                continue
            if wanted == "best" or leads(ours.loss, theirs.loss):
                result.delivered = "best"
                chosen.append(place)
        if chosen:
            last = [value.clone() for value in last]
            for value, other in zip(last, best, strict=True):
                value[chosen] = other[chosen]
        return last

    # -- what it costs, and its state ---------------------------------------------------------------

    def rehearse(self) -> int:
        """Goes through the first batch without effect; returns the bytes that it held at its most.

        Raises NotRecordable, or what torch raises, where these members cannot be stacked.
        """
        buffers, noise = {n: v.clone() for n, v in self.buffers.items()}, self.noise.state()
        with self.surroundings():
            self.network.train()
            batches, outside = self.feed.at(0), _outside(self.network)
            self._gradients(batches)
            if _outside(self.network) != outside:
                raise NotRecordable("it draws Python's or NumPy's random numbers, or counts its calls")
        self.buffers = buffers
        self.noise.load(noise)
        return max(program.peak for program in self.programs.values())

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training goes on from: tensors by name, and JSON."""
        tensors = {f"model.{n}": v for n, v in zip(self.judge.names, self.state, strict=True)}
        tensors |= {f"optimizer.{name}": value for name, value in self.updates.live().items()}
        tensors |= {f"noise.{name}": value for name, value in self.noise.state().items()}
        tensors |= {f"random.{name}": value for name, value in self.random.items()}
        if self.best is not None:
            tensors |= {f"best.{n}": v for n, v in zip(self.judge.names, self.best, strict=True)}
        for number, outcome in self.done.items():
            tensors |= {f"done.{number}.{n}": v for n, v in (outcome.weights or {}).items()}
        if self.pending:
            tensors |= {"loss": torch.stack([v for v, _ in self.pending])}
            tensors |= {"norm": torch.stack([v for _, v in self.pending])}
        if self.since:
            tensors["since"] = torch.cat(self.since)
        about = {
            "update": self.update,
            "numbers": self.numbers,
            "steps": self.updates.steps(),
            "paces": [pace.state() for pace in self.rates.paces],
            "results": [result.as_json() for result in self.results],
            "done": {number: outcome.as_json() for number, outcome in self.done.items()},
        }
        return tensors, about

    def load(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Goes on from what `saved` returned."""
        places = {number: row for row, number in enumerate(self.numbers)}
        if about["numbers"] != self.numbers:
            self._keep([places[number] for number in about["numbers"]])
        own = {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
        with torch.no_grad():
            for name, w in zip(self.names, self.weights, strict=True):
                w.copy_(own[name])
        self.buffers = {name: own[name].to(self.device) for name in self.buffers}
        state = {n.removeprefix("optimizer."): v for n, v in tensors.items() if n.startswith("optimizer.")}
        self.updates.load(state, about["steps"])
        self.noise.load({n.removeprefix("noise."): v for n, v in tensors.items() if n.startswith("noise.")})
        self.random = {n.removeprefix("random."): v for n, v in tensors.items() if n.startswith("random.")}
        if f"best.{self.names[0]}" in tensors:
            self.best = [tensors[f"best.{name}"].to(self.device) for name in self.judge.names]
        if "loss" in tensors:
            pairs = zip(tensors["loss"].unbind(), tensors["norm"].unbind(), strict=True)
            self.pending = [(loss.to(self.device), norm) for loss, norm in pairs]
        self.since = [tensors["since"]] if "since" in tensors else []
        self.update = about["update"]
        for pace, kept in zip(self.rates.paces, about["paces"], strict=True):
            pace.load(kept)
        self.results = [Outcome(**kept) for kept in about["results"]]
        self.done = {int(number): Outcome(**kept) for number, kept in about["done"].items()}
        for number, outcome in self.done.items():
            start = f"done.{number}."
            held = {
                n.removeprefix(start): v.to(self.device) for n, v in tensors.items() if n.startswith(start)
            }
            outcome.weights = held or None


class _Learner(nn.Module):
    """x, targets → the network's outputs, and the targets as the loss wants them."""

    def __init__(self, network: Network, standardized: bool) -> None:
        super().__init__()
        self.network, self.standardized = network, standardized

    def forward(self, x: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
        labels, lam = targets[:2], targets[2:]
        z = self.network.body(x) if self.standardized else self.network(x)
        return z, *(self.network.encode(y).clone() for y in labels), *(v.clone() for v in lam)


def _load(network: Network, state: dict[str, Tensor]) -> None:
    """Puts a member's weights and buffers into the network."""
    own = _tensors(network)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def _tensors(network: Network) -> dict[str, Tensor]:
    """Weights and buffers by name, tied ones under the first of their names."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _outside(network: nn.Module) -> tuple[Any, ...]:
    """What a forward pass may decide by that is no tensor, so that a recording would not follow it."""
    kinds = (bool, int, float, str)
    counts = [{k: v for k, v in vars(m).items() if isinstance(v, kinds)} for m in network.modules()]
    _, keys, place, *_ = np.random.get_state()
    return counts, random.getstate(), np.asarray(keys).tobytes(), place
