"""Packed panels of factors that are only known at run time, and the innermost loop over two of them.

A panel holds `width` rows of a factor, `[k][width]`, front to back as the loop over k reads them; panels follow each
other.  The functions are emitted once per module and element type.  Their buffers are flat, `memref<?xT>`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf, vector

from parc.codegen.lanes import splat
from parc.codegen.microkernel import PANEL_VECTORS, VectorTarget, constant, loop
from parc.codegen.transposes import transposed

_DEPTH = 256  # k in a block: a panel of two vectors of 32 bytes takes 16 KiB
_LEFT_BYTES = 192 << 10  # of a packed block of the left factor: less than half of a second-level cache
_RIGHT_BYTES = 1 << 20  # of a packed block of the right factor
_STREAMS = 8  # k that are packed side by side: so many places of memory are read in turns


@dataclass(frozen=True)
class Blocking:
    """Sizes, in elements, of the tiles and blocks of products of one type."""

    element: ir.Type
    lanes: int  # of a vector
    tile_rows: int
    rows: int
    columns: int
    depth: int = _DEPTH

    @staticmethod
    def of(element: ir.Type, target: VectorTarget) -> "Blocking":
        """Tiles that fill the registers and blocks that fill the caches."""
        lanes, row_bytes = target.lanes(element), _DEPTH * element.width // 8
        rows, columns = target.row_block, PANEL_VECTORS * lanes
        left, right = _LEFT_BYTES // row_bytes, _RIGHT_BYTES // row_bytes
        return Blocking(element, lanes, rows, left // rows * rows, right // columns * columns)

    @property
    def tile_columns(self) -> int:
        """Two vectors."""
        return PANEL_VECTORS * self.lanes

    @property
    def flat(self) -> ir.MemRefType:
        """The type of all buffers of elements."""
        return flat_type(self.element)

    def vector(self, width: int | None = None) -> ir.VectorType:
        """Of `width` elements (None: as many as the machine's vectors have)."""
        return ir.VectorType.get([width or self.lanes], self.element)


def flat_type(element: ir.Type) -> ir.MemRefType:
    """`memref<?xT>`."""
    return ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], element)


def call(module: ir.Module, name: str, arguments: Sequence[ir.Value], body: Callable[..., None]) -> None:
    """Call `@name`; `body` emits it, given the values of its arguments, unless the module has it."""
    present = (op.attributes["sym_name"] for op in module.body.operations if "sym_name" in op.attributes)
    if name not in (ir.StringAttr(symbol).value for symbol in present):
        with ir.InsertionPoint(module.body), ir.Location.unknown():
            type_ = ir.FunctionType.get([a.type for a in arguments], [])
            function = func.FuncOp(name, type_, visibility="private")
            # One copy for all contractions: inlined, it would be there once for each.
            function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
            with ir.InsertionPoint(function.add_entry_block()):
                body(*function.arguments)
                func.ReturnOp([])
    func.CallOp([], ir.FlatSymbolRefAttr.get(name), list(arguments))


@dataclass(frozen=True)
class Rows:
    """Rows of a factor: row r starts at `source[start + r * stride]`, and `offsets[k]` elements behind it is its k.

    `run` (an i1) says that the offsets count up by one.
    """

    source: ir.Value
    start: ir.Value
    stride: ir.Value
    count: ir.Value
    offsets: ir.Value
    run: ir.Value


def pack(module: ir.Module, blocking: Blocking, width: int, rows: Rows, depth: ir.Value, panels: ir.Value) -> None:
    """Copy the first `depth` elements of all rows to `panels`; what the last panel has too many is undefined."""

    def body(*arguments: ir.Value) -> None:
        *fields, depth, panels = arguments
        _Packing(blocking, width, Rows(*fields), depth, panels).emit()

    arguments = [rows.source, rows.start, rows.stride, rows.count, rows.offsets, rows.run, depth, panels]
    call(module, f"pack_{blocking.element}_{width}", arguments, body)


@dataclass(frozen=True)
class _Packing:
    """The body of a function that packs panels of one width."""

    blocking: Blocking
    width: int
    rows: Rows
    depth: ir.Value
    panels: ir.Value

    def emit(self) -> None:
        """Vectors of rows that are neighbours in memory; else runs of k are transposed, and others copied singly."""
        neighbours = arith.cmpi(arith.CmpIPredicate.eq, self.rows.stride, constant(1))
        branch = scf.IfOp(neighbours, has_else=True)
        with ir.InsertionPoint(branch.then_block):
            self._copy_vectors()
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            lanes = constant(self.blocking.lanes)
            vectors = arith.muli(arith.divui(self.depth, lanes), lanes)
            vectors = arith.select(self.rows.run, vectors, constant(0))
            with loop(constant(0), self.rows.count, constant(self.width)) as first:
                with loop(constant(0), vectors, lanes) as k:
                    self._transpose(first, k)
                with loop(vectors, self.depth, constant(1)) as k:
                    self._copy_elements(first, k)
            scf.YieldOp([])

    def _place(self, first: ir.Value, k: ir.Value) -> ir.Value:
        """Where element k of the panel that begins with row `first` goes."""
        return arith.addi(arith.muli(first, self.depth), arith.muli(k, constant(self.width)))

    def _copy_vectors(self) -> None:
        """A vector of rows at a time, some k in turns: each is a stream that the hardware fetches ahead."""
        type_, rows = self.blocking.vector(self.width), self.rows
        zero = splat(type_, 0)
        mask_type = ir.VectorType.get([self.width], ir.IntegerType.get_signless(1))
        whole = arith.muli(arith.divui(rows.count, constant(self.width)), constant(self.width))
        mask = vector.create_mask(mask_type, [arith.subi(rows.count, whole)])

        def copy(first: ir.Value, k: ir.Value, mask: ir.Value | None) -> None:
            source = [arith.addi(arith.addi(rows.start, first), memref.load(rows.offsets, [k]))]
            if mask is None:
                values = vector.load(type_, rows.source, source)
            else:
                values = vector.maskedload(type_, rows.source, source, mask, zero)
            vector.store(values, self.panels, [self._place(first, k)])

        with loop(constant(0), self.depth, constant(_STREAMS)) as start:
            stop = arith.minui(arith.addi(start, constant(_STREAMS)), self.depth)
            with loop(constant(0), whole, constant(self.width)) as first, loop(start, stop, constant(1)) as k:
                copy(first, k, None)
            with loop(whole, rows.count, constant(self.width)) as first, loop(start, stop, constant(1)) as k:
                copy(first, k, mask)

    def _row(self, first: ir.Value, row: ir.Value) -> ir.Value:
        """Where a row of the panel is in the factor; that of the last row for those behind it."""
        rows = self.rows
        row = arith.minui(arith.addi(first, row), arith.subi(rows.count, constant(1)))
        return arith.addi(rows.start, arith.muli(row, rows.stride))

    def _transpose(self, first: ir.Value, k: ir.Value) -> None:
        """One vector of k of each row."""
        lanes, offset = self.blocking.lanes, memref.load(self.rows.offsets, [k])
        for group in range(0, self.width, lanes):
            size = min(lanes, self.width - group)
            places = [arith.addi(self._row(first, constant(group + r)), offset) for r in range(size)]
            loaded = [vector.load(self.blocking.vector(), self.rows.source, [place]) for place in places]
            # The square is filled up with any row.
            for i, column in enumerate(transposed(loaded + loaded[:1] * (lanes - size))):
                if size < lanes:
                    column = vector.shuffle(column, column, list(range(size)))
                place = arith.addi(self._place(first, arith.addi(k, constant(i))), constant(group))
                vector.store(column, self.panels, [place])

    def _copy_elements(self, first: ir.Value, k: ir.Value) -> None:
        """The k-th element of each row."""
        offset, place = memref.load(self.rows.offsets, [k]), self._place(first, k)
        with loop(constant(0), constant(self.width), constant(1)) as row:
            value = memref.load(self.rows.source, [arith.addi(self._row(first, row), offset)])
            memref.store(value, self.panels, [arith.addi(place, row)])


@dataclass(frozen=True)
class Tile:
    """A tile of sums in memory: rows of neighbours, `stride` apart."""

    buffer: ir.Value
    start: ir.Value
    stride: ir.Value


def multiply(
    module: ir.Module,
    blocking: Blocking,
    left: tuple[ir.Value, ir.Value],
    right: tuple[ir.Value, ir.Value],
    depth: ir.Value,
    tile: Tile,
) -> None:
    """Add the products of two panels (each a buffer and where it starts) over `depth` k to a tile."""

    def body(*arguments: ir.Value) -> None:
        a, a0, b, b0, depth, *fields = arguments
        _emit_multiply(blocking, (a, a0), (b, b0), depth, Tile(*fields))

    arguments = [*left, *right, depth, tile.buffer, tile.start, tile.stride]
    call(module, f"multiply_{blocking.element}", arguments, body)


def _emit_multiply(
    blocking: Blocking,
    left: tuple[ir.Value, ir.Value],
    right: tuple[ir.Value, ir.Value],
    depth: ir.Value,
    tile: Tile,
) -> None:
    """Sums of a tile in registers, from zero; then what is in memory plus these."""
    type_, rows = blocking.vector(), blocking.tile_rows
    zero = splat(type_, 0)
    places = [arith.addi(tile.start, arith.muli(constant(r), tile.stride)) for r in range(rows)]
    steps = scf.ForOp(constant(0), depth, constant(1), [zero] * (rows * PANEL_VECTORS))
    with ir.InsertionPoint(steps.body):
        k, totals = steps.induction_variable, list(steps.inner_iter_args)
        row = arith.addi(right[1], arith.muli(k, constant(blocking.tile_columns)))
        vectors = [
            vector.load(type_, right[0], [arith.addi(row, constant(v * blocking.lanes))]) for v in range(PANEL_VECTORS)
        ]
        column = arith.addi(left[1], arith.muli(k, constant(rows)))
        for r in range(rows):
            factor = vector.broadcast(type_, memref.load(left[0], [arith.addi(column, constant(r))]))
            for v, values in enumerate(vectors):
                number = r * PANEL_VECTORS + v
                totals[number] = vector.fma(factor, values, totals[number])
        scf.YieldOp(totals)
    for number, total in enumerate(steps.results_):
        r, v = divmod(number, PANEL_VECTORS)
        place = [arith.addi(places[r], constant(v * blocking.lanes))]
        vector.store(arith.addf(vector.load(type_, tile.buffer, place), total), tile.buffer, place)
