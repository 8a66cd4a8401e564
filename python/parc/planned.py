"""A program as far as its memory is planned, without machine code."""

from collections.abc import Sequence
from dataclasses import dataclass

from parc.memory import Memory
from parc.runtime.facts import Facts
from parc.signature import Signature


@dataclass(frozen=True)
class Planned:
    """A program as far as its memory is planned, for teams of so many members; it cannot be called."""

    signature: Signature
    facts: Facts
    members: int

    def arena_bytes(self, symbols: Sequence[int]) -> int:
        """The working memory of a call at these sizes."""
        return self.facts.arena.bytes(symbols, self.members)

    def memory(self, symbols: Sequence[int]) -> Memory:
        """The memory of a call at these sizes."""
        inputs, results, parameters = self.signature.bytes(symbols)
        places = self.facts.arena.places(symbols, self.members)
        prepared, arena = self.facts.prepared_bytes, self.arena_bytes(symbols)
        return Memory(inputs, results, parameters, prepared, arena, places, block=self.facts.block)
