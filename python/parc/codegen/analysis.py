"""From an equation's body to its cell: every written element is followed back to the arrays it is computed from."""

from collections.abc import Sequence
from math import gcd, prod
from typing import Literal

from torch_mlir import ir

from parc.codegen.cell import (
    Apply,
    Cell,
    Constant,
    Contraction,
    KernelOperand,
    Load,
    Node,
    Output,
    Product,
    Reduction,
    arguments_of,
)
from parc.codegen.elements import (
    Index,
    Indices,
    NotACellError,
    Piece,
    StructuredElement,
    element_type,
    is_zero,
    splat,
    static_extents,
    uses_dims,
)
from parc.codegen.irtools import defining_op
from parc.codegen.simplify import simplify
from parc.codegen.views import overlaps, view_pieces

_MOST_PARTS = 8  # of one written tile
# The lanes behind the last unit hold zeros.
_MAY_TRAP = {f"arith.{name}" for name in ("divsi", "divui", "remsi", "remui", "ceildivsi", "ceildivui", "floordivsi")}


def analyse_cell(equation: ir.Operation | ir.OpView) -> Cell | None:
    """The equation as a cell; None when it is no cell (the equation is then *general*)."""
    # A tile's last dimension holds the units; where that fails, every element is a row of one unit.
    for with_units in (True, False):
        most = 0
        while True:
            try:
                return _Analysis(equation.operation, with_units, most).cell()
            except _PartsError as parts:
                most = parts.units
            except NotACellError:
                break
    return None


class _PartsError(NotACellError):
    """What is read is put together from parts: only so many units have one expression."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units


class _Analysis:
    """One run over one equation; keeps every node once.  The number of units divides `most`, unless that is 0."""

    def __init__(self, equation: ir.Operation, with_units: bool, most: int) -> None:
        self.equation = equation
        self.with_units = with_units
        self.operands: list[KernelOperand] = []
        self.nodes: dict[Node, int] = {}
        self.elements: dict[tuple[ir.Value, Indices], int] = {}
        self.units = most
        self.rows: list[int | None] | None = None  # extents of the row dimensions
        self.access_inputs = (0, 0)  # dimensions and symbols of the equation's access maps

    def cell(self) -> Cell:
        body = [op.operation for op in self.equation.regions[0].blocks[0].operations]
        writes = [op for op in body if op.name == "parc.write"]
        parts = [self._pieces(self._written(op.operands[0]), "unit") for op in writes]
        self.units = gcd(self.units, *(p.stop - p.start for pieces in parts for p in pieces))
        written: list[KernelOperand] = []
        outputs: list[tuple[int, int, int]] = []
        for op, pieces in zip(writes, parts, strict=True):
            tile, array = op.operands
            access = ir.AffineMapAttr(op.attributes["at"]).value
            self.access_inputs = (access.n_dims, access.n_symbols)
            columns = [(p, c) for p in pieces for c in range(p.start, p.stop, self.units)]
            if len(columns) > _MOST_PARTS or str(element_type(tile)) == "i1":
                raise NotACellError
            for p, column in columns:
                indices = tuple(i.moved(column) if i.kind == "unit" else i for i in p.indices)
                outputs.append((len(written), column, self._element(p.value, indices)))
            extents = static_extents(tile.type) if self.with_units else (*static_extents(tile.type), 1)
            written.append(KernelOperand("write", array, access, extents))
        nodes, roots = simplify(tuple(self.nodes), [node for _, _, node in outputs])
        operands = (*self.operands, *written)
        stores = tuple(
            Output(len(self.operands) + number, column, root)
            for (number, column, _), root in zip(outputs, roots, strict=True)
        )
        dtype = self._product_type(nodes) or element_type(written[0].array)
        shapes = tuple((o.kind, o.extents[-1:], o.repeat, o.transposed, element_type(o.array)) for o in operands)
        cell = Cell(dtype, self.units, operands, nodes, stores, key=(dtype, self.units, shapes, nodes, stores))
        for number, node in enumerate(nodes):
            if isinstance(node, Reduction):
                _check_reduction(cell, number, node)
        return cell

    def _product_type(self, nodes: Sequence[Node]) -> ir.Type | None:
        """The one type of all factors and sums; None without products."""
        factors = {o for n in nodes if isinstance(n, Contraction) for p in n.products for o in (p.read, p.weight)}
        types = {element_type(self.operands[o].array) for o in factors}
        if len(types) > 1 or not all(isinstance(t, ir.F32Type | ir.F64Type) for t in types):
            raise NotACellError
        return types.pop() if types else None

    def _written(self, tile: ir.Value) -> Piece:
        """All units of a written tile, which has the rows of the others; leading dimensions of extent 1 are no rows."""
        extents = static_extents(tile.type)
        *leading, units = extents if self.with_units and extents else (*extents, 1)
        dims = [i for i, extent in enumerate(leading) if extent != 1]
        rows = [leading[i] for i in dims]
        if not units or self.rows not in (None, rows):
            raise NotACellError
        self.rows = rows
        indices = [Index("row", dims.index(i)) if i in dims else Index("fixed", 0) for i in range(len(leading))]
        return Piece(0, units, tile, tuple([*indices, Index("unit", 0)][: len(extents)]))

    def _node(self, node: Node) -> int:
        return self.nodes.setdefault(node, len(self.nodes))

    def _operand(self, operand: KernelOperand) -> int:
        if operand not in self.operands:
            self.operands.append(operand)
        return self.operands.index(operand)

    # Computed elements.

    def _element(self, value: ir.Value, indices: Indices) -> int:
        """The node of `value[indices]`."""
        if (value, indices) not in self.elements:
            self.elements[value, indices] = self._new_element(value, indices)
        return self.elements[value, indices]

    def _new_element(self, value: ir.Value, indices: Indices) -> int:
        constant = splat(value)
        if constant is not None:
            return self._node(Constant(constant))
        op = self._body_op(value)
        if op is None or op.name == "parc.read":
            return self._node(self._leaf(value, indices))
        pieces = view_pieces(op, Piece(0, self.units, value, indices), "unit")
        if pieces is not None:
            if len(pieces) != 1:
                raise _PartsError(gcd(*(p.stop - p.start for p in pieces)))
            return self._element(pieces[0].value, pieces[0].indices)
        if op.name.startswith("linalg."):
            return self._structured(StructuredElement(op, value, indices), indices)
        if op.name.startswith(("arith.", "math.")) and len(op.results) == 1:
            return self._apply(op, [self._element(v, indices) for v in op.operands])
        raise NotACellError

    def _apply(self, op: ir.Operation, arguments: list[int]) -> int:
        type_ = element_type(op.results[0])
        # Constants that are no scalars or splats (`splat` finds these) are arrays of their own.
        if not isinstance(type_, ir.FloatType | ir.IntegerType) or op.name == "arith.constant":
            raise NotACellError
        if op.name in _MAY_TRAP and not isinstance(list(self.nodes)[arguments[1]], Constant):
            raise NotACellError
        attributes = tuple((name, op.attributes[name]) for name in op.attributes)
        return self._node(Apply(op.name, attributes, tuple(arguments), type_))

    def _structured(self, view: StructuredElement, indices: Indices) -> int:
        """An element of a linalg operation's result: its body on scalars, products, or another reduction."""
        reduced = view.reduced_dims()
        if not reduced:
            return self._scalar(view, view.yielded())
        if len(reduced) != 1 or any(i.kind == "depth" for i in indices):
            raise NotACellError
        depth, start = view.extent(reduced[0]), view.outs()
        known = len(self.operands)
        try:
            terms = self._products(view, depth)
        except NotACellError:
            del self.operands[known:]
            return self._reduction(view, depth, self._element(start, indices))
        if not is_zero(splat(start)):
            terms.insert(0, self._element(start, indices))
        if not terms:
            raise NotACellError
        total = terms[0]
        for term in terms[1:]:
            total = self._node(Apply("arith.addf", (), (total, term), element_type(start)))
        return total

    def _products(self, view: StructuredElement, depth: int) -> list[int]:
        """The contractions that a product of a read tile and a known weight is the sum of."""
        factors = view.product_factors()
        if factors is None:
            raise NotACellError
        inputs = (view.input(f, "depth") for f in factors)
        left, right = (self._pieces(Piece(0, depth, v, i), "depth") for v, i in inputs)
        if self._is_weight(left) and not self._is_weight(right):
            left, right = right, left
        products = [self._product(a, w) for a, w in overlaps(left, right) if not is_zero(splat(a.value))]
        return [self._node(Contraction((p,))) for p in products]

    def _reduction(self, view: StructuredElement, depth: int, start: int) -> int:
        """Anything else that is combined along one dimension."""
        combined = view.combined()
        if combined is None:
            raise NotACellError
        op, value = combined
        attributes = tuple((name, op.attributes[name]) for name in op.attributes)
        argument = self._scalar(view, value, "depth")
        return self._node(Reduction(op.name, attributes, argument, depth, start, element_type(view.outs())))

    def _scalar(self, view: StructuredElement, value: ir.Value, reduced: Literal["depth"] | None = None) -> int:
        """The node of a scalar in a linalg operation's body."""
        scalars: dict[ir.Value, int] = {}

        def node(v: ir.Value) -> int:
            if v not in scalars:
                scalars[v] = new_node(v)
            return scalars[v]

        def new_node(v: ir.Value) -> int:
            if isinstance(v.owner, ir.Block) and v.owner == view.block:
                number = ir.BlockArgument(v).arg_number
                if reduced and number >= view.input_count:
                    raise NotACellError  # It depends on what was combined before.
                return self._element(*view.input(number, reduced))
            op, constant = defining_op(v), splat(v)
            if constant is not None:
                return self._node(Constant(constant))
            if op is None or op.operation.block != view.block:
                return self._element(v, ())
            if not op.operation.name.startswith(("arith.", "math.")) or len(op.operation.results) != 1:
                raise NotACellError
            return self._apply(op.operation, [node(o) for o in op.operation.operands])

        return node(value)

    # Products and leaves.

    def _is_weight(self, pieces: list[Piece]) -> bool:
        """Whether a factor differs from unit to unit, or is the same for all rows."""
        kinds = {i.kind for piece in pieces for i in piece.indices}
        return "unit" in kinds or ("row" not in kinds and self.units == 1)

    def _product(self, a: Piece, w: Piece) -> Product:
        """One product over a range of k; fails unless it is a read tile times a known weight."""
        read, depth = self._leaf(a.value, a.indices), a.stop - a.start
        weight, row, column = self._weight(w.value, w.indices)
        if read.stride or read.depth_stride > 1 or (not read.depth_stride and depth > 1):
            raise NotACellError
        if self.operands[read.operand].repeat > 1:
            raise NotACellError
        # Without a stride the read has one element, which the column alone names.
        read_column = read.column + a.start * read.depth_stride
        return Product(read.operand, read_column, weight, row + a.start, column, depth)

    def _leaf(self, value: ir.Value, indices: Indices) -> Load:
        """An element of a read or known tile."""
        array, access = self._source(value)
        dims = [(e, i) for e, i in zip(static_extents(value.type), indices, strict=True) if e != 1]
        rows = [i.value for _, i in dims if i.kind == "row"]
        columns = dims[len(rows) :]
        if any(i.kind == "row" or e is None for e, i in columns):
            raise NotACellError
        sizes = [e or 0 for e, _ in columns]
        column, strides = 0, {"unit": 0, "depth": 0}
        for d, (_, index) in enumerate(columns):
            stride = prod(sizes[d + 1 :])
            column += index.value * stride
            if index.kind in strides:
                strides[index.kind] += stride
        if strides["unit"] > 1:
            raise NotACellError
        moves = access is not None and any(uses_dims(e) for e in access.results)
        kind, repeat = self._row_use(rows, moves)
        extents = (*(e for e, i in dims if i.kind == "row"), prod(sizes))
        operand = self._operand(KernelOperand(kind, array, access, extents, repeat=repeat))
        return Load(operand, column, strides["unit"], strides["depth"])

    def _row_use(self, rows: list[int], moves: bool) -> tuple[Literal["read", "vector"], int]:
        """The kind and the `repeat` of an operand that has some of the row dimensions."""
        every = self.rows or []
        count = len(every)
        if rows == list(range(count)):
            # Without row dimensions each point is a row: what moves from point to point is a read.
            return ("read" if rows or moves else "vector"), 1
        outer = rows == list(range(len(rows)))
        shared = every[len(rows) :] if outer and rows else every[rows[0] :] if rows else []
        if (not outer and rows != list(range(rows[0], count))) or None in shared:
            raise NotACellError
        return ("read" if outer and rows else "vector"), prod(e or 1 for e in shared)

    def _weight(self, value: ir.Value, indices: Indices) -> tuple[int, int, int]:
        """The operand of a known matrix, and its row and column at k = j = 0."""
        array, access = self._source(value)
        owner = defining_op(array)
        extents = static_extents(value.type)
        if (owner is not None and owner.operation.name == "parc.unknown") or None in extents:
            raise NotACellError
        if len(indices) == 1 and self.units == 1:
            extents, indices = (*extents, 1), (*indices, Index("unit", 0))
        kinds = [i.kind for i in indices]
        if len(kinds) < 2:
            raise NotACellError
        unit_kinds = ("unit", "fixed") if self.units == 1 else ("unit",)
        transposed = kinds[-1] == "depth"
        depth, unit = (kinds[-1], kinds[-2]) if transposed else (kinds[-2], kinds[-1])
        if depth != "depth" or unit not in unit_kinds or any(k != "fixed" for k in kinds[:-2]):
            raise NotACellError
        if len(indices) > 2:
            dims, symbols = self.access_inputs
            leading = [] if access is None else list(access.results)
            leading += [ir.AffineConstantExpr.get(i.value) for i in indices[:-2]]
            access = ir.AffineMap.get(dims, symbols, leading)
        operand = self._operand(KernelOperand("weight", array, access, extents[-2:], transposed))
        row, column = reversed(indices[-2:]) if transposed else indices[-2:]
        return operand, row.value, column.value

    def _source(self, value: ir.Value) -> tuple[ir.Value, ir.AffineMap | None]:
        """The array that a tile is from, and its access; fails for what the body computes."""
        op = self._body_op(value)
        if not isinstance(value.type, ir.RankedTensorType) or (op is not None and op.name != "parc.read"):
            raise NotACellError
        return (value, None) if op is None else (op.operands[0], ir.AffineMapAttr(op.attributes["at"]).value)

    def _body_op(self, value: ir.Value) -> ir.Operation | None:
        """The operation of the body that defines `value`; None for values from outside."""
        op = defining_op(value)
        parent = None if op is None else op.operation.parent
        return op.operation if op is not None and parent is not None and parent.operation == self.equation else None

    def _pieces(self, piece: Piece, along: str) -> list[Piece]:
        """The leaves, or computed values, that a factor of a product or a written tile is put together from."""
        op = self._body_op(piece.value)
        below = None if op is None else view_pieces(op, piece, along)
        return [piece] if below is None else [leaf for p in below for leaf in self._pieces(p, along)]


def _check_reduction(cell: Cell, number: int, reduction: Reduction) -> None:
    """Fail for a reduction whose loops would step over elements, or compute costly functions again for every unit."""
    by_unit = "unit" in cell.varies[number]
    pending = [reduction.argument]
    while pending:
        argument = pending.pop()
        node = cell.nodes[argument]
        if "depth" not in cell.varies[argument]:
            continue
        if isinstance(node, Load) and not by_unit and node.depth_stride > 1:
            raise NotACellError
        if isinstance(node, Apply) and by_unit and "unit" not in cell.varies[argument]:
            raise NotACellError
        pending += arguments_of(node)
