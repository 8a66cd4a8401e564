"""Amounts of memory: what a user writes, what messages say, and what a training step takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(amount: int | str) -> int:
    """A number of bytes from a number or a text such as "256MB" or "1.5GiB"; ValueError for anything else."""
    if isinstance(amount, str):
        match = _AMOUNT.fullmatch(amount)
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"an amount of memory is written like 256MB, 1.5GiB or 1000000, not {amount!r}")
        amount = int(float(match[1]) * _UNITS[match[2]])
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise ValueError(f"an amount of memory is a text such as '256MB' or a number of bytes, not {amount!r}")
    if amount < 1:
        raise ValueError(f"an amount of memory is at least one byte, not {amount}")
    return amount


def bytes_text(amount: int) -> str:
    """`1.5 MB`; what is read back with `parse_bytes` is never less."""
    for unit in ("TB", "GB", "MB", "kB"):
        if amount >= _UNITS[unit]:
            # Rounded up: as a limit, it has to be enough.
            tenths = -(-10 * amount // _UNITS[unit])
            return f"{tenths // 10}.{tenths % 10} {unit}"
    return f"{amount} B"


@dataclass(frozen=True)
class Need:
    """The memory of one training step in bytes, besides inputs, results, parameters and gradients."""

    saved: int
    """Values that the forward program leaves for the backward program."""
    working: int
    """What both programs work in."""

    @property
    def total(self) -> int:
        return self.saved + self.working

    def __str__(self) -> str:
        return f"{bytes_text(self.total)}, {bytes_text(self.saved)} of it saved values"


@dataclass(frozen=True)
class Place:
    """A part of the arena: the buffers that have it, one after another, and its bytes."""

    names: tuple[str, ...]
    """The arrays of systems among them, by the names of the unknowns."""
    formula: str
    """The bytes of its largest buffer as a function of the sizes."""
    bytes: int

    def __str__(self) -> str:
        return f"{', '.join(self.names) or 'other'}: {self.formula} = {bytes_text(self.bytes)}"


@dataclass(frozen=True)
class BlockMemory:
    """The shared memory of each thread block of a program for a GPU, in bytes; there is one block a multiprocessor."""

    threads: int
    limit: int
    """What a block of the target can have."""
    used: int
    resident: tuple[tuple[str, int], ...]
    """The weights that stay in it through a recurrence, by the names of the equations that they belong to."""
    streamed: tuple[tuple[str, int], ...]
    """Weights of recurrences for which there is no room: each step reads them from the L2 cache, or beyond."""

    def __str__(self) -> str:
        lines = [f"{bytes_text(self.used)} of shared memory, of {bytes_text(self.limit)}, for {self.threads} threads"]
        lines += [f"  keeps its part of {name}'s weights, {bytes_text(size)}" for name, size in self.resident]
        lines += [
            f"  reads its part of {name}'s weights in each step, {bytes_text(size)}" for name, size in self.streamed
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Memory:
    """The memory of one call at given sizes, or of one training step, in bytes."""

    inputs: int
    results: int
    parameters: int
    prepared: int
    """What was computed from the parameters once: packed weights."""
    arena: int
    """What the call works in; calls of any sizes use the same arena, which never shrinks."""
    places: Sequence[Place]
    """What is in the arena, largest first; empty for a training step, whose two programs use it in turns."""
    saved: int = 0
    """What a training step leaves from its forward for its backward pass."""
    gradients: int = 0
    block: BlockMemory | None = None
    """Of a program for a GPU."""

    @property
    def planned(self) -> int:
        """What a call takes besides its inputs, the parameters and what is prepared once."""
        return self.results + self.gradients + self.saved + self.arena

    def __str__(self) -> str:
        names = ("inputs", "parameters", "prepared", "results", "gradients", "saved", "arena")
        rows = [(name, getattr(self, name)) for name in names]
        lines = [f"{name:<10} {bytes_text(size):>10}" for name, size in rows if size]
        lines += [f"  {place}" for place in self.places]
        return "\n".join(lines if self.block is None else [*lines, str(self.block)])
