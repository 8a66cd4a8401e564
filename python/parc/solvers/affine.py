"""The two halves of an affine body, `x -> A x + b`, as code: what remains at x = 0, and its linear part.

Every operation between the state that is read and the tile that is written is taken over with its additive operands
replaced: for b the state is zero, for A everything known is.  Zeros are left out: `a * h + x` gives `x` and `a * v`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, tensor

from parc.autodiff.emit import extract_slice
from parc.codegen.extents import mixed
from parc.codegen.irtools import captured_values, clone_with, defining_op
from parc.errors import CompileError
from parc.recurrence.extents import extents_of
from parc.solvers.writer import Body, Point

_VIEWS = ("tensor.extract_slice", "tensor.collapse_shape", "tensor.expand_shape", "tensor.cast")
_UNARY = ("arith.extf", "arith.truncf", "arith.negf")

Values = dict[ir.Value, ir.Value]


class Copies:
    """Copies of the operations of an equation in the body of a new one: those of one point of its domain."""

    def __init__(self, equation: ir.Operation, body: Body, point: Point) -> None:
        self.values: Values = {}
        self._block = equation.regions[0].blocks[0]
        self._body = body
        self._point = point

    def of(self, value: ir.Value) -> ir.Value:
        """The copy of a value, with all that it is computed from; values from outside the equation as they are."""
        owner = defining_op(value)
        if value in self.values or (value.owner if owner is None else owner.operation.block) != self._block:
            return self.values.get(value, value)
        if owner is None:
            self.values[value] = self._body.index(self._point[ir.BlockArgument(value).arg_number])
        elif owner.operation.name == "parc.read":
            self.values[value] = self._body.read_at(owner.operation, self._point)
        else:
            for operand in captured_values(owner):
                self.of(operand)
            clone_with(owner, self.values)
        return self.values[value]


@dataclass(frozen=True)
class _Leaf:
    """An argument of a linalg operation's region, or a value from outside of it."""

    value: ir.Value


@dataclass(frozen=True)
class _Apply:
    """A scalar operation like `op` on other scalars."""

    op: ir.Operation
    arguments: tuple["_Scalar", ...]


_Scalar = _Leaf | _Apply | None
"""A scalar expression; None for zero."""


class AffineBody:
    """The body of an equation as an affine function of the tile `state` that it reads; CompileError if it is none.

    The methods emit code at the insertion point.
    """

    def __init__(self, equation: ir.Operation, state: Sequence[ir.Value], result: ir.Value) -> None:
        self.name = ir.StringAttr(equation.attributes["name"]).value
        self.result = result
        """The value that is written."""
        self.states = frozenset(state)
        """The results of the reads of the state, which are all the same tile."""
        self._system = equation.parent.operation
        self._arguments = set(equation.regions[0].blocks[0].arguments)
        self._active = set(state)
        operations = [o.operation for o in equation.regions[0].blocks[0].operations]
        for op in operations:
            if any(v in self._active for v in captured_values(op)):
                self._active.update(op.results)
        needed = _sources(result, operations, captured_values)
        self.operations = [op for op in operations if op in needed]
        """Those that the result needs, in order."""
        self.is_diagonal = all([_Structured(self, op).check() for op in self.operations if self._computes(op)])
        """Does each element of the result depend on the same element of the state only?"""
        self._factors = _sources(result, self.operations, self._linear_operands)

    @property
    def varies(self) -> bool:
        """Does A depend on the point?"""
        reads = [op for op in self._factors if op.name == "parc.read" and op.results[0] not in self.states]
        return bool(reads) or any(v in self._arguments for op in self._factors for v in captured_values(op))

    def whole(self, copies: Copies, state: ir.Value) -> ir.Value:
        """`A state + b`; nothing else can be emitted with the same copies afterwards."""
        copies.values.update(dict.fromkeys(self.states, state))
        return copies.of(self.result)

    def constant(self, copies: Copies) -> ir.Value:
        """`b`."""
        part = _Part(self, copies, None, with_known=True).value(self.result)
        return self.filled(self.result, 0.0) if part is None else part

    def linear(self, copies: Copies, state: ir.Value) -> ir.Value:
        """`A state`; of all columns `state[k]` at once where it has one dimension more than the state."""
        part = _Part(self, copies, state, with_known=False).value(self.result)
        return self.filled(self.result, 0.0) if part is None else part

    def filled(self, like: ir.Value, number: float, columns: Sequence[int] = ()) -> ir.Value:
        """A tensor of equal elements, shaped like a value of the body with more dimensions in front."""
        return linalg.fill(arith.constant(like.type.element_type, number), outs=[self.empty(like, columns)])

    def empty(self, like: ir.Value, columns: Sequence[int] = ()) -> ir.Value:
        """The same without elements."""
        type_ = ir.RankedTensorType(like.type)
        sizes: list[int | ir.Value] = [*columns]
        for d, extent in enumerate(extents_of(like, self._system)):
            sizes.append(self._size(extent) if type_.is_dynamic_dim(d) else type_.get_dim_size(d))
        return tensor.empty(sizes, type_.element_type)

    def is_active(self, value: ir.Value) -> bool:
        """Does a value depend on the state?"""
        return value in self._active

    def _computes(self, op: ir.Operation) -> bool:
        return op.name != "parc.read" and any(r in self._active for r in op.results)

    def _linear_operands(self, op: ir.Operation) -> list[ir.Value]:
        """The operands of an operation that the linear part of its results is computed from."""
        return _Structured(self, op).linear_operands() if self._computes(op) else captured_values(op)

    def _size(self, extent: ir.AffineExpr) -> ir.Value:
        symbols = list(self._system.operands)
        if isinstance(extent, ir.AffineSymbolExpr):
            return symbols[extent.position]
        return affine.AffineApplyOp(ir.AffineMap.get(0, len(symbols), [extent]), symbols).result


def _sources(
    value: ir.Value, among: Sequence[ir.Operation], operands: Callable[[ir.Operation], Sequence[ir.Value]]
) -> set[ir.Operation]:
    """The operations that a value is computed from."""
    found: set[ir.Operation] = set()
    pending = [value]
    while pending:
        owner = defining_op(pending.pop())
        if owner is not None and owner.operation not in found and owner.operation in among:
            found.add(owner.operation)
            pending += operands(owner.operation)
    return found


class _Structured:
    """One operation of the body that depends on the state: a view, or a linalg operation."""

    def __init__(self, body: AffineBody, op: ir.Operation) -> None:
        self.body = body
        self.op = op
        self.is_view = op.name in _VIEWS
        if self.is_view:
            return
        maps = linalg.get_indexing_maps(op.opview) if op.name.startswith("linalg.") else None
        if maps is None or len(op.results) != 1:
            raise self._not_affine(op)
        self.block = op.regions[0].blocks[0]
        self.maps = [ir.AffineMapAttr(m).value for m in maps]
        self.out = len(op.operands) - 1
        self.reduces = self.maps[self.out].n_dims > len(self.maps[self.out].results)
        self.yielded: ir.Value = list(self.block.operations)[-1].operation.operands[0]
        if self.reduces:
            self.yielded = self._summand()

    def operand(self, value: ir.Value) -> ir.Value:
        """The operand that an argument of the region is an element of; other values as they are."""
        if isinstance(value.owner, ir.Block) and value.owner == self.block:
            return self.op.operands[ir.BlockArgument(value).arg_number]
        return value

    def check(self) -> bool:
        """Raise CompileError unless the operation is linear; whether it keeps every element at its place."""
        if self.is_view:
            return False
        self.scalar(self.yielded, lambda _: True, with_known=True)
        active = [m for m, v in zip(self.maps, self.op.operands, strict=True) if self.body.is_active(v)]
        return not self.reduces and all(m == self.maps[self.out] for m in active)

    def linear_operands(self) -> list[ir.Value]:
        """The operands that the linear part uses."""
        if self.is_view:
            return list(self.op.operands)
        scalar = self.scalar(self.yielded, self._is_active, with_known=False)
        used = [self.operand(v) for v in leaves(scalar)]
        return [*used, self.op.operands[self.out]] if self.reduces and self._is_active_start() else used

    def scalar(self, value: ir.Value, is_kept: Callable[[ir.Value], bool], with_known: bool) -> _Scalar:
        """A value of the region as an expression of what is kept of the state and, if asked for, of what is known."""
        owner = defining_op(value)
        if not self._is_active(value):
            return _Leaf(value) if with_known and not _is_zero(value) else None
        if owner is None or owner.operation.block != self.block:
            return _Leaf(value) if is_kept(value) else None
        op, operands = owner.operation, list(owner.operation.operands)
        active = [self._is_active(v) for v in operands]

        def part(number: int) -> _Scalar:
            return self.scalar(operands[number], is_kept, with_known)

        if op.name in ("arith.addf", "arith.subf"):
            left, right = part(0), part(1)
            if right is None or (left is None and op.name == "arith.addf"):
                return left or right
            return _Apply(op, (left, right))
        if op.name in _UNARY:
            argument = part(0)
            return None if argument is None else _Apply(op, (argument,))
        if (op.name == "arith.mulf" and sum(active) == 1) or (op.name == "arith.divf" and not active[1]):
            number = active.index(True)
            factor, known = part(number), _Leaf(operands[1 - number])
            return None if factor is None else _Apply(op, (factor, known) if number == 0 else (known, factor))
        if op.name == "arith.select" and not active[0]:
            either = (part(1), part(2))
            return None if either == (None, None) else _Apply(op, (_Leaf(operands[0]), *either))
        raise self._not_affine(op)

    def _is_active(self, value: ir.Value) -> bool:
        owner = defining_op(value)
        if owner is None or owner.operation.block != self.block:
            return self.body.is_active(self.operand(value))
        return any(self._is_active(v) for v in owner.operation.operands)

    def _is_active_start(self) -> bool:
        return self.body.is_active(self.op.operands[self.out])

    def _summand(self) -> ir.Value:
        """What a reduction adds at each of its points."""
        owner, total = defining_op(self.yielded), self.block.arguments[self.out]
        if owner is None or owner.operation.name != "arith.addf" or total not in list(owner.operation.operands):
            raise self._not_affine(self.op)
        left, right = owner.operation.operands
        return right if left == total else left

    def _not_affine(self, op: ir.Operation) -> CompileError:
        message = f"the equation {self.body.name} is not affine in its state: '{op.name}' is not linear in it"
        return CompileError(message, op.location)


class _Part:
    """Emits one half of a body."""

    def __init__(self, body: AffineBody, copies: Copies, state: ir.Value | None, with_known: bool) -> None:
        self._body = body
        self._copies = copies
        self._with_known = with_known
        self._parts: dict[ir.Value, ir.Value | None] = dict.fromkeys(body.states, state)
        rank = body.result.type.rank
        self._columns = () if state is None else tuple(state.type.shape[: state.type.rank - rank])

    def value(self, value: ir.Value) -> ir.Value | None:
        """What remains of a value; None where that is zero."""
        if not self._body.is_active(value):
            return self._copies.of(value) if self._with_known else None
        if value not in self._parts:
            self._parts[value] = self._emit(_Structured(self._body, value.owner.operation))
        return self._parts[value]

    def _emit(self, old: _Structured) -> ir.Value | None:
        if old.is_view:
            return self._view(old.op)
        scalar = old.scalar(old.yielded, lambda v: self.value(old.operand(v)) is not None, self._with_known)
        start = self.value(old.op.operands[old.out]) if old.reduces else None
        if scalar is None:
            return start
        inputs = [n for n, a in enumerate(old.block.arguments) if a in leaves(scalar)]
        if isinstance(scalar, _Leaf) and not old.reduces and inputs and old.maps[inputs[0]] == old.maps[old.out]:
            return self._operand(old, inputs[0])
        result = old.op.results[0]
        if not old.reduces:
            start = self._body.empty(result, self._columns)
        elif start is None:
            start = self._body.filled(result, 0.0, self._columns)
        return self._generic(old, scalar, inputs, start)

    def _view(self, op: ir.Operation) -> ir.Value | None:
        source = self.value(op.operands[0])
        if source is None:
            return None
        if self._columns:
            return self._view_of_columns(op, source)
        return clone_with(op, {**self._copies.values, op.operands[0]: source}).results[0]

    def _view_of_columns(self, op: ir.Operation, source: ir.Value) -> ir.Value:
        """A view of all columns, whose dimensions are in front of its own."""
        count, type_ = len(self._columns), op.results[0].type
        wide = ir.RankedTensorType.get([*self._columns, *type_.shape], type_.element_type)
        if op.name == "tensor.cast":
            return tensor.cast(wide, source)
        if op.name == "tensor.extract_slice":
            offsets, extents, strides = (
                [self._copies.of(s) if isinstance(s, ir.Value) else s for s in mixed(op, name)]
                for name in ("offsets", "sizes", "strides")
            )
            return extract_slice(source, [0] * count + offsets, [*self._columns, *extents], [1] * count + strides, wide)
        own = [[d.value + count for d in group] for group in op.attributes["reassociation"]]
        groups = [*([c] for c in range(count)), *own]
        if op.name == "tensor.collapse_shape":
            return tensor.CollapseShapeOp(wide, source, groups).result
        extents = [self._copies.of(v) for v in list(op.operands)[1:]]
        static = [*self._columns, *op.attributes["static_output_shape"]]
        return tensor.ExpandShapeOp(wide, source, groups, extents, static).result

    def _operand(self, old: _Structured, number: int) -> ir.Value:
        """A kept active operand, or a known one, which may be a factor."""
        value = old.op.operands[number]
        part = self.value(value) if self._body.is_active(value) else self._copies.of(value)
        assert part is not None
        return part

    def _generic(self, old: _Structured, scalar: _Scalar, inputs: Sequence[int], start: ir.Value) -> ir.Value:
        """A `linalg.generic` of the scalar expression; columns are parallel dimensions behind the operation's own."""
        dims, columns = old.maps[old.out].n_dims, len(self._columns)
        front = [ir.AffineExpr.get_dim(dims + c) for c in range(columns)]

        def map_(number: int, has_columns: bool) -> ir.AffineMap:
            exprs = list(old.maps[number].results)
            return ir.AffineMap.get(dims + columns, 0, [*front, *exprs] if has_columns else exprs)

        operands = [self._operand(old, n) for n in inputs]
        maps = [map_(n, self._body.is_active(old.op.operands[n])) for n in inputs] + [map_(old.out, True)]
        kept = {e.position for e in map(ir.AffineExpr.maybe_downcast, old.maps[old.out].results)}
        kinds = ["parallel" if d in kept or d >= dims else "reduction" for d in range(dims + columns)]
        op = linalg.GenericOp(
            [start.type],
            operands,
            [start],
            ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
            ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds]),
        )
        elements = [v.type.element_type for v in (*operands, start)]
        block = op.regions[0].blocks.append(*elements, arg_locs=[old.op.location] * len(elements))
        scalars = {old.block.arguments[n]: a for n, a in zip(inputs, block.arguments, strict=False)}
        with ir.InsertionPoint(block), old.op.location:
            result = self._scalar(scalar, scalars, elements[-1])
            if old.reduces:
                result = arith.addf(block.arguments[len(inputs)], result)
            linalg.YieldOp([result])
        return op.results[0]

    def _scalar(self, scalar: _Scalar, values: Values, type_: ir.Type) -> ir.Value:
        if scalar is None:
            return arith.constant(type_, 0.0)
        if isinstance(scalar, _Leaf):
            return self._inner(scalar.value, values)
        arguments = [self._scalar(a, values, scalar.op.results[0].type) for a in scalar.arguments]
        copy = ir.Operation.create(
            scalar.op.name,
            [scalar.op.results[0].type],
            arguments,
            dict(scalar.op.attributes),
            loc=scalar.op.location,
        )
        return copy.results[0]

    def _inner(self, value: ir.Value, values: Values) -> ir.Value:
        """A known scalar: of the region, which is copied, or from outside."""
        if value in values:
            return values[value]
        owner = defining_op(value)
        inside = owner is not None and owner.operation.parent.name.startswith("linalg.")
        if owner is None or not inside:
            return self._copies.of(value)
        for operand in owner.operation.operands:
            self._inner(operand, values)
        clone_with(owner, values)
        return values[value]


def leaves(scalar: _Scalar) -> set[ir.Value]:
    """The region's arguments, and the values from outside of it, that an expression is of."""
    if scalar is None:
        return set()
    if isinstance(scalar, _Apply):
        return set[ir.Value]().union(*map(leaves, scalar.arguments))
    owner = defining_op(scalar.value)
    if owner is None or not owner.operation.parent.name.startswith("linalg."):
        return {scalar.value}
    return set[ir.Value]().union(*(leaves(_Leaf(v)) for v in owner.operation.operands))


def _is_zero(value: ir.Value) -> bool:
    owner = defining_op(value)
    if owner is None or owner.operation.name != "arith.constant":
        return False
    attribute = owner.operation.attributes["value"]
    return isinstance(attribute, ir.FloatAttr) and attribute.value == 0.0
