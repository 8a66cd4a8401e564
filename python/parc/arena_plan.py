"""The plan of a program's arena (`plan-buffers`): what is where in it, as a function of the sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

from parc.expression import Expression
from parc.memory import Place

_LINE = 64
"""Buffers start on a cache line; the arena's first line is the status word."""


@dataclass(frozen=True)
class ArenaBuffer:
    """A buffer in the arena; one for each member of the team where it is `per_member`."""

    name: str
    """The array of a system that it is, by the name of the unknown; otherwise empty."""
    bytes: Expression
    text: str
    """The bytes as people read them: `T * 64`."""
    per_member: bool = False

    def size(self, symbols: Sequence[int], members: int, unit: int = 1) -> int:
        """The bytes of all copies, each in whole units."""
        return self.copies(members) * unit * -(-max(self.bytes.at(symbols), 0) // unit)

    def copies(self, members: int) -> int:
        """How many of it there are for a team of so many members."""
        return members if self.per_member else 1


@dataclass(frozen=True)
class ArenaPlan:
    """The places in the arena, each with the buffers that have it one after another."""

    buffers: tuple[tuple[ArenaBuffer, ...], ...] = ()

    def places(self, symbols: Sequence[int], members: int) -> list[Place]:
        """What is in the arena in a call with these symbols, largest first."""
        return sorted((_place(buffers, symbols, members) for buffers in self.buffers), key=lambda p: -p.bytes)

    def bytes(self, symbols: Sequence[int], members: int) -> int:
        """The bytes of all places in such a call, each in whole cache lines."""
        return _LINE + sum(max(b.size(symbols, members, _LINE) for b in buffers) for buffers in self.buffers)


def _place(buffers: Sequence[ArenaBuffer], symbols: Sequence[int], members: int) -> Place:
    largest = max(buffers, key=lambda b: b.size(symbols, members))
    copies = largest.copies(members)
    formula = largest.text if copies == 1 else f"{copies} * {largest.text}"
    return Place(tuple(b.name for b in buffers if b.name), formula, largest.size(symbols, members))
