"""How a population is divided: into stacks that fit memory, and members that train alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.population.alone import Alone
from stepwell.population.member import Member
from stepwell.population.recording import NotRecordable
from stepwell.population.shape import reason_alone, shape
from stepwell.population.stack import Stack
from stepwell.population.updates import kind, prototypes, signature

# What a stack works on in an update, at most: larger, and it falls out of a CPU's caches, which costs more
# than what is saved by launching an operation for more members at once (see benchmarks/population.py).
WORKING_SET = {"cpu": 12 << 20, "cuda": 2 << 30}
MOST = {"cpu": 128, "cuda": 4096}  # members a stack
MARGIN = 0.5  # of the free memory


class Group:
    """Members that are trained together: `make` builds the models, when their turn comes."""

    def __init__(self, place: int, numbers: list[int], members: Sequence[Member], stacked: bool) -> None:
        self.place, self.numbers, self.stacked = place, numbers, stacked
        self._members = [members[number] for number in numbers]

    def make(self) -> Stack | Alone:
        """The models, before their first update."""
        made = (
            Stack(self.numbers, self._members) if self.stacked else Alone(self.numbers[0], self._members[0])
        )
        made.place = self.place
        return made


def divide(members: Sequence[Member], numbers: Sequence[int]) -> tuple[list[Group], list[str]]:
    """The groups that these members make, and notes for the user on those that train alone."""
    shapes: dict[str, list[int]] = {}
    reasons: dict[str, list[int]] = {}
    for number in numbers:
        reason = reason_alone(members[number])
        if reason is None:
            shapes.setdefault(shape(members[number]), []).append(number)
        else:
            reasons.setdefault(reason, []).append(number)
    parts: list[tuple[list[int], bool]] = []
    for own in shapes.values():
        try:
            parts += [(part, True) for part in _stacks(members, own)]
        except (NotRecordable, RuntimeError, TypeError, NotImplementedError) as error:
            if "out of memory" in str(error) or "allocate memory" in str(error):
                raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reasons.setdefault(f"torch.vmap cannot map this model ({first})", []).extend(own)
    for own in reasons.values():
        parts += [([number], False) for number in own]
    groups = [Group(place, own, members, stacked) for place, (own, stacked) in enumerate(parts)]
    notes = [
        f"{len(own)} of {len(numbers)} models train one after the other: {reason}"
        for reason, own in reasons.items()
        if len(own) > 1 or len(numbers) > 1
    ]
    return groups, notes


def _stacks(members: Sequence[Member], numbers: list[int]) -> Iterator[list[int]]:
    """Members of one shape in stacks of about equal size, those with the same rule side by side."""
    if len(numbers) == 1:
        yield numbers
        return
    first = Stack(numbers[:1], [members[numbers[0]]])
    each = first.rehearse() + sum(v.nbytes for v in first.saved()[0].values())
    first.feed.close()
    device = first.device
    free = _free_bytes(device) * MARGIN
    most = max(1, int(min(WORKING_SET[device.type], free) // max(each, 1)), _threads(device))
    most = min(most, MOST[device.type], max(1, int(free // max(each, 1))))
    protos = prototypes([members[number].recipe for number in numbers], list(first.run.parameters.values()))
    rule: dict[str, str] = {}
    for number, proto in zip(numbers, protos, strict=True):
        rule[kind(members[number].recipe)] = _order(proto)
    ordered = sorted(numbers, key=lambda number: (rule[kind(members[number].recipe)], number))
    count = -(-len(ordered) // most)
    for part in range(count):
        yield ordered[part * len(ordered) // count : (part + 1) * len(ordered) // count]


def _order(proto: RuleOptimizer) -> str:
    return signature(proto)


def _threads(device: torch.device) -> int:
    """The fewest members that keep all threads busy."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
