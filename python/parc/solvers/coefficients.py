"""The coefficients of a recurrence at one index, as code: those of the equation itself, or of composed chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch_mlir import ir

from parc.solvers.affine import Copies
from parc.solvers.blocks import Blocks
from parc.solvers.recurrence import Recurrence
from parc.solvers.writer import Body, Point, Writer


class Coefficients(Protocol):
    """`x -> A x + b` at one index; the methods emit code."""

    def whole(self, state: ir.Value) -> ir.Value:
        """`A state + b`."""

    def constant(self) -> ir.Value:
        """`b`."""

    def block(self) -> ir.Value:
        """`A`."""

    def compose(self, earlier: ir.Value) -> ir.Value:
        """`A earlier`, where `earlier` is a block."""


class OwnCoefficients:
    """Those of the equation as it was given, at a point of its domain."""

    def __init__(self, recurrence: Recurrence, blocks: Blocks, body: Body, point: Point) -> None:
        self._affine = recurrence.body
        self._blocks = blocks
        self._new = lambda: Copies(recurrence.equation.op, body, point)
        self._copies = self._new()

    def whole(self, state: ir.Value) -> ir.Value:
        return self._affine.whole(self._new(), state)

    def constant(self) -> ir.Value:
        return self._affine.constant(self._copies)

    def block(self) -> ir.Value:
        return self._affine.linear(self._copies, self._blocks.identity())

    def compose(self, earlier: ir.Value) -> ir.Value:
        return self._affine.linear(self._copies, earlier)


@dataclass(frozen=True)
class Arrays:
    """Unknown arrays of the coefficients `A` and `b`."""

    blocks: ir.Value
    constants: ir.Value

    @classmethod
    def new(
        cls, recurrence: Recurrence, blocks: Blocks, writer: Writer, number: int, *leading: ir.AffineExpr | int
    ) -> "Arrays":
        """Arrays `[others, leading, tile]`, with a number in their names."""
        state, name = recurrence.body.result, recurrence.body.name
        extents = [*(stop - start for start, stop in recurrence.others), *leading]
        return cls(
            writer.tiles(f"{name}_A{number}", extents, state, blocks.columns),
            writer.tiles(f"{name}_b{number}", extents, state),
        )


class StoredCoefficients:
    """Those that other equations have computed."""

    def __init__(self, arrays: Arrays, blocks: Blocks, body: Body, at: Sequence[ir.AffineExpr]) -> None:
        self._blocks = blocks
        self._block = body.read(arrays.blocks, at)
        self._constant = body.read(arrays.constants, at)

    def whole(self, state: ir.Value) -> ir.Value:
        return self._blocks.plus(self._blocks.times(self._block, state), self._constant)

    def constant(self) -> ir.Value:
        return self._constant

    def block(self) -> ir.Value:
        return self._block

    def compose(self, earlier: ir.Value) -> ir.Value:
        return self._blocks.compose(self._block, earlier)


def write_results(recurrence: Recurrence, body: Body, point: Point) -> None:
    """What the equation writes besides its state, at a point whose state before is known."""
    copies = Copies(recurrence.equation.op, body, point)
    for write in recurrence.results:
        tile, array = write.operands
        body.write(copies.of(tile), array, body.access(write, point))
