"""Structured operations (`linalg`) on `Elements`.

An operation runs its body at all points of its iteration space at once; where an operand does not use an index, its
elements broadcast along it.  Sums of products are taken apart into unions over the factors that are not zero, without
ever holding all their terms; other reductions hold them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.irtools import defining_op, terminator, walk
from parc.poly.affine import value_at
from parc.triangular.bits import masked_unions
from parc.triangular.elements import Array, Bits, Elements, collapsed, union, whole
from parc.triangular.scalars import COMBINING, combine, numpy_type, opaque, reduced, scalar_rule

Lookup = Callable[[ir.Value], Elements]
"""What is known of a value that is defined before."""

_CASTS = ("arith.extf", "arith.extsi", "arith.extui", "arith.sitofp", "arith.uitofp", "arith.truncf")
_PRODUCTS = ("arith.mulf", "arith.muli")
_SUMS = ("arith.addf", "arith.addi")


def structured_results(op: ir.OpView, lookup: Lookup) -> list[Elements] | None:
    """What is known of the results of an operation; None where its form is not one that this file knows."""
    maps = linalg.get_indexing_maps(op)
    if maps is None:
        return None
    nest = _Nest(op, tuple(ir.AffineMapAttr(m).value for m in maps), lookup)
    return nest.results() if nest.is_regular() else None


@dataclass(frozen=True, eq=False)
class _Nest:
    """An operation as a loop nest; arrays "over the nest" have one dimension for each loop."""

    op: ir.OpView
    maps: tuple[ir.AffineMap, ...]
    lookup: Lookup

    @property
    def inputs(self) -> int:
        return len(self.op.operands) - len(self.op.results)

    @property
    def body(self) -> ir.Block:
        return self.op.operation.regions[0].blocks[0]

    def is_regular(self) -> bool:
        """Has every loop an extent, and every element of a result its own place?"""
        return min(self.extents, default=0) >= 0 and all(map(_is_placed, self.maps[self.inputs :]))

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Of the loops, -1 where no index is a loop alone."""
        found: dict[int, int] = {}
        for value, map_ in zip(self.op.operands, self.maps, strict=True):
            shape = value.type.shape if isinstance(value.type, ir.RankedTensorType) else ()
            for extent, expr in zip(shape, map_.results, strict=True):
                if isinstance(expr, ir.AffineDimExpr):
                    found[expr.position] = extent
        return tuple(found.get(d, -1) for d in range(self.maps[0].n_dims))

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """The loops that no result has an index for."""
        used = set().union(*(_dims(m) for m in self.maps[self.inputs :]))
        return tuple(d for d in range(len(self.extents)) if d not in used)

    def results(self) -> list[Elements]:
        yielded = list(terminator(self.body).operands)
        if not self.reductions:
            values = _Body(self).values(yielded)
            return [self.placed(v, k) for k, v in enumerate(values)]
        if len(yielded) == 1 and (found := self._reduction(yielded[0])) is not None:
            return [found]
        return [self._anything(k) for k in range(len(yielded))]

    def operand(self, number: int) -> Elements:
        """An operand over the nest."""
        elements, map_ = self.lookup(self.op.operands[number]), self.maps[number]
        rank, used = map_.n_dims, _dims(map_)
        if all(isinstance(e, ir.AffineDimExpr) for e in map_.results) and len(used) == len(map_.results):
            order = np.argsort([e.position for e in map_.results])
            shape = [n if d in used else 1 for d, n in enumerate(self.extents)]
            return elements.moved(lambda a: _permuted(a, order)).reshaped(shape)
        if not map_.results:
            return elements.reshaped([1] * rank)
        indices = [_over_nest(d, rank, n) for d, n in enumerate(self.extents)]
        nest = np.zeros([1] * rank, np.int64)
        return elements.taken(tuple(nest + value_at(e, indices) for e in map_.results))

    def placed(self, elements: Elements, result: int) -> Elements:
        """Elements over the nest (of size 1 along its reductions) as those of a result."""
        map_ = self.maps[self.inputs + result]
        extents = [1 if d in self.reductions else n for d, n in enumerate(self.extents)]
        elements = elements.broadcast(extents)
        kept = [e.position for e in map_.results if isinstance(e, ir.AffineDimExpr)]
        index = tuple(slice(None) if d in kept else 0 for d in range(len(extents)))
        order = [sorted(kept).index(d) for d in kept]
        moved = elements.taken(index).moved(lambda a: _permuted(a, order))
        return moved.reshaped(self.op.operation.results[result].type.shape)

    def _reduction(self, yielded: ir.Value) -> Elements | None:
        """A reduction that combines its terms one by one with what is in the result before; None for any other."""
        accumulator = self.body.arguments[self.inputs]
        last = defining_op(yielded)
        if last is None or last.operation.name not in COMBINING or len(list(accumulator.uses)) != 1:
            return None
        terms = [v for v in last.operation.operands if v != accumulator]
        if len(terms) != 1:
            return None
        name, dtype = last.operation.name, numpy_type(yielded.type)
        factors = self._factors(terms[0]) if name in _SUMS else None
        if factors is not None:
            total = self._product_sum(*factors, dtype)
        else:
            (term,) = _Body(self).values(terms)
            term = term if term.values.ndim else term.reshaped([1] * len(self.extents))
            total = reduced(name, term, self.reductions, [self.extents[d] for d in self.reductions], dtype)
        return self.placed(combine(name, self.operand(self.inputs), total, dtype), 0)

    def _factors(self, term: ir.Value) -> tuple[int, int] | None:
        """The numbers of the two operands that a term is the product of, perhaps cast to another type."""
        op = defining_op(term)
        if op is None or op.operation.name not in _PRODUCTS:
            return None
        numbers = []
        for factor in op.operation.operands:
            while (cast := defining_op(factor)) is not None and cast.operation.name in _CASTS:
                factor = cast.operation.operands[0]
            if not isinstance(factor.owner, ir.Block) or factor.owner != self.body:
                return None
            numbers.append(ir.BlockArgument(factor).arg_number)
        return (numbers[0], numbers[1]) if max(numbers) < self.inputs else None

    def _product_sum(self, first: int, second: int, dtype: np.dtype) -> Elements:
        """The sum over the nest's reductions of the products of two operands."""
        a, b = self.operand(first), self.operand(second)
        of_a, of_b = _dims(self.maps[first]), _dims(self.maps[second])
        free = [d for d in range(len(self.extents)) if d not in self.reductions]
        batch = [d for d in free if d in of_a & of_b]
        left, right = ([d for d in free if d in mine and d not in batch] for mine in (of_a, of_b))
        inner = [d for d in self.reductions if d in of_a & of_b]
        bits_a, nonzero_a = _factor(a, batch, left, inner, [d for d in self.reductions if d not in of_b])
        bits_b, nonzero_b = _factor(b, batch, right, inner, [d for d in self.reductions if d not in of_a])
        found = _batched_product(nonzero_a, nonzero_b)
        shape = [self.extents[d] for d in (*batch, *left, *right)]
        words = next((x.shape[-1] for x in (bits_a, bits_b) if x is not None), 0)
        bits = np.zeros((*found.shape, words), np.uint64) if words else None
        for n in range(len(found) if bits is not None else 0):
            assert bits is not None
            if bits_a is not None:
                bits[n] |= masked_unions(bits_a[n], nonzero_b[n].T)
            if bits_b is not None:
                bits[n] |= masked_unions(bits_b[n], nonzero_a[n].T).transpose(1, 0, 2)
        product = Elements.make(np.zeros(found.shape, dtype), ~found, bits).reshaped(shape)
        order, kept = np.argsort([*batch, *left, *right]), {*batch, *left, *right}
        over = [n if d in kept else 1 for d, n in enumerate(self.extents)]
        return product.moved(lambda x: _permuted(x, order)).reshaped(over)

    def _anything(self, result: int) -> Elements:
        """A result each of whose elements depends on all that the iterations for it read."""
        parts = [self.operand(number).bits for number in range(len(self.op.operands))]
        found = [np.bitwise_or.reduce(b, axis=self.reductions, keepdims=True) for b in parts if b is not None]
        found += [b for v in _captured(self.op.operation) if (b := collapsed(self.lookup(v))) is not None]
        type_ = self.op.operation.results[result].type
        dtype = numpy_type(type_.element_type)
        if not found:
            return Elements.unknown(type_.shape, dtype)
        bits = reduce(np.bitwise_or, found)
        shape = np.broadcast_shapes(bits.shape[:-1], (1,) * len(self.extents))
        return self.placed(Elements.unknown(shape, dtype, np.broadcast_to(bits, (*shape, bits.shape[-1]))), result)


class _Body:
    """Runs the body of an operation over its nest."""

    def __init__(self, nest: _Nest) -> None:
        self._nest = nest
        self._known: dict[ir.Value, Elements] = {}

    def values(self, wanted: Sequence[ir.Value]) -> list[Elements]:
        """What is known of values of the body, over the nest."""
        for op in self._nest.body.operations:
            if all(v in self._known for v in wanted):
                break
            for result in op.operation.results:
                self._known[result] = self._run(op.operation, result)
        return [self._value(v) for v in wanted]

    def _value(self, value: ir.Value) -> Elements:
        if value not in self._known:
            if isinstance(value.owner, ir.Block) and value.owner == self._nest.body:
                self._known[value] = self._nest.operand(ir.BlockArgument(value).arg_number)
            else:
                self._known[value] = self._nest.lookup(value)
        return self._known[value]

    def _run(self, op: ir.Operation, result: ir.Value) -> Elements:
        if op.name == "linalg.index":
            d = ir.IntegerAttr(op.attributes["dim"]).value
            return Elements.of(_over_nest(d, len(self._nest.extents), self._nest.extents[d]))
        if op.name == "arith.constant":
            return self._nest.lookup(op.results[0])
        if op.name == "tensor.extract":
            return extracted(self._nest.lookup(op.operands[0]), [self._value(v) for v in list(op.operands)[1:]])
        if len(op.results) == 1 and not len(op.regions):
            return scalar_rule(op, [self._value(v) for v in op.operands])
        read = [self._value(v) for v in (*op.operands, *_captured(op)) if not isinstance(v.type, ir.RankedTensorType)]
        tensors = [v for v in (*op.operands, *_captured(op)) if isinstance(v.type, ir.RankedTensorType)]
        return opaque([*read, *(whole(self._nest.lookup(v)) for v in tensors)], result.type)


def extracted(table: Elements, indices: Sequence[Elements]) -> Elements:
    """The elements of a tensor at indices, over whatever the indices are over.

    Along a dimension whose index is not known everywhere it may be any element.
    """
    if not indices:
        return table
    open_ = [d for d, index in enumerate(indices) if not index.known.all()]
    if open_:
        bits = table.bits
        if bits is not None:
            bits = np.bitwise_or.reduce(bits, axis=tuple(open_), keepdims=True)
        shape = [1 if d in open_ else n for d, n in enumerate(table.shape)]
        table = Elements.unknown(shape, table.values.dtype, bits)
    places = tuple(
        np.zeros_like(index.values) if d in open_ else np.clip(index.values, 0, max(0, table.shape[d] - 1))
        for d, index in enumerate(indices)
    )
    if not table.values.size:
        return Elements.unknown(np.broadcast_shapes(*(p.shape for p in places)), table.values.dtype)
    element = table.taken(places)
    parts = [element, *(indices[d] for d in open_)]
    return Elements.make(element.values, element.known, union(parts))


def _factor(
    elements: Elements, batch: Sequence[int], side: Sequence[int], inner: Sequence[int], alone: Sequence[int]
) -> tuple[Bits | None, NDArray[np.bool_]]:
    """A factor as matrices `[batch, side, inner]`, summed over what it alone is summed over: its bits and non-zeros.

    Elements that are known carry no bits, so that products with them get none of theirs.
    """
    groups = (batch, side, inner, alone)
    order = [d for group in groups for d in group]
    rest = tuple(d for d in range(elements.values.ndim) if d not in order)
    sizes = [prod(elements.shape[d] for d in group) for group in groups]
    arranged = elements.moved(lambda a: _permuted(a, [*order, *rest])).reshaped(sizes)
    bits = None if arranged.bits is None else np.bitwise_or.reduce(arranged.bits, axis=3)
    return bits, np.any(arranged.nonzero, axis=3)


def _batched_product(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[n, l, k]`, `[n, r, k]` -> `[n, l, r]`: whether some k is set in both."""
    return np.matmul(a.astype(np.float32), b.astype(np.float32).transpose(0, 2, 1)) > 0


def _captured(op: ir.Operation) -> list[ir.Value]:
    """What the regions of an operation read from outside of it."""
    nested = walk(op)
    inner = {result for child in nested for result in child.operation.results}
    for owner in (op, *nested):
        inner.update(a for region in owner.operation.regions for block in region.blocks for a in block.arguments)
    return [v for child in nested for v in child.operation.operands if v not in inner]


def _is_placed(map_: ir.AffineMap) -> bool:
    """Are a result's indices loops, each once, and zeros?"""
    dims = [e.position for e in map_.results if isinstance(e, ir.AffineDimExpr)]
    return len(set(dims)) == len(dims) and all(
        isinstance(e, ir.AffineDimExpr) or (isinstance(e, ir.AffineConstantExpr) and e.value == 0) for e in map_.results
    )


def _dims(map_: ir.AffineMap) -> set[int]:
    """The loops that indices are computed from."""
    found: set[int] = set()

    def visit(expr: ir.AffineExpr) -> None:
        expr = expr.maybe_downcast()
        if isinstance(expr, ir.AffineDimExpr):
            found.add(expr.position)
        elif isinstance(expr, ir.AffineBinaryExpr):
            visit(expr.lhs)
            visit(expr.rhs)

    for result in map_.results:
        visit(result)
    return found


def _over_nest(dim: int, rank: int, extent: int) -> NDArray[np.int64]:
    """The index of a loop, over the nest."""
    return np.arange(extent).reshape([extent if d == dim else 1 for d in range(rank)])


def _permuted(array: Array, order: Iterable[int]) -> Array:
    """The leading dimensions in this order; any behind them stay."""
    leading = [int(d) for d in order]
    return array.transpose([*leading, *range(len(leading), array.ndim)])
