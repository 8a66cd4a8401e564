"""What one element of an equation's tiles is: a scalar expression over loads and products.

The body of a `parc.equation` is linalg on tiles `[rows, units]`.  Element (row b, unit j) of every tile it
writes becomes an expression: a list of nodes in which arguments come before their users.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Literal

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.irtools import defining_op


@dataclass(frozen=True)
class KernelOperand:
    """One array that a kernel takes, as `(memref<?xT>, offset)`.

    * `read`: a tile `[rows, columns]` with a row stride of `extents[-1]` (a `[rows]` tile has extents `(rows, 1)`);
    * `vector`: the same for every row (a bias, a scalar): row stride 0;
    * `weight`: the matrix `[K, N]` (`[N, K]` if `transposed`) of products, passed packed (`codegen/packing.py`);
    * `write`: a tile `[rows, units]`.
    """

    kind: Literal["read", "vector", "weight", "write"]
    array: ir.Value
    access: ir.AffineMap | None  # iteration point -> leading indices of `array`; None: the whole array, offset 0
    extents: tuple[int | None, ...]  # of the tile; None where dynamic
    transposed: bool = False


@dataclass(frozen=True)
class Load:
    """Element `column + stride * j` of row b of an operand (stride 0 or 1: 0 is the same for every unit)."""

    operand: int
    column: int
    stride: int


@dataclass(frozen=True)
class Constant:
    """A scalar constant; the attribute has its type."""

    value: ir.Attribute


@dataclass(frozen=True)
class Product:
    """`sum over k < depth of read[b, read_column + k] * weight[row + k, column + j]`."""

    read: int
    read_column: int
    weight: int
    row: int
    column: int
    depth: int


@dataclass(frozen=True)
class Contraction:
    """A sum of products that one accumulator takes up, in this order."""

    products: tuple[Product, ...]


@dataclass(frozen=True)
class Apply:
    """An elementwise arith or math operation; `arguments` are positions in the cell's nodes."""

    name: str
    attributes: tuple[tuple[str, ir.Attribute], ...]
    arguments: tuple[int, ...]
    type: ir.Type


Node = Load | Constant | Contraction | Apply


@dataclass(frozen=True)
class Cell:
    """An equation as rows x units of one expression per write."""

    dtype: ir.Type
    units: int
    operands: tuple[KernelOperand, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[int, int], ...]  # (operand, node) per write
    key: tuple[object, ...] = field(default=(), compare=False)  # equal keys: one kernel serves both

    @property
    def products(self) -> tuple[Product, ...]:
        """Every product of the cell, in the order of its nodes."""
        return tuple(p for n in self.nodes if isinstance(n, Contraction) for p in n.products)


def analyse_cell(equation: ir.Operation | ir.OpView) -> Cell | None:
    """The equation as a cell; None when it is no cell (the equation is then *general*)."""
    try:
        return _Analysis(equation.operation).cell()
    except _NotACellError:
        return None


class _NotACellError(Exception):
    """The body does something that no cell does."""


@dataclass(frozen=True)
class _Index:
    """Where one dimension of a value is looked at, as the cell's row b, unit j and summation index k vary."""

    kind: Literal["row", "unit", "depth", "fixed"]
    value: int  # row: which of the row dimensions; unit, depth: the offset to j or k; fixed: the index itself

    def moved(self, offset: int) -> "_Index":
        if self.kind == "row" and offset:
            raise _NotACellError
        return _Index(self.kind, self.value + offset)


_Indices = tuple[_Index, ...]


@dataclass(frozen=True)
class _Piece:
    """`value[indices]`, for the summation indices `start <= k < stop` (for every unit, outside a product)."""

    start: int
    stop: int
    value: ir.Value
    indices: _Indices


class _Analysis:
    """One run over one equation: follows elements from the writes to the leaves, and keeps every node once."""

    def __init__(self, equation: ir.Operation) -> None:
        self.equation = equation
        self.operands: list[KernelOperand] = []
        self.nodes: dict[Node, int] = {}
        self.elements: dict[tuple[ir.Value, _Indices], int] = {}
        self.units = 0
        self.row_dims = 0
        self.access_inputs = (0, 0)  # dimensions and symbols of the equation's access maps

    def cell(self) -> Cell:
        outputs: list[tuple[KernelOperand, int]] = []
        for op in self.equation.regions[0].blocks[0].operations:
            if op.operation.name == "parc.write":
                tile, array = op.operation.operands
                access = ir.AffineMapAttr(op.operation.attributes["at"]).value
                self.access_inputs = (access.n_dims, access.n_symbols)
                node = self._element(tile, self._written(tile.type))
                outputs.append((KernelOperand("write", array, access, _extents(tile.type)), node))
        nodes, roots = _fuse_sums(tuple(self.nodes), [node for _, node in outputs])
        operands = (*self.operands, *(operand for operand, _ in outputs))
        writes = tuple((len(self.operands) + i, root) for i, root in enumerate(roots))
        dtype = outputs[0][0].array.type.element_type
        if any(isinstance(n, Contraction) for n in nodes) and not isinstance(dtype, ir.F32Type | ir.F64Type):
            raise _NotACellError
        shapes = tuple((o.kind, o.extents[-1:], o.transposed, o.array.type.element_type) for o in operands)
        return Cell(dtype, self.units, operands, nodes, writes, key=(dtype, self.units, shapes, nodes, writes))

    def _written(self, tile: ir.Type) -> _Indices:
        """Row b and unit j of a written tile; leading dimensions of extent 1 are no rows."""
        extents = _extents(tile)
        if not extents or not extents[-1] or str(tile.element_type) == "i1":
            raise _NotACellError
        rows = [i for i, extent in enumerate(extents[:-1]) if extent != 1]
        if self.units and (self.units, self.row_dims) != (extents[-1], len(rows)):
            raise _NotACellError
        self.units, self.row_dims = extents[-1], len(rows)
        leading = (_Index("row", rows.index(i)) if i in rows else _Index("fixed", 0) for i in range(len(extents) - 1))
        return (*leading, _Index("unit", 0))

    def _node(self, node: Node) -> int:
        return self.nodes.setdefault(node, len(self.nodes))

    def _operand(self, operand: KernelOperand) -> int:
        if operand not in self.operands:
            self.operands.append(operand)
        return self.operands.index(operand)

    def _element(self, value: ir.Value, indices: _Indices) -> int:
        """The node of `value[indices]`."""
        if (value, indices) not in self.elements:
            self.elements[value, indices] = self._new_element(value, indices)
        return self.elements[value, indices]

    def _new_element(self, value: ir.Value, indices: _Indices) -> int:
        constant = _splat(value)
        if constant is not None:
            return self._node(Constant(constant))
        op = self._body_op(value)
        if op is None or op.name == "parc.read":
            return self._node(Load(*self._leaf(value, indices, "unit")))
        pieces = self._view(op, value, _Piece(0, self.units, value, indices), "unit")
        if pieces is not None:
            if len(pieces) != 1:
                raise _NotACellError
            return self._element(pieces[0].value, pieces[0].indices)
        if op.name.startswith("linalg."):
            return self._structured(op, value, indices)
        if op.name.startswith(("arith.", "math.")) and len(op.results) == 1:
            return self._apply(op, [self._element(v, indices) for v in op.operands])
        raise _NotACellError

    def _apply(self, op: ir.Operation, arguments: list[int]) -> int:
        type_ = op.results[0].type
        scalar = type_.element_type if isinstance(type_, ir.ShapedType) else type_
        if not isinstance(scalar, ir.FloatType | ir.IntegerType):
            raise _NotACellError
        if op.name == "arith.constant":
            raise _NotACellError  # Scalars and splats are found by `_splat`; others are arrays of their own.
        attributes = tuple((name, op.attributes[name]) for name in op.attributes)
        return self._node(Apply(op.name, attributes, tuple(arguments), scalar))

    def _structured(self, op: ir.Operation, value: ir.Value, indices: _Indices) -> int:
        """An element of a linalg operation's result: its body on scalars, or a product."""
        view = _Structured(op, value, indices)
        reduced = view.reduced_dims()
        if not reduced:
            return self._scalar_body(view)
        factors = view.product_factors()
        if len(reduced) != 1 or factors is None:
            raise _NotACellError
        depth = view.extent(reduced[0])
        left, right = (self._pieces(_Piece(0, depth, v, i)) for v, i in (view.input(f, "depth") for f in factors))
        if any(i.kind == "unit" for piece in left for i in piece.indices):
            left, right = right, left
        products = (self._product(a, w) for a, w in _overlaps(left, right) if not _is_zero(_splat(a.value)))
        terms = [self._node(Contraction((p,))) for p in products]
        start = view.outs()
        if not _is_zero(_splat(start)):
            terms.insert(0, self._element(start, indices))
        if not terms:
            raise _NotACellError
        total = terms[0]
        for term in terms[1:]:
            total = self._node(Apply("arith.addf", (), (total, term), value.type.element_type))
        return total

    def _scalar_body(self, view: "_Structured") -> int:
        scalars: dict[ir.Value, int] = {}

        def node(v: ir.Value) -> int:
            if v not in scalars:
                argument = isinstance(v.owner, ir.Block) and v.owner == view.block
                op = None if argument else defining_op(v)
                if argument:
                    scalars[v] = self._element(*view.input(ir.BlockArgument(v).arg_number))
                elif (constant := _splat(v)) is not None:
                    scalars[v] = self._node(Constant(constant))
                elif op is not None and op.operation.block == view.block:
                    if not op.operation.name.startswith(("arith.", "math.")) or len(op.operation.results) != 1:
                        raise _NotACellError
                    scalars[v] = self._apply(op.operation, [node(o) for o in op.operation.operands])
                else:
                    scalars[v] = self._element(v, ())
            return scalars[v]

        return node(view.yielded())

    def _product(self, a: _Piece, w: _Piece) -> Product:
        """One product over a range of k; fails unless it is a read tile times a known weight."""
        read, read_column, stride = self._leaf(a.value, a.indices, "depth")
        if not stride and a.stop - a.start > 1:
            raise _NotACellError
        weight, row, column = self._weight(w.value, w.indices)
        # Without a stride the read has one element, which the column alone names.
        return Product(read, read_column + a.start * stride, weight, row + a.start, column, a.stop - a.start)

    def _leaf(self, value: ir.Value, indices: _Indices, along: str) -> tuple[int, int, int]:
        """The operand of a read or known tile, its column at j (or k) = 0, and its stride along j (or k)."""
        array, access = self._source(value)
        if str(_element_type(value)) == "i1":
            raise _NotACellError  # A vector of i1 is packed bits in memory, a tensor of i1 is bytes.
        dims = [(e, i) for e, i in zip(_extents(value.type), indices, strict=True) if e != 1]
        rows = [i.value for _, i in dims if i.kind == "row"]
        columns = dims[len(rows) :]
        if rows != list(range(self.row_dims if rows else 0)) or any(i.kind == "row" for _, i in columns):
            raise _NotACellError
        if any(e is None or (i.kind not in ("fixed", along)) for e, i in columns):
            raise _NotACellError
        sizes = [e or 0 for e, _ in columns]
        column = sum(i.value * prod(sizes[d + 1 :]) for d, (_, i) in enumerate(columns))
        strides = [prod(sizes[d + 1 :]) for d, (_, i) in enumerate(columns) if i.kind == along]
        if strides not in ([], [1]):
            raise _NotACellError
        # Without row dimensions each point is a row: what moves from point to point is a read.
        moves = access is not None and any(_uses_dims(e) for e in access.results)
        kind: Literal["read", "vector"] = "read" if rows or (moves and not self.row_dims) else "vector"
        extents = (*(e for e, i in dims if i.kind == "row"), prod(sizes))
        return self._operand(KernelOperand(kind, array, access, extents)), column, sum(strides)

    def _weight(self, value: ir.Value, indices: _Indices) -> tuple[int, int, int]:
        """The operand of a known matrix, and its row and column at k = j = 0."""
        array, access = self._source(value)
        owner = defining_op(array)
        extents = _extents(value.type)
        kinds = tuple(i.kind for i in indices[-2:])
        if (owner is not None and owner.operation.name == "parc.unknown") or None in extents:
            raise _NotACellError
        if kinds not in (("depth", "unit"), ("unit", "depth")) or any(i.kind != "fixed" for i in indices[:-2]):
            raise _NotACellError
        if len(indices) > 2:
            dims, symbols = self.access_inputs
            leading = [] if access is None else list(access.results)
            leading += [ir.AffineConstantExpr.get(i.value) for i in indices[:-2]]
            access = ir.AffineMap.get(dims, symbols, leading)
        transposed = kinds[0] == "unit"
        operand = self._operand(KernelOperand("weight", array, access, extents[-2:], transposed))
        row, column = reversed(indices[-2:]) if transposed else indices[-2:]
        return operand, row.value, column.value

    def _source(self, value: ir.Value) -> tuple[ir.Value, ir.AffineMap | None]:
        """The array that a tile is from, and its access; fails for what the body computes."""
        op = self._body_op(value)
        if not isinstance(value.type, ir.RankedTensorType) or (op is not None and op.name != "parc.read"):
            raise _NotACellError
        return (value, None) if op is None else (op.operands[0], ir.AffineMapAttr(op.attributes["at"]).value)

    def _body_op(self, value: ir.Value) -> ir.Operation | None:
        """The operation of the body that defines `value`; None for values from outside."""
        op = defining_op(value)
        parent = None if op is None else op.operation.parent
        return op.operation if op is not None and parent is not None and parent.operation == self.equation else None

    # Views: operations whose elements are elements of their operands.

    def _pieces(self, piece: _Piece) -> list[_Piece]:
        """The leaves, or computed values, that a factor of a product is put together from."""
        op = self._body_op(piece.value)
        below = None if op is None else self._view(op, piece.value, piece, "depth")
        return [piece] if below is None else [leaf for p in below for leaf in self._pieces(p)]

    def _view(self, op: ir.Operation, value: ir.Value, piece: _Piece, along: str) -> list[_Piece] | None:
        """The pieces of operands that make up `piece` of the operation's result; None if it computes something."""
        start, stop, indices = piece.start, piece.stop, piece.indices
        if op.name == "tensor.cast":
            return [_Piece(start, stop, op.operands[0], indices)]
        if op.name in ("tensor.expand_shape", "tensor.collapse_shape"):
            return [_Piece(start, stop, op.operands[0], _reshaped(op, indices))]
        if op.name == "tensor.extract_slice":
            return [_Piece(start, stop, op.operands[0], _sliced(op, indices))]
        if op.name == "tensor.insert_slice":
            return _inserted(op, piece, along)
        if op.name == "tensor.concat":
            return _concatenated(op, piece, along)
        if op.name.startswith("linalg."):
            view = _Structured(op, value, indices)
            source = view.forwarded()
            return None if source is None else [_Piece(start, stop, *view.input(source))]
        return None


class _Structured:
    """One element of a linalg operation's result, with what every iteration dimension is at that element."""

    def __init__(self, op: ir.Operation, value: ir.Value, indices: _Indices) -> None:
        maps = linalg.get_indexing_maps(op.opview)
        if maps is None or len(op.regions) != 1:
            raise _NotACellError
        self.op = op
        self.maps = [ir.AffineMapAttr(m).value for m in maps]
        self.block = op.regions[0].blocks[0]
        self.result = ir.OpResult(value).result_number
        self.out = len(op.operands) - len(op.results) + self.result
        self.dims: dict[int, _Index] = {}
        for expr, index in zip(self.maps[self.out].results, indices, strict=True):
            if not isinstance(expr, ir.AffineDimExpr):
                raise _NotACellError
            self.dims[expr.position] = index

    def reduced_dims(self) -> list[int]:
        """Iteration dimensions that the result does not have."""
        return [d for d in range(self.maps[0].n_dims) if d not in self.dims]

    def extent(self, dim: int) -> int:
        """The static extent of an iteration dimension."""
        for value, map_ in zip(self.op.operands, self.maps, strict=True):
            for i, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim and _extents(value.type)[i]:
                    return _extents(value.type)[i] or 0
        raise _NotACellError

    def input(self, number: int, reduced: Literal["depth"] | None = None) -> tuple[ir.Value, _Indices]:
        """Operand `number` and where the element looks at it; reduced dimensions are those of the summation."""
        indices = []
        for expr in self.maps[number].results:
            if isinstance(expr, ir.AffineConstantExpr):
                indices.append(_Index("fixed", expr.value))
            elif isinstance(expr, ir.AffineDimExpr) and (expr.position in self.dims or reduced):
                indices.append(self.dims.get(expr.position, _Index("depth", 0)))
            else:
                raise _NotACellError
        return self.op.operands[number], tuple(indices)

    def outs(self) -> ir.Value:
        """The value that the result starts from."""
        return self.op.operands[self.out]

    def yielded(self) -> ir.Value:
        """The scalar that the body gives for this result."""
        return list(self.block.operations)[-1].operation.operands[self.result]

    def forwarded(self) -> int | None:
        """The operand that the body hands on unchanged (a transpose, broadcast or copy), if it does."""
        value = self.yielded()
        if not isinstance(value.owner, ir.Block) or value.owner != self.block or self.reduced_dims():
            return None
        number = ir.BlockArgument(value).arg_number
        return None if number == self.out else number

    def product_factors(self) -> tuple[int, int] | None:
        """The two operands that a body `out + a * b` multiplies."""
        ops = [op.operation for op in self.block.operations]
        if [op.name for op in ops] != ["arith.mulf", "arith.addf", "linalg.yield"]:
            return None
        arguments = {v: i for i, v in enumerate(self.block.arguments)}
        factors = [arguments.get(v) for v in ops[0].operands]
        if set(ops[1].operands) != {ops[0].results[0], self.block.arguments[self.out]} or None in factors:
            return None
        return (factors[0], factors[1]) if self.out not in factors else None  # type: ignore[return-value]


def _extents(type_: ir.Type) -> tuple[int | None, ...]:
    """Extents of a tensor, None where dynamic; a scalar has none."""
    if not isinstance(type_, ir.RankedTensorType):
        return ()
    return tuple(None if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank))


def _element_type(value: ir.Value) -> ir.Type:
    return value.type.element_type if isinstance(value.type, ir.ShapedType) else value.type


def _uses_dims(expr: ir.AffineExpr) -> bool:
    if isinstance(expr, ir.AffineBinaryExpr):
        return _uses_dims(expr.lhs) or _uses_dims(expr.rhs)
    return isinstance(expr, ir.AffineDimExpr)


def _splat(value: ir.Value) -> ir.Attribute | None:
    """The scalar that fills `value`, wherever it is defined."""
    op = defining_op(value)
    if op is None:
        return None
    if op.operation.name in ("linalg.fill", "tensor.splat"):
        return _splat(op.operation.operands[0])
    if op.operation.name != "arith.constant":
        return None
    constant = op.operation.attributes["value"]
    if isinstance(constant, ir.DenseElementsAttr):
        return constant.get_splat_value() if constant.is_splat else None
    return constant if isinstance(constant, ir.FloatAttr | ir.IntegerAttr) else None


def _is_zero(constant: ir.Attribute | None) -> bool:
    return isinstance(constant, ir.FloatAttr) and constant.value == 0.0


def _overlaps(left: list[_Piece], right: list[_Piece]) -> Iterator[tuple[_Piece, _Piece]]:
    """Pairs of pieces of two factors over the same range of k, in the order of k."""
    cuts = sorted({p.start for p in (*left, *right)} | {p.stop for p in left})
    for start, stop in pairwise(cuts):
        a, w = (next(p for p in ps if p.start <= start < p.stop) for ps in (left, right))
        yield _Piece(start, stop, a.value, a.indices), _Piece(start, stop, w.value, w.indices)


def _reshaped(op: ir.Operation, indices: _Indices) -> _Indices:
    """The operand's indices of a reshape that only adds and drops dimensions of extent 1."""
    groups = [[ir.IntegerAttr(d).value for d in ir.ArrayAttr(g)] for g in ir.ArrayAttr(op.attributes["reassociation"])]
    source, result = _extents(op.operands[0].type), _extents(op.results[0].type)
    if op.name == "tensor.expand_shape":
        kept = []
        for group in groups:
            longer = [d for d in group if result[d] != 1]
            if len(longer) > 1:
                raise _NotACellError
            kept.append(indices[longer[0]] if longer else indices[group[-1]])
        return tuple(kept)
    wider: list[_Index] = []
    for index, group in zip(indices, groups, strict=True):
        longer = [d for d in group if source[d] != 1] or group[-1:]
        if len(longer) > 1:
            raise _NotACellError
        wider += [index if d == longer[0] else _Index("fixed", 0) for d in group]
    return tuple(wider)


def _static_offsets(op: ir.Operation) -> list[int]:
    """The offsets of a slice; fails for dynamic ones and for steps over elements."""
    strides = list(ir.DenseI64ArrayAttr(op.attributes["static_strides"]))
    offsets = list(ir.DenseI64ArrayAttr(op.attributes["static_offsets"]))
    if any(s != 1 for s in strides) or any(o < 0 for o in offsets):
        raise _NotACellError
    return offsets


def _slice_dims(op: ir.Operation, sliced: ir.Value) -> list[int | None]:
    """For every dimension of the larger tensor, the dimension of the slice; None for a dropped one."""
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    extents = _extents(sliced.type)
    dims: list[int | None] = []
    taken = 0
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        # Extent-1 dimensions are dropped from the front for as long as the slice has fewer than are left.
        drop = size == 1 and len(extents) - taken < left and (taken == len(extents) or extents[taken] != 1)
        dims.append(None if drop else taken)
        taken += not drop
    if taken != len(extents):
        raise _NotACellError
    return dims


def _sliced(op: ir.Operation, indices: _Indices) -> _Indices:
    """The operand's indices of an `extract_slice`."""
    dims, offsets = _slice_dims(op, op.results[0]), _static_offsets(op)
    for i, d in enumerate(dims):
        # Rows stay one flat range only if no inner row dimension is cut.
        if d is not None and indices[d].kind == "row" and indices[d].value > 0:
            extent = _extents(op.operands[0].type)[i]
            if extent is None or extent != _extents(op.results[0].type)[d]:
                raise _NotACellError
    return tuple(_Index("fixed", o) if d is None else indices[d].moved(o) for d, o in zip(dims, offsets, strict=True))


def _span(index: _Index, piece: _Piece, along: str) -> tuple[int, int]:
    """First and last + 1 position that a piece looks at in one dimension."""
    if index.kind == "fixed":
        return index.value, index.value + 1
    if index.kind != along:
        raise _NotACellError
    return piece.start + index.value, piece.stop + index.value


def _concatenated(op: ir.Operation, piece: _Piece, along: str) -> list[_Piece]:
    """The parts of a concatenation's operands that make up a piece of it."""
    dim = ir.IntegerAttr(op.attributes["dim"]).value
    index = piece.indices[dim]
    first, last = _span(index, piece, along)
    pieces, base = [], 0
    for value in op.operands:
        extent = _extents(value.type)[dim]
        if extent is None:
            raise _NotACellError
        low, high = max(first, base), min(last, base + extent)
        if low < high:
            here = (*piece.indices[:dim], index.moved(-base), *piece.indices[dim + 1 :])
            shift = index.value if index.kind == along else low - piece.start
            pieces.append(_Piece(low - shift, high - shift if index.kind == along else piece.stop, value, here))
        base += extent
    return pieces


def _inserted(op: ir.Operation, piece: _Piece, along: str) -> list[_Piece]:
    """The parts of an `insert_slice`'s two operands that make up a piece of it."""
    source, destination = op.operands[0], op.operands[1]
    dims, offsets = _slice_dims(op, source), _static_offsets(op)
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    whole = _extents(destination.type)
    indices = tuple(piece.indices[i].moved(-offsets[i]) for i, d in enumerate(dims) if d is not None)
    cut = [i for i, size in enumerate(sizes) if not (offsets[i] == 0 and (size < 0 or size == whole[i]))]
    if not cut:
        return [_Piece(piece.start, piece.stop, source, indices)]
    if len(cut) > 1:
        raise _NotACellError
    dim = cut[0]
    index = piece.indices[dim]
    first, last = _span(index, piece, along)
    low, high = offsets[dim], offsets[dim] + sizes[dim]
    if index.kind == "fixed":
        inside = low <= index.value < high
        return [
            _Piece(piece.start, piece.stop, source if inside else destination, indices if inside else piece.indices)
        ]
    bounds = [first, *(b for b in (low, high) if first < b < last), last]
    return [
        _Piece(a - index.value, b - index.value, source, indices)
        if low <= a < high
        else _Piece(a - index.value, b - index.value, destination, piece.indices)
        for a, b in pairwise(bounds)
    ]


def _fuse_sums(nodes: Sequence[Node], roots: Sequence[int]) -> tuple[tuple[Node, ...], list[int]]:
    """Nodes in which the products of one sum share an accumulator, without the nodes that no root needs."""
    uses = [0] * len(nodes)
    for root in roots:
        uses[root] += 1
    for node in nodes:
        for argument in node.arguments if isinstance(node, Apply) else ():
            uses[argument] += 1
    fused: dict[Node, int] = {}
    numbers: dict[int, int] = {}

    def terms(number: int, top: bool) -> list[int]:
        node = nodes[number]
        if isinstance(node, Apply) and node.name == "arith.addf" and (top or uses[number] == 1):
            return [t for argument in node.arguments for t in terms(argument, False)]
        return [number]

    def rebuild(number: int) -> int:
        if number not in numbers:
            numbers[number] = place(number)
        return numbers[number]

    def put(node: Node) -> int:
        return fused.setdefault(node, len(fused))

    def place(number: int) -> int:
        node = nodes[number]
        if not isinstance(node, Apply):
            return put(node)
        parts = terms(number, True)
        products = [n for t in parts if isinstance(n := nodes[t], Contraction) and uses[t] == 1]
        if node.name != "arith.addf" or len(products) < 2:
            return put(Apply(node.name, node.attributes, tuple(rebuild(a) for a in node.arguments), node.type))
        total = put(Contraction(tuple(p for c in products for p in c.products)))
        for term in parts:
            if not (isinstance(nodes[term], Contraction) and uses[term] == 1):
                total = put(Apply(node.name, (), (total, rebuild(term)), node.type))
        return total

    new_roots = [rebuild(root) for root in roots]
    return tuple(fused), new_roots
