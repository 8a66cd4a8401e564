"""Tiles that are sums: their terms, and a term solved from the sum."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.autodiff.emit import empty, generic, is_permutation, iterators
from parc.autodiff.extents import Sizes
from parc.codegen.irtools import captured_values, clone_with, terminator

_PARALLEL = "parallel"


@dataclass(frozen=True)
class _Scalar:
    """One scalar operation on the way from a sum to its term: the term is in its operand `operand`."""

    op: ir.Operation
    operand: int


@dataclass(frozen=True)
class _Step:
    """One operation on tiles on that way: the term is in its input `operand`, and there in these scalar operations."""

    op: ir.Operation
    operand: int
    scalars: tuple[_Scalar, ...]

    @property
    def argument(self) -> ir.Value:
        """The scalar that stands for the input."""
        return self.op.regions[0].blocks[0].arguments[self.operand]


@dataclass(frozen=True)
class Term:
    """A tile that is read and, through the `steps` from the sum on, is a term of it, with either sign."""

    read: ir.Operation
    steps: tuple[_Step, ...]

    def others(self) -> list[ir.Value]:
        """The tiles, and values from outside, that the sum has besides the term."""
        found: list[ir.Value] = []
        for step in self.steps:
            operands = list(step.op.operands)
            del operands[step.operand]
            found += dict.fromkeys(
                [*operands, *(v for v in captured_values(step.op) if v not in set(step.op.operands))]
            )
        return found


def terms(value: ir.Value) -> Iterator[Term]:
    """The tiles that are read (`parc.read`) and are terms of a value, element by element."""
    if isinstance(value.owner, ir.Block):
        return
    op = value.owner.operation
    if op.name == "parc.read":
        yield Term(op, ())
    elif op.name == "linalg.generic" and len(op.results) == 1:
        for step in _steps(op):
            for term in terms(op.operands[step.operand]):
                yield Term(term.read, (step, *term.steps))


def solve(term: Term, total: ir.Value, emit: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """The term that makes the sum `total`, at the current insertion point; `emit` gives the sum's other values."""
    for step in term.steps:
        total = _solve(step, total, emit)
    return total


def _steps(op: ir.Operation) -> Iterator[_Step]:
    """The inputs of an operation that are terms of its result, element by element."""
    maps = [ir.AffineMapAttr(m).value for m in linalg.get_indexing_maps(op.opview)]
    if not is_permutation(maps[-1]) or set(iterators(maps[-1:])) - {_PARALLEL}:
        return
    block = op.regions[0].blocks[0]
    for operand, map_ in enumerate(maps[:-1]):
        if map_ == maps[-1] and op.operands[operand].type == op.results[0].type:
            way = _way(terminator(block).operands[0], block.arguments[operand])
            if way is not None:
                yield _Step(op, operand, tuple(way))


def _way(total: ir.Value, term: ir.Value) -> list[_Scalar] | None:
    """The additions, subtractions and negations from a sum to its term; None where it is no plain term of it."""
    way: list[_Scalar] = []
    while total != term:
        if isinstance(total.owner, ir.Block) or total.owner.operation.block != term.owner:
            return None
        op = total.owner.operation
        inside = [i for i, v in enumerate(op.operands) if _depends(v, term)]
        if op.name not in ("arith.addf", "arith.subf", "arith.negf") or len(inside) != 1:
            return None
        way.append(_Scalar(op, inside[0]))
        total = op.operands[inside[0]]
    return way


def _depends(value: ir.Value, on: ir.Value) -> bool:
    if value == on:
        return True
    inside = not isinstance(value.owner, ir.Block) and value.owner.operation.block == on.owner
    return inside and any(_depends(v, on) for v in captured_values(value.owner))


def _solve(step: _Step, total: ir.Value, emit: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """One operation's input from its result."""
    maps = [ir.AffineMapAttr(m).value for m in linalg.get_indexing_maps(step.op.opview)]
    block = step.op.regions[0].blocks[0]
    others = [i for i in range(len(maps) - 1) if i != step.operand and list(block.arguments[i].uses)]
    inputs = [total, *(emit(step.op.operands[i]) for i in others)]
    own = maps[step.operand]
    op = generic(inputs, [empty(total, Sizes())], [own, *(maps[i] for i in others), own])
    arguments = op.regions[0].blocks[0].arguments
    values = dict(zip((block.arguments[i] for i in others), list(arguments)[1:], strict=False))
    for outer in captured_values(step.op):
        if outer not in set(step.op.operands):
            values[outer] = emit(outer)

    def scalar(value: ir.Value) -> ir.Value:
        if value not in values and not isinstance(value.owner, ir.Block) and value.owner.operation.block == block:
            for operand in captured_values(value.owner):
                scalar(operand)
            clone_with(value.owner, values)
        return values.get(value, value)

    with ir.InsertionPoint(op.regions[0].blocks[0]):
        result = arguments[0]
        for way in step.scalars:
            other = scalar(way.op.operands[1 - way.operand]) if len(way.op.operands) > 1 else None
            if other is None:
                result = arith.negf(result)
            elif way.op.name == "arith.addf":
                result = arith.subf(result, other)
            else:
                result = arith.addf(result, other) if way.operand == 0 else arith.subf(other, result)
        linalg.YieldOp([result])
    return op.results[0]
