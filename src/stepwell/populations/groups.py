"""How a population is divided: into stacks that fit memory, and members that train alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from stepwell.populations.alone import Alone
from stepwell.populations.member import Member
from stepwell.populations.recording import NotRecordable
from stepwell.populations.shape import reason_alone, shape
from stepwell.populations.stack import Stack
from stepwell.populations.updates import kind, prototypes, signature

# What a stack works on in an update, at most: larger, and it falls out of a CPU's caches, which costs more
# than what is saved by launching an operation for more members at once (see benchmarks/population.py).
WORKING_SET = {"cpu": 6 << 20, "cuda": 2 << 30}
MOST = {"cpu": 128, "cuda": 4096}  # members a stack
MARGIN = 0.5  # of the free memory


@dataclass
class Group:
    """Members that are trained together. place: among the groups. reason: why, where one trains alone."""

    place: int
    numbers: list[int]
    stacked: bool
    reason: str = ""

    def make(self, members: Sequence[Member]) -> Stack | Alone:
        """The models, before their first update."""
        own = [members[number] for number in self.numbers]
        made = Stack(self.numbers, own) if self.stacked else Alone(self.numbers[0], own[0])
        made.place = self.place
        return made


def divide(members: Sequence[Member]) -> list[Group]:
    """The groups that these members make."""
    shapes: dict[str, list[int]] = {}
    reasons: dict[str, list[int]] = {}
    for number, member in enumerate(members):
        reason = reason_alone(member)
        if reason is None:
            shapes.setdefault(shape(member), []).append(number)
        else:
            reasons.setdefault(reason, []).append(number)
    groups: list[Group] = []
    for own in shapes.values():
        if len(own) == 1:  # nothing to stack: the run of `stepwell train`, bit for bit
            groups.append(Group(0, own, False))
            continue
        try:
            groups += [Group(0, part, True) for part in _stacks(members, own)]
        except NotRecordable as error:
            reasons.setdefault(f"this model is not the same operations each time: {error}", []).extend(own)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            if "out of memory" in str(error) or "allocate memory" in str(error):
                raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reasons.setdefault(f"torch.vmap cannot map this model ({first})", []).extend(own)
    groups += [Group(0, [number], False, reason) for reason, own in reasons.items() for number in own]
    for place, group in enumerate(groups):
        group.place = place
    return groups


def notes(groups: Sequence[Group]) -> list[str]:
    """For the user: how many train one after the other, and why."""
    reasons = Counter(group.reason for group in groups if group.reason)
    every = sum(len(group.numbers) for group in groups)
    return [
        f"{count} of {every} models train one after the other: {reason}"
        for reason, count in reasons.items()
        if every > 1
    ]


def _stacks(members: Sequence[Member], numbers: list[int]) -> Iterator[list[int]]:
    """Members of one shape in stacks of about equal size, those with the same rule side by side."""
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
        rule[kind(members[number].recipe)] = signature(proto)
    ordered = sorted(numbers, key=lambda number: (rule[kind(members[number].recipe)], number))
    count = -(-len(ordered) // most)
    for part in range(count):
        yield ordered[part * len(ordered) // count : (part + 1) * len(ordered) // count]


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
