"""The plan of a program's arena (`plan-buffers`), read off its module: also of programs without machine code."""

from collections.abc import Sequence

from torch_mlir import ir

from parc.memory import Place
from parc.poly.affine import evaluate, with_names

_LINE = 64
"""Buffers start on a cache line; the arena's first line is the status word."""


class ArenaPlan:
    """The places in the arena of a module that went through `plan-buffers`, for teams of `threads`."""

    def __init__(self, module: ir.Module, threads: int) -> None:
        attributes = module.operation.attributes
        described = ir.ArrayAttr(attributes["parc.arena"]) if "parc.arena" in attributes else ()
        self._places = [[ir.DictAttr(buffer) for buffer in ir.ArrayAttr(place)] for place in described]
        self._threads = threads

    def places(self, symbols: Sequence[int], names: Sequence[str]) -> list[Place]:
        """What is in the arena in a call with these symbols, largest first; `names` are those of the symbols."""
        return sorted((self._place(buffers, symbols, names) for buffers in self._places), key=lambda p: -p.bytes)

    def bytes(self, symbols: Sequence[int]) -> int:
        """The bytes of all places in such a call, each in whole cache lines."""
        return _LINE + sum(max(self._size(b, symbols, _LINE) for b in buffers) for buffers in self._places)

    def _place(self, buffers: Sequence[ir.DictAttr], symbols: Sequence[int], names: Sequence[str]) -> Place:
        largest = max(buffers, key=lambda b: self._size(b, symbols))
        (expr,) = ir.AffineMapAttr(largest["bytes"]).value.results
        text = with_names(str(expr), (), tuple(names))
        copies = self._copies(largest)
        named = (ir.StringAttr(buffer["name"]).value for buffer in buffers)
        formula = text if copies == 1 else f"{copies} * {text}"
        return Place(tuple(name for name in named if name), formula, self._size(largest, symbols))

    def _size(self, buffer: ir.DictAttr, symbols: Sequence[int], unit: int = 1) -> int:
        (expr,) = ir.AffineMapAttr(buffer["bytes"]).value.results
        return self._copies(buffer) * unit * -(-max(evaluate(expr, symbols), 0) // unit)

    def _copies(self, buffer: ir.DictAttr) -> int:
        return self._threads if "per_thread" in buffer else 1
