"""`lower-to-loops`: scheduled systems become loops that a thread team runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import arith, bufferization, func, memref, scf

from parc.codegen.analysis import analyse_cell
from parc.codegen.arrays import Array, indices, slope
from parc.codegen.cell import Cell, KernelOperand
from parc.codegen.general import GeneralEquation
from parc.codegen.irtools import defining_op, find_function, is_inside, walk
from parc.codegen.kernel import Kernel, VectorTarget, emit_kernel
from parc.codegen.loops import STEP, WAVE, Emitter, domain_ast, emit, index, schedule_ast, share
from parc.codegen.packing import Layout, pack
from parc.dialect import BarrierOp, TeamOp
from parc.errors import CompileError
from parc.passbase import Pass
from parc.poly.legality import verify
from parc.poly.model import Equation, System, build


@dataclass
class LowerToLoops(Pass):
    """Scheduled systems become loops that a thread team runs.

    The schedule is proved right once more; isl generates the loops; equations that are cells call vector kernels.

        %s = "parc.system"(%T, %B) ({ ... schedule = affine_map<(t)[T, B] -> (t)> ... })
               {symbols = ["T", "B"], distribute = "units"}
        %H = "parc.array"(%s) {name = "H"}

        %h = memref.alloc(%T1, %B) : memref<?x?x8xf32>
        "parc.team"() ({
        ^bb0(%tid: index, %nthreads: index):
          scf.for %t = %c0 to %T step %c1 {
            func.call @cell(%r0, %r1, %u0, %u1, ...)
            "parc.barrier"()
          }
        })
        %H = bufferization.to_tensor %h restrict writable
    """

    name = "lower-to-loops"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            raise CompileError("the module has no function @main")
        kernels = _Kernels(module)
        for op in walk(main, "parc.system"):
            with op.location:
                _lower(op, kernels)


class _Kernels:
    """The functions that a module's systems call: kernels, which cells with equal keys share, and copies."""

    def __init__(self, module: ir.Module) -> None:
        self._module = module
        self._target = VectorTarget.host()
        self._kernels: dict[tuple[object, ...], Kernel] = {}
        self._copies: set[str] = set()

    def of(self, cell: Cell, name: str) -> Kernel:
        if cell.key not in self._kernels:
            taken = {kernel.name for kernel in self._kernels.values()}
            unique = name if name not in taken else f"{name}_{len(taken)}"
            self._kernels[cell.key] = emit_kernel(self._module, cell, f"{unique}_kernel", self._target)
        return self._kernels[cell.key]

    def copy(self, element: ir.Type) -> str:
        """The function `(%source, %from, %target, %to, %count)` that copies elements of flat buffers."""
        name = f"copy_{element}"
        if name not in self._copies:
            self._copies.add(name)
            with ir.InsertionPoint(self._module.body), ir.Location.unknown():
                _emit_copy(name, element)
        return name


def _emit_copy(name: str, element: ir.Type) -> None:
    flat, index_type = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], element), ir.IndexType.get()
    type_ = ir.FunctionType.get([flat, index_type, flat, index_type, index_type], [])
    function = func.FuncOp(name, type_, visibility="private")
    function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
    with ir.InsertionPoint(function.add_entry_block()):
        source, start, target, to, count = function.arguments
        loop = scf.ForOp(index(0), count, index(1))
        with ir.InsertionPoint(loop.body):
            i = loop.induction_variable
            memref.store(memref.load(source, [arith.addi(start, i)]), target, [arith.addi(to, i)])
            scf.YieldOp([])
        func.ReturnOp([])


def _lower(op: ir.OpView, kernels: _Kernels) -> None:
    """Replace one system."""
    for read in walk(op, "parc.read"):
        _move_before(read.operation.operands[0], op)
    system = build(op)
    verify(system)
    with ir.InsertionPoint(op):
        buffers = _SystemLowering(system, kernels).emit()
        for use in list(op.operation.results[0].uses):
            array = use.owner.operation
            buffer = buffers[ir.StringAttr(array.attributes["name"]).value]
            tensor = bufferization.to_tensor(array.results[0].type, buffer, restrict=True, writable=True)
            array.results[0].replace_all_uses_with(tensor)
            array.erase()
    op.operation.erase()


def _move_before(value: ir.Value, system: ir.OpView) -> None:
    """Compute a known array (a view of a parameter, say) in front of the system, not inside an equation."""
    owner = defining_op(value)
    if owner is not None and owner.operation.name != "parc.unknown" and is_inside(owner, "parc.system"):
        for operand in owner.operation.operands:
            _move_before(operand, system)
        owner.operation.move_before(system.operation)


@dataclass(frozen=True)
class _Argument:
    """One array of a kernel; of a packed one, the extents of the weights before packing and the size of each packed."""

    array: Array
    access: ir.AffineMap | None
    matrices: Sequence[int] = ()
    matrix_size: int = 0

    def offset(self, point: Sequence[ir.Value], symbols: Sequence[ir.Value]) -> ir.Value:
        """Where the tile of a point starts."""
        if not self.matrix_size:
            return self.array.offset(self.access, point, symbols)
        matrix = index(0)
        for extent, position in zip(self.matrices, indices(self.access, point, symbols), strict=True):
            matrix = arith.addi(arith.muli(matrix, index(extent)), position)
        return arith.muli(matrix, index(self.matrix_size))


@dataclass(frozen=True)
class _CellEquation:
    """An equation that calls a kernel."""

    kernel: Kernel
    arguments: tuple[_Argument, ...]
    rows: ir.Value  # of one point
    units: int
    run_dimension: int | None


class _BoundaryCopy(Emitter):
    """Copies the tiles of one boundary; every thread copies its part of each."""

    def __init__(
        self,
        op: ir.Operation,
        target: Array,
        source: Array,
        symbols: Sequence[ir.Value],
        thread: tuple[ir.Value, ir.Value],
        function: str,
    ) -> None:
        self._target, self._source, self._symbols, self._function = target, source, symbols, function
        self._to, self._of = (ir.AffineMapAttr(op.attributes[key]).value for key in ("to", "of"))
        self._first, last = share(target.tile_size(len(self._to.results)), *thread)
        self._count = arith.subi(last, self._first)

    def point(self, name: str, point: Sequence[ir.Value]) -> None:
        """Copy the thread's part of one tile."""
        to = self._target.offset(self._to, point, self._symbols)
        of = self._source.offset(self._of, point, self._symbols)
        operands = [
            *(self._source.flat, arith.addi(of, self._first)),
            *(self._target.flat, arith.addi(to, self._first)),
            self._count,
        ]
        func.CallOp([], ir.FlatSymbolRefAttr.get(self._function), operands)


class _SystemLowering(Emitter):
    """Emits, in front of a system, what it becomes; also the callbacks of `codegen.loops.emit`."""

    def __init__(self, system: System, kernels: _Kernels) -> None:
        self._system = system
        self._kernels = kernels
        self._symbols = list(system.op.operands)
        self._names = dict(zip(system.symbols, self._symbols, strict=True))
        self._arrays: dict[ir.Value, Array] = {}
        self._cells: dict[str, _CellEquation] = {}
        self._general: dict[str, GeneralEquation] = {}
        self._owners: dict[str, ir.AffineMap] = {}
        packed: dict[tuple[ir.Value, Layout], Array] = {}
        for equation in system.equations:
            cell = analyse_cell(equation.op)
            if "owner" in equation.op.attributes:
                self._owners[equation.name] = ir.AffineMapAttr(equation.op.attributes["owner"]).value
            if cell is None:
                self._general[equation.name] = GeneralEquation(equation.op, self._symbols, self._array)
            else:
                kernel = kernels.of(cell, equation.name)
                self._cells[equation.name] = self._cell_equation(equation, cell, kernel, packed)

    def emit(self) -> dict[str, ir.Value]:
        """Emit everything; returns the buffers of the unknown arrays by name."""
        boundaries = [
            (self._array(b.op.operands[0]), self._array(b.op.operands[1]), b) for b in self._system.boundaries
        ]
        innermost = {name: cell.run_dimension for name, cell in self._cells.items()}
        loops = schedule_ast(self._system, innermost)
        team = TeamOp()
        index_type = ir.IndexType.get()
        block = team.operation.regions[0].blocks.append(index_type, index_type)
        self._tid, self._nthreads = block.arguments
        with ir.InsertionPoint(block):
            self._units = {name: self._unit_share(cell.kernel, cell.units) for name, cell in self._cells.items()}
            for target, source, boundary in boundaries:
                function = self._kernels.copy(target.type.element_type)
                thread = (self._tid, self._nthreads)
                copy = _BoundaryCopy(boundary.op, target, source, self._symbols, thread, function)
                emit(domain_ast(boundary.target.relation.domain(), self._system.context), self._names, copy)
            if boundaries:
                BarrierOp()
            emit(loops, self._names, self)
        unknowns = self._system.unknowns
        return {u.name: self._array(u.op.results[0]).buffer for u in unknowns}

    # The callbacks of `codegen.loops.emit`.

    def run_dimension(self, name: str) -> int | None:
        """Points with tiles next to each other in memory are one call with more rows."""
        cell = self._cells.get(name)
        if cell is None or self._system.distribute == "rows":
            return None
        owner = self._owners.get(name)
        moves = self._system.distribute == "points" and owner is not None
        return None if moves and _slopes(owner, cell.run_dimension) != [0] else cell.run_dimension

    def point(self, name: str, point: Sequence[ir.Value]) -> None:
        """One instance of an equation."""
        if name in self._cells:
            self.run(name, point, index(1))
        else:
            with self._one_thread(name, point):
                self._general[name].emit(point)

    def run(self, name: str, first: Sequence[ir.Value], count: ir.Value) -> None:
        """Instances of an equation that follow each other in memory."""
        cell = self._cells[name]
        rows = (index(0), arith.muli(arith.maxsi(count, index(0)), cell.rows))
        units = (index(0), index(cell.units))
        if self._system.distribute == "points":
            with self._one_thread(name, first):
                self._call(cell, rows, units, first)
        elif self._system.distribute == "rows":
            self._call(cell, share(rows[1], self._tid, self._nthreads), units, first)
        else:
            self._call(cell, rows, self._units[name], first)

    def enter(self, mark: str, names: frozenset[str]) -> None:
        """A thread that owns rows alone has to wait before one thread runs a general equation on all of them."""
        if mark == STEP and self._system.distribute == "rows" and not names.isdisjoint(self._general):
            BarrierOp()

    def leave(self, mark: str, names: frozenset[str]) -> None:
        """A barrier, where the way of sharing the work needs one."""
        distribute = self._system.distribute
        general = not names.isdisjoint(self._general)
        if mark == {"units": STEP, "points": WAVE}.get(distribute) or (
            mark == STEP and distribute == "rows" and general
        ):
            BarrierOp()

    # Arrays and kernels.

    def _array(self, value: ir.Value) -> Array:
        """The buffer of an array: allocated for an unknown one, the tensor's own for a known one."""
        if value not in self._arrays:
            owner = defining_op(value)
            if owner is not None and owner.operation.name == "parc.unknown":
                buffer = self._allocate(owner.operation)
            else:
                type_ = ir.RankedTensorType(value.type)
                memref_type = ir.MemRefType.get(type_.shape, type_.element_type)
                buffer = bufferization.to_buffer(memref_type, value, read_only=True)
            self._arrays[value] = Array(buffer)
        return self._arrays[value]

    def _allocate(self, unknown: ir.Operation) -> ir.Value:
        shape = ir.AffineMapAttr(unknown.attributes["shape"]).value
        type_ = ir.RankedTensorType(unknown.results[0].type)
        extents = indices(shape, [], self._symbols)
        dynamic = [e for d, e in enumerate(extents) if type_.is_dynamic_dim(d)]
        return memref.AllocOp(ir.MemRefType.get(type_.shape, type_.element_type), dynamic, []).result

    def _cell_equation(
        self, equation: Equation, cell: Cell, kernel: Kernel, packed: dict[tuple[ir.Value, Layout], Array]
    ) -> _CellEquation:
        arguments = []
        for number, operand in enumerate(cell.operands):
            layout = kernel.layouts.get(number)
            if layout is None:
                arguments.append(_Argument(self._array(operand.array), operand.access))
                continue
            key = (operand.array, layout)
            if key not in packed:
                flat = pack(operand.array, layout)
                type_ = ir.RankedTensorType(flat.type)
                memref_type = ir.MemRefType.get(type_.shape, type_.element_type)
                packed[key] = Array(bufferization.to_buffer(memref_type, flat, read_only=True))
            leading = list(ir.RankedTensorType(operand.array.type).shape[:-2])
            arguments.append(_Argument(packed[key], operand.access, leading, layout.size))
        written = cell.operands[-1]
        assert written.access is not None
        size = self._array(written.array).tile_size(len(written.access.results))
        rows = arith.divui(size, index(written.extents[-1] or 1))
        dims = range(equation.domain.dim(isl.dim_type.set))
        run_dimension = next((d for d in dims if all(_is_run(o, d) for o in cell.operands)), None)
        return _CellEquation(kernel, tuple(arguments), rows, cell.units, run_dimension)

    def _unit_share(self, kernel: Kernel, units: int) -> tuple[ir.Value, ir.Value]:
        """The thread's units: whole unit tiles."""
        lo, hi = share(index(-(-units // kernel.unit_tile)), self._tid, self._nthreads)
        tile = index(kernel.unit_tile)
        return arith.muli(lo, tile), arith.minsi(arith.muli(hi, tile), index(units))

    def _call(
        self,
        cell: _CellEquation,
        rows: tuple[ir.Value, ir.Value],
        units: tuple[ir.Value, ir.Value],
        point: Sequence[ir.Value],
    ) -> None:
        operands = [*rows, *units]
        for argument in cell.arguments:
            operands += [argument.array.flat, argument.offset(point, self._symbols)]
        func.CallOp([], ir.FlatSymbolRefAttr.get(cell.kernel.name), operands)

    @contextmanager
    def _one_thread(self, name: str, point: Sequence[ir.Value]) -> Iterator[None]:
        """What is emitted inside is run by one thread: the owner of the point, or thread 0."""
        owner = index(0)
        if self._system.distribute == "points":
            owner = arith.remui(indices(self._owners[name], point, self._symbols)[0], self._nthreads)
        branch = scf.IfOp(arith.cmpi(arith.CmpIPredicate.eq, owner, self._tid))
        with ir.InsertionPoint(branch.then_block):
            yield
            scf.YieldOp([])


def _is_run(operand: KernelOperand, dim: int) -> bool:
    """Whether the operand's tiles at neighbours in `dim` are neighbours in memory, or the same if all rows share it."""
    *outer, last = _slopes(operand.access, dim) or [0]
    return not any(outer) and last == (1 if operand.kind in ("read", "write") else 0)


def _slopes(access: ir.AffineMap | None, dim: int | None) -> list[int | None]:
    """How each index of an access moves with one dimension."""
    return [] if access is None or dim is None else [slope(e, dim) for e in access.results]
