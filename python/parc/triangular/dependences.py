"""Which elements of `step(x)` depend on which elements of x, and in which order they can be computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from math import prod

import islpy as isl
import numpy as np
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import terminator
from parc.errors import CompileError
from parc.triangular.bits import WORD, singletons, unpacked
from parc.triangular.elements import Bits, Elements
from parc.triangular.given import Given
from parc.triangular.interpret import interpret
from parc.triangular.order import cycle, levels
from parc.triangular.relation import as_map, is_ordered, runs
from parc.triangular.scalars import numpy_type

_MEMORY = 1 << 28
"""Bytes of the dependences of one value: where all elements would take more, they are done in several turns."""
_WIDTH = 480
"""Of a picture, in pixels."""


@dataclass(frozen=True, eq=False)
class Dependences:
    """The dependences of a triangular equation x = step(x), whose elements can be computed level by level.

    They hold for all values of x and of the other inputs for which step computes no NaN, and nothing of more than 1e30
    but what is in the program (such as the -inf of a mask).
    """

    name: str
    """Of x."""
    shape: tuple[int, ...]
    relation: Bits
    """`[elements, words]`: bit j of row i is set where element i of step(x) may depend on element j of x."""
    levels: NDArray[np.int64]
    """For each element, how many elements follow each other in the longest chain of dependences that ends with it."""

    @property
    def bound(self) -> int:
        """As many sweeps make every element final, whatever they start from: the number of levels."""
        return int(self.levels.max(initial=0))

    @cached_property
    def matrix(self) -> NDArray[np.bool_]:
        """The relation as `[elements, elements]`; elements are numbered as they lie in memory."""
        return unpacked(self.relation, len(self.relation))

    @property
    def order(self) -> list[tuple[int, ...]]:
        """All elements, each behind those that it depends on."""
        numbers = np.argsort(self.levels.reshape(-1), kind="stable")
        return [tuple(int(i) for i in np.unravel_index(n, self.shape)) for n in numbers]

    @property
    def rows_independent(self) -> bool:
        """Does no element depend on one with another first index?"""
        if not self.shape or not self.relation.size:
            return True
        rows = self.shape[0]
        pairs = self.matrix.reshape(rows, -1, rows, prod(self.shape[1:])).any(axis=(1, 3))
        return not (pairs & ~np.eye(rows, dtype=bool)).any()

    def needed(self, *index: int) -> list[tuple[int, ...]]:
        """The elements that one element depends on."""
        row = self.matrix[np.ravel_multi_index(index, self.shape)]
        return [tuple(int(i) for i in np.unravel_index(n, self.shape)) for n in np.flatnonzero(row)]

    def map(self) -> isl.Map:
        """`{ [i] -> [j] }`: element i depends on element j."""
        return as_map([runs(row) for row in self.matrix])

    def picture(self) -> str:
        """A self-contained SVG image of the matrix, with the elements in the order of their levels."""
        order = np.argsort(self.levels.reshape(-1), kind="stable")
        count = max(1, len(order))
        spans = [
            f'<path d="M{low} {row}h{high - low + 1}v1h{low - high - 1}z"/>'
            for row, flags in enumerate(self.matrix[order][:, order])
            for low, high in runs(flags)
        ]
        title = escape(str(self))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_WIDTH}" viewBox="0 0 {count} {count}" '
            f'role="img"><title>{title}</title><path d="M0 0h{count}v{count}h-{count}z" fill="#f4f4f4"/>'
            f'<g fill="#2171b5">{"".join(spans)}</g></svg>'
        )

    def __str__(self) -> str:
        count = int(self.matrix.sum())
        rows = ", rows independent" if self.rows_independent and len(self.shape) > 1 else ""
        return f"{self.name}{list(self.shape)}: {self.bound} levels, {count} dependences{rows}"


def dependences(trace: func.FuncOp, given: Sequence[Given]) -> Dependences:
    """The dependences of the first result of a static trace on its first argument, of the same shape.

    `given` is what is known of the trace's parameters, its last arguments.  CompileError where elements depend on
    each other, with names of such.
    """
    argument = trace.entry_block.arguments[0]
    shape = tuple(argument.type.shape)
    name = _name(trace)
    relation = elements_used(trace, given)
    found = levels(relation)
    if (found == 0).any():
        raise _cyclic(trace, given, name, shape, cycle(relation, np.flatnonzero(found == 0)))
    if not is_ordered(relation, found):
        raise CompileError(f"the levels of '{name}' are not in the order of its dependences: this is a bug in parc")
    return Dependences(name, shape, relation, found.reshape(shape))


def elements_used(trace: func.FuncOp, given: Sequence[Given]) -> Bits:
    """`[elements of the first result, words]`: bit j is set where it may depend on element j of the first argument."""
    count = prod(trace.entry_block.arguments[0].type.shape)
    per_turn = max(1, _MEMORY // (8 * _largest(trace))) * WORD
    turns = []
    for start in range(0, max(1, count), per_turn):
        elements = range(start, min(start + per_turn, count))
        result = interpret(trace, _arguments(trace, given, elements))[0]
        words = max(1, -(-len(elements) // WORD))
        bits = np.zeros((*result.shape, words), np.uint64) if result.bits is None else result.bits
        turns.append(bits.reshape(-1, words))
    return np.concatenate(turns, axis=1)


def _arguments(trace: func.FuncOp, given: Sequence[Given], elements: Sequence[int]) -> list[Elements]:
    """What is known of the arguments, with bits for some elements of the first."""
    first, *others = trace.entry_block.arguments
    bits = singletons(elements, prod(first.type.shape)).reshape(*first.type.shape, -1)
    inputs = others[: len(others) - len(given)]
    return [
        Elements.unknown(first.type.shape, numpy_type(first.type), bits),
        *(Elements.unknown(a.type.shape, numpy_type(a.type)) for a in inputs),
        *(g.elements for g in given),
    ]


def _largest(trace: func.FuncOp) -> int:
    """The elements of the largest value, those of the windows of convolutions included."""
    sizes = [prod(r.type.shape) for op in trace.entry_block.operations for r in op.operation.results if _ranked(r)]
    windows = [
        prod(op.operation.results[0].type.shape[:1] + op.operation.results[0].type.shape[2:])
        * prod(op.operation.operands[1].type.shape[1:])
        for op in trace.entry_block.operations
        if op.operation.name.startswith("linalg.conv") and _ranked(op.operation.results[0])
    ]
    return max([1, *sizes, *windows])


def _ranked(value: ir.Value) -> bool:
    return isinstance(value.type, ir.RankedTensorType)


def _cyclic(
    trace: func.FuncOp, given: Sequence[Given], name: str, shape: tuple[int, ...], elements: list[int]
) -> CompileError:
    """The error for elements that need each other in a circle, at the operation where their dependences meet."""
    meeting: list[ir.Location] = []
    unknown: list[str] = []

    def watch(op: ir.Operation, result: Elements, known: bool) -> None:
        if result.bits is None:
            return
        if not known:
            unknown.append(op.name)
        # What one element alone comes through is all of its way.
        if len(elements) > 1 and not meeting and unpacked(result.bits, len(elements)).all(axis=-1).any():
            meeting.append(op.location)

    interpret(trace, _arguments(trace, given, elements), watch)
    last = terminator(trace.entry_block).operands[0].owner
    where = meeting[0] if meeting else trace.location if isinstance(last, ir.Block) else last.location
    names = [f"{name}[{', '.join(str(i) for i in np.unravel_index(n, shape))}]" for n in elements]
    if len(names) == 1:
        text = f"{names[0]} depends on itself"
    elif len(names) == 2:
        text = f"{names[0]} and {names[1]} depend on each other"
    else:
        text = f"{names[0]} depends on {', which depends on '.join([*names[1:], names[0]])}"
    how = "found from the program, its masks and the zeros of its weights"
    if unknown:
        how += f"; '{unknown[0]}' is taken to use all that it is given"
    return CompileError(
        f"{text}: the step is not triangular, so that no order computes its elements one after another ({how})", where
    )


def _name(trace: func.FuncOp) -> str:
    attributes = ir.DictAttr(trace.arg_attrs[0])
    return ir.StringAttr(attributes["parc.name"]).value if "parc.name" in attributes else "x"
