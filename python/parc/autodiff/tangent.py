"""Forward-mode derivatives of straight-line tensor code: how a tile changes with another one, the *state*.

A tile `[rows, n]` depends on a state `[rows, units]`, row by row.  Its derivative, a `Tangent`, is the sum of

* a *diagonal*, shaped like the tile: what element j of a row has of element `j mod units` of the state's row;
* a *dense* part `[rows, units, n]`: what element j of a row has of each element of the state's row.

A diagonal stays one where elements are combined at their places, and a product with a matrix makes it dense:

    z = sigmoid(h W);  h' = z * h         dense of z: z (1 - z) W,  dense of h': h * dense of z,  diagonal of h': z

With `is_dense` false there are no dense parts.  A product of a diagonal with a matrix of n columns, a multiple of the
units, keeps for each column the one row of the matrix that is the same unit's (the diagonals of the weights of each
gate), and what has no such form counts as constant: less than the derivative, for methods that need none.

Of rows that depend on other rows, only what they have of themselves is found.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.autodiff import emit, scalar, structured
from parc.autodiff.body import OpenBody
from parc.autodiff.extents import Sizes, split
from parc.autodiff.irtools import is_outside
from parc.codegen.extents import mixed
from parc.codegen.irtools import captured_values, defining_op
from parc.codegen.sizes import Size
from parc.errors import CompileError

_EXTREMA = ("arith.maximumf", "arith.maxnumf", "arith.minimumf", "arith.minnumf")


@dataclass(frozen=True)
class Tangent:
    """The derivative of a tile; a part that is None is zero."""

    diagonal: ir.Value | None = None
    dense: ir.Value | None = None

    @property
    def is_zero(self) -> bool:
        return self.diagonal is None and self.dense is None


class Forward:
    """The tangents of the values of an equation's body by one state, emitted at the insertion point when asked for.

    states: the values that are the state's tile.  Its last extent, the units, is static; where it is not, the tile has
    no dimension for units, and each row is one number.  CompileError for operations
    that have no derivative, and where `is_dense` for those whose derivative has no such form.
    """

    def __init__(self, equation: ir.Operation, states: Collection[ir.Value], is_dense: bool) -> None:
        self._system = equation.parent.operation
        self._block = equation.regions[0].blocks[0]
        self._is_dense = is_dense
        self._sizes = Sizes()
        self._found: dict[ir.Value, Tangent] = {}
        self._active = set(states)
        for op in self._block.operations:
            if any(v in self._active for v in captured_values(op)):
                self._active.update(op.operation.results)
        tile = ir.RankedTensorType(next(iter(states)).type)
        self._units = 1 if is_bare(tile) else int(tile.shape[-1])
        for state in states:
            ones = emit.filled(emit.empty(state, self._sizes), 1.0)
            self._found[state] = Tangent(diagonal=ones)

    def of(self, value: ir.Value) -> Tangent:
        """The tangent of a value of the body."""
        if value not in self._active or not emit.is_continuous(value.type):
            return Tangent()
        if value not in self._found:
            op = value.owner.operation
            for operand in captured_values(op):
                self.of(operand)
            with op.location:
                self._found[value] = self._derive(op, value)
        return self._found[value]

    def as_dense(self, tangent: Tangent) -> ir.Value | None:
        """A tangent of a tile that has as many columns as the state, as one dense part."""
        if tangent.diagonal is None:
            return tangent.dense
        spread = self._spread(tangent.diagonal)
        return spread if tangent.dense is None else emit.add(tangent.dense, spread, self._sizes)

    # -- operations --------------------------------------------------------------------------------------------

    def _derive(self, op: ir.Operation, value: ir.Value) -> Tangent:
        if structured.is_structured(op):
            return self._of_structured(op, value)
        rules: dict[str, Callable[[ir.Operation], Tangent]] = {
            "tensor.extract_slice": self._of_slice,
            "tensor.concat": self._of_concat,
            "tensor.collapse_shape": self._of_collapse,
            "tensor.expand_shape": self._of_expand,
            "tensor.cast": self._of_cast,
        }
        if op.name in rules:
            return rules[op.name](op)
        if op.name in scalar.ZERO or not self._is_dense:
            return Tangent()
        raise CompileError(f"'{op.name}' has no forward derivative", op.location)

    def _of_structured(self, op: ir.Operation, value: ir.Value) -> Tangent:
        number = ir.OpResult(value).result_number
        with OpenBody(op, self._sizes) as body:
            out = body.result_map(number)
            same, summed, others = self._sorted(op, body, out)
        parts = []
        if same:
            parts.append(Tangent(diagonal=self._pushed(op, number, same, _At())))
        for operand, (diagonal, dim) in summed.items():
            parts.append(self._of_contraction(op, number, operand, diagonal, dim))
        for operand, diagonal in others.items():
            parts.append(self._of_other(op, number, operand, diagonal))
        dense = {i: t.dense for i, v in enumerate(op.operands) if (t := self.of(v)).dense is not None}
        if dense:
            parts.append(Tangent(dense=self._pushed(op, number, dense, _At(is_dense=True))))
        start = op.operands[len(op.operands) - len(op.results) + number]
        if _is_sum(op, number) and not self.of(start).is_zero:
            parts.append(self.of(start))
        return self._total(parts)

    def _sorted(
        self, op: ir.Operation, body: OpenBody, out: ir.AffineMap
    ) -> tuple[dict[int, ir.Value], dict[int, tuple[ir.Value, int]], dict[int, ir.Value]]:
        """The operands with a diagonal: at the result's place, summed over their units, or neither.

        All are diagonal where the state is one number.
        """
        same: dict[int, ir.Value] = {}
        summed: dict[int, tuple[ir.Value, int]] = {}
        others: dict[int, ir.Value] = {}
        last = _last_dim(out)
        for number, operand in enumerate(op.operands):
            diagonal = self.of(operand).diagonal
            if diagonal is None or (number >= body.input_count and _is_sum(op, number - body.input_count)):
                continue
            dim = _last_dim(body.maps[number])
            if self._units == 1 or (dim is not None and dim == last):
                same[number] = diagonal
            elif dim is not None and all(e != ir.AffineExpr.get_dim(dim) for e in out.results):
                summed[number] = diagonal, dim
            else:
                others[number] = diagonal
        return same, summed, others

    def _of_contraction(self, op: ir.Operation, number: int, operand: int, diagonal: ir.Value, dim: int) -> Tangent:
        """Of a tile with a diagonal over whose units an operation sums: each of them becomes one of the state's."""
        if not self._is_dense:
            return Tangent(diagonal=self._of_weights(op, operand, diagonal))
        if diagonal.type.shape[-1] != self._units:
            raise CompileError("the derivative of a tile that is put together from several has no form", op.location)
        return Tangent(dense=self._pushed(op, number, {operand: diagonal}, _At(is_dense=True, unit=dim)))

    def _of_other(self, op: ir.Operation, number: int, operand: int, diagonal: ir.Value) -> Tangent:
        """Of a tile that an operation moves in another way."""
        if not self._is_dense:
            return Tangent()
        dense = {operand: self._spread(diagonal)}
        return Tangent(dense=self._pushed(op, number, dense, _At(is_dense=True)))

    def _pushed(self, op: ir.Operation, number: int, tangents: dict[int, ir.Value], at: "_At") -> ir.Value | None:
        """The part of a result's tangent that comes from these tangents of operands."""
        with OpenBody(op, self._sizes) as body:
            unit = body.add_dimension() if at.is_dense and at.unit is None else None
            inputs, out = [body.maps[i] for i in tangents], body.result_map(number)
            if unit is not None:
                inputs = [_with_unit(m, unit) for m in inputs]
            if at.is_dense:
                place = at.unit if unit is None else unit
                assert place is not None
                out = _with_unit(out, place)
            scalars = {
                body.block.arguments[i]: body.see(t, m) for (i, t), m in zip(tangents.items(), inputs, strict=True)
            }
            forward = body.ops
            with body.adding():
                term = self._push(body, number, forward, scalars)
            body.take_results(body.ops[len(forward) :])
            if term is None:
                return None
            result = op.results[number]
            extents = self._sizes.of(result)
            if at.is_dense:
                extents = [*extents[:-1], self._units, extents[-1]]
            own = body.operand_of(term)
            if own is not None and own.map == out and emit.is_permutation(out):
                return own.value
            return body.array(term, out, extents, result.type.element_type)

    def _push(
        self, body: OpenBody, number: int, ops: Sequence[ir.Operation], scalars: dict[ir.Value, ir.Value]
    ) -> ir.Value | None:
        """The tangent of what is yielded, or of what an iteration adds to it."""
        value, before = body.yielded[number], body.result_argument(number)
        scalar.push_forward(ops, scalars)
        if not body.reduces(number):
            return scalars.get(value)
        owner = defining_op(value)
        terms = [v for v in owner.operation.operands if v != before] if owner is not None else []
        if owner is None or len(terms) != 1 or owner.operation.name not in ("arith.addf", *_EXTREMA):
            if self._is_dense:
                raise CompileError("a reduction other than a sum or maximum has no derivative here", body.op.location)
            return None
        term = scalars.get(terms[0])
        if term is None or owner.operation.name == "arith.addf":
            return term
        # Of equal ones all count: a derivative on one side of a kink or the other.
        extremum = body.see(body.op.results[number], body.result_map(number))
        is_extremum = arith.cmpf(arith.CmpFPredicate.OEQ, terms[0], extremum)
        return arith.select(is_extremum, term, emit.constant(term.type, 0))

    # -- diagonals ---------------------------------------------------------------------------------------------

    def _of_weights(self, op: ir.Operation, operand: int, diagonal: ir.Value) -> ir.Value | None:
        """Of a product with a matrix from outside: what each column has of its own unit; None for other operations."""
        if op.name not in ("linalg.matmul", "linalg.vecmat") or operand != 0:
            return None
        weight = op.operands[1]
        rows, columns = weight.type.shape
        if not is_outside(weight, self._block) or rows != self._units or columns % rows:
            return None
        groups = columns // rows
        type_ = weight.type.element_type
        with ir.InsertionPoint(self._system):
            wide = tensor.expand_shape(
                ir.RankedTensorType.get([rows, groups, rows], type_), weight, [[0], [1, 2]], [], [rows, groups, rows]
            )
            g, u = ir.AffineExpr.get_dim(0), ir.AffineExpr.get_dim(1)
            maps = [ir.AffineMap.get(2, 0, [u, g, u]), ir.AffineMap.get_identity(2)]
            own = _mapped([wide], emit.empty_of([groups, rows], type_), maps, lambda w: w)
        *leading, _ = self._sizes.of(diagonal)
        count = len(leading)
        dims = [ir.AffineExpr.get_dim(d) for d in range(count + 2)]
        maps = [
            ir.AffineMap.get(count + 2, 0, [*dims[:count], dims[count + 1]]),
            ir.AffineMap.get(count + 2, 0, dims[count:]),
            ir.AffineMap.get_identity(count + 2),
        ]
        spread = _mapped([diagonal, own], emit.empty_of([*leading, groups, rows], type_), maps, arith.mulf)
        groups_of = [[d] for d in range(count)] + [[count, count + 1]]
        return tensor.CollapseShapeOp(op.results[0].type, spread, _reassociation(groups_of)).result

    def _spread(self, diagonal: ir.Value) -> ir.Value:
        """A diagonal as a dense part."""
        if is_bare(diagonal.type):
            diagonal = with_units(diagonal)
        *leading, last = self._sizes.of(diagonal)
        if last != self._units:
            raise CompileError(
                "the derivative of a tile that is put together from several has no form", diagonal.owner.location
            )
        element, count = diagonal.type.element_type, len(leading)
        dims = [ir.AffineExpr.get_dim(d) for d in range(count + 2)]
        with ir.InsertionPoint(self._system):
            eye = identity_matrix(self._units, element)
        maps = [
            ir.AffineMap.get(count + 2, 0, [*dims[:count], dims[-1]]),
            ir.AffineMap.get(count + 2, 0, dims[count:]),
            ir.AffineMap.get_identity(count + 2),
        ]
        return _mapped([diagonal, eye], emit.empty_of([*leading, last, last], element), maps, arith.mulf)

    # -- what moves elements -----------------------------------------------------------------------------------

    def _of_slice(self, op: ir.Operation) -> Tangent:
        tangent = self.of(op.operands[0])
        offsets, extents, strides = (mixed(op, n) for n in ("offsets", "sizes", "strides"))
        source, type_ = op.operands[0].type, op.results[0].type
        is_whole = type_.rank > 0 and source.shape[-1] == extents[-1] == type_.shape[-1]
        if not (is_whole or self._keeps_units(offsets[-1:], extents[-1:], strides[-1:])):
            tangent = self._only_dense(tangent)
        return self._moved(
            tangent,
            lambda v: emit.extract_slice(v, offsets, extents, strides, type_),
            lambda v: emit.extract_slice(
                v,
                [*offsets[:-1], 0, offsets[-1]],
                [*extents[:-1], self._units, extents[-1]],
                [*strides[:-1], 1, strides[-1]],
                _with_units(type_, self._units),
            ),
        )

    def _of_concat(self, op: ir.Operation) -> Tangent:
        dim = ir.IntegerAttr(op.attributes["dim"]).value
        rank = op.results[0].type.rank
        tangents = [self.of(v) for v in op.operands]
        if dim == rank - 1:
            if not all(self._keeps_units([0], [v.type.shape[-1]], [1]) for v in op.operands):
                tangents = [self._only_dense(t) for t in tangents]
        return Tangent(
            self._joined(op, [t.diagonal for t in tangents], dim, lambda v: self._sizes.of(v)),
            self._joined(
                op,
                [t.dense for t in tangents],
                dim + (dim == rank - 1),
                lambda v: [*(e := self._sizes.of(v))[:-1], self._units, e[-1]],
            ),
        )

    def _joined(
        self,
        op: ir.Operation,
        parts: Sequence[ir.Value | None],
        dim: int,
        extents: Callable[[ir.Value], list[Size]],
    ) -> ir.Value | None:
        """Parts next to each other, with zeros for those that are None."""
        if all(p is None for p in parts):
            return None
        element = op.results[0].type.element_type
        pieces = [
            emit.filled(emit.empty_of(extents(v), element)) if p is None else p
            for p, v in zip(parts, op.operands, strict=True)
        ]
        mark = ir.ShapedType.get_dynamic_size()
        shape = list(pieces[0].type.shape)
        sizes = [p.type.shape[dim] for p in pieces]
        shape[dim] = mark if mark in sizes else sum(sizes)
        return tensor.ConcatOp(ir.RankedTensorType.get(shape, element), dim, pieces).result

    def _of_collapse(self, op: ir.Operation) -> Tangent:
        groups = [[d.value for d in group] for group in op.attributes["reassociation"]]
        tangent, type_ = self.of(op.operands[0]), op.results[0].type
        if self._units > 1 and groups and len(groups[-1]) > 1 and type_.shape[-1] != op.operands[0].type.shape[-1]:
            tangent = self._only_dense(tangent)
            if tangent.dense is not None:
                raise CompileError("the derivative of columns that are made one has no form", op.location)
        return self._moved(
            tangent,
            lambda v: tensor.CollapseShapeOp(type_, v, op.attributes["reassociation"]).result,
            lambda v: tensor.CollapseShapeOp(_with_units(type_, self._units), v, _with_unit_group(groups)).result,
        )

    def _of_expand(self, op: ir.Operation) -> Tangent:
        groups = [[d.value for d in group] for group in op.attributes["reassociation"]]
        tangent, type_ = self.of(op.operands[0]), op.results[0].type
        if self._units > 1 and groups and len(groups[-1]) > 1 and type_.shape[-1] != op.operands[0].type.shape[-1]:
            tangent = self._only_dense(tangent)
            if tangent.dense is not None:
                raise CompileError("the derivative of columns that are cut into groups has no form", op.location)
        extents = self._sizes.of(op.results[0])
        return self._moved(
            tangent,
            lambda v: tensor.ExpandShapeOp(type_, v, op.attributes["reassociation"], *split(extents)).result,
            lambda v: (
                tensor.ExpandShapeOp(
                    _with_units(type_, self._units),
                    v,
                    _with_unit_group(groups),
                    *split([*extents[:-1], self._units, extents[-1]]),
                ).result
            ),
        )

    def _of_cast(self, op: ir.Operation) -> Tangent:
        type_ = op.results[0].type
        return self._moved(
            self.of(op.operands[0]),
            lambda v: tensor.cast(type_, v),
            lambda v: tensor.cast(_with_units(type_, self._units), v),
        )

    def _moved(
        self, tangent: Tangent, diagonal: Callable[[ir.Value], ir.Value], dense: Callable[[ir.Value], ir.Value]
    ) -> Tangent:
        return Tangent(
            None if tangent.diagonal is None else diagonal(tangent.diagonal),
            None if tangent.dense is None else dense(tangent.dense),
        )

    def _keeps_units(self, offsets: Sequence[Size], extents: Sequence[Size], strides: Sequence[Size]) -> bool:
        """Whether these columns have diagonals, as parts of a tile or side by side: each is of the unit that it was."""
        if self._units == 1:
            return True
        numbers = [*offsets, *extents]
        return (
            not self._is_dense
            and all(isinstance(n, int) and n % self._units == 0 for n in numbers)
            and list(strides) == [1] * len(strides)
        )

    def _only_dense(self, tangent: Tangent) -> Tangent:
        """The tangent without a diagonal: as a part of the dense one, or as nothing."""
        return Tangent(dense=self.as_dense(tangent)) if self._is_dense else Tangent()

    def _total(self, parts: Sequence[Tangent]) -> Tangent:
        diagonals = [p.diagonal for p in parts if p.diagonal is not None]
        denses = [p.dense for p in parts if p.dense is not None]
        return Tangent(
            emit.total(diagonals, self._sizes) if diagonals else None,
            emit.total(denses, self._sizes) if denses else None,
        )


@dataclass(frozen=True)
class _At:
    """Which tangents go through an operation: diagonals, or dense parts, whose units are an iteration dimension."""

    is_dense: bool = False
    unit: int | None = None
    """The operation's own dimension that the units are; None for a new one."""


def identity_matrix(size: int, element: ir.Type) -> ir.Value:
    """Ones on the diagonal of a square matrix, emitted at the insertion point."""
    op = emit.generic([], [emit.empty_of([size, size], element)], [ir.AffineMap.get_identity(2)])
    with ir.InsertionPoint(op.regions[0].blocks[0]):
        row, column = linalg.IndexOp(0).result, linalg.IndexOp(1).result
        same = arith.cmpi(arith.CmpIPredicate.eq, row, column)
        linalg.YieldOp([arith.select(same, emit.constant(element, 1), emit.constant(element, 0))])
    return op.results[0]


def _mapped(
    inputs: Sequence[ir.Value], out: ir.Value, maps: Sequence[ir.AffineMap], function: Callable[..., ir.Value]
) -> ir.Value:
    """A function of the elements that the maps see."""
    op = emit.generic(inputs, [out], maps)
    block = op.regions[0].blocks[0]
    with ir.InsertionPoint(block):
        linalg.YieldOp([function(*list(block.arguments)[:-1])])
    return op.results[0]


def _is_sum(op: ir.Operation, number: int) -> bool:
    """Whether a result is a reduction, which starts from its operand."""
    maps = linalg.get_indexing_maps(op.opview)
    map_ = ir.AffineMapAttr(maps[len(op.operands) - len(op.results) + number]).value
    return emit.REDUCTION in emit.iterators([map_])


def _last_dim(map_: ir.AffineMap) -> int | None:
    """The iteration dimension that walks the last dimension of an operand."""
    last = map_.results[-1] if len(map_.results) else None
    return last.position if isinstance(last, ir.AffineDimExpr) else None


def is_bare(tile: ir.RankedTensorType) -> bool:
    """Has a tile no dimension for units: is each of its rows one number?"""
    return not tile.rank or bool(tile.is_dynamic_dim(tile.rank - 1))


def with_units(tile: ir.Value) -> ir.Value:
    """A bare tile with a dimension for its one unit."""
    type_ = ir.RankedTensorType.get([*tile.type.shape, 1], tile.type.element_type)
    rank = tile.type.rank
    groups = [*([d] for d in range(rank - 1)), [rank - 1, rank]] if rank else []
    return tensor.ExpandShapeOp(type_, tile, _reassociation(groups), *split([*Sizes().of(tile), 1])).result


def _with_unit(map_: ir.AffineMap, unit: int) -> ir.AffineMap:
    """The map of a dense part: the state's units come in front of the last dimension."""
    results = list(map_.results)
    results.insert(len(results) - 1, ir.AffineExpr.get_dim(unit))
    return ir.AffineMap.get(map_.n_dims, 0, results)


def _with_units(type_: ir.RankedTensorType, units: int) -> ir.RankedTensorType:
    shape = list(type_.shape)
    return ir.RankedTensorType.get([*shape[:-1], units, shape[-1]], type_.element_type)


def _with_unit_group(groups: Sequence[Sequence[int]]) -> ir.ArrayAttr:
    """A reassociation of dense parts: the units, in front of the last dimension, are a group of their own."""
    *others, (*leading, last) = groups
    # What the last group has in front of the columns is of extent 1.
    return _reassociation([*others, [*leading, last], [last + 1]])


def _reassociation(groups: Sequence[Sequence[int]]) -> ir.ArrayAttr:
    i64 = ir.IntegerType.get_signless(64)
    return ir.ArrayAttr.get([ir.ArrayAttr.get([ir.IntegerAttr.get(i64, d) for d in group]) for group in groups])
