"""A program as far as its memory is planned, without machine code."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.arena_plan import ArenaPlan
from parc.memory import Memory
from parc.signature import Signature


@dataclass(frozen=True)
class Planned:
    """A program as far as its memory is planned; it cannot be called."""

    signature: Signature
    arena: ArenaPlan
    prepared: int
    """The bytes of what is computed from the parameters once."""

    @staticmethod
    def of(module: ir.Module, signature: Signature, threads: int) -> "Planned":
        """The plan of a module that went through `plan-buffers`."""
        attributes = module.operation.attributes
        types = ir.ArrayAttr(attributes["parc.prepared"]) if "parc.prepared" in attributes else ()
        return Planned(signature, ArenaPlan(module, threads), sum(_bytes(ir.TypeAttr(t).value) for t in types))

    def arena_bytes(self, symbols: Sequence[int]) -> int:
        """The working memory of a call at these sizes."""
        return self.arena.bytes(symbols)

    def memory(self, symbols: Sequence[int]) -> Memory:
        """The memory of a call at these sizes."""
        ours = self.signature
        inputs, results, parameters = (
            sum(t.bytes(symbols) for t in group) for group in (ours.inputs, ours.results, ours.parameters)
        )
        places = self.arena.places(symbols, ours.symbols)
        return Memory(inputs, results, parameters, self.prepared, self.arena_bytes(symbols), places)


def _bytes(type_: ir.Type) -> int:
    tensor = ir.RankedTensorType(type_)
    element = tensor.element_type
    width = 64 if isinstance(element, ir.IndexType) else element.width
    return math.prod(tensor.shape) * -(-width // 8)
