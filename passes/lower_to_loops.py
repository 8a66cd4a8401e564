"""`lower-to-loops`: scheduled systems become loops that a thread team runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, bufferization, func, gpu, memref, scf

from parc.codegen.arrays import Array, indices, modulus, move_known_arrays_out
from parc.codegen.blocks.kernel import emit_block_kernel
from parc.codegen.blocks.plan import BlockPlan
from parc.codegen.blocks.target import EXACT, PERSISTENT, BlockTarget, find_target
from parc.codegen.blocks.team import BlockTeam
from parc.codegen.cell import Cell
from parc.codegen.chain import Carry
from parc.codegen.crews import Member
from parc.codegen.general import GeneralEquation
from parc.codegen.irtools import defining_op, find_function, walk
from parc.codegen.kernel import Kernel, VectorTarget, emit_kernel
from parc.codegen.loops import STEP, WAVE, Emitter, domain_ast, emit, index, schedule_asts, share
from parc.codegen.packing import Layout, pack
from parc.dialect import BarrierOp, TeamOp
from parc.errors import CompileError
from parc.passbase import Pass
from parc.poly.chains import find_chains
from parc.poly.crews import Crews, check_crews, find_crews
from parc.poly.legality import verify
from parc.poly.model import Equation, System, build
from parc.poly.rows import find_cells
from parc.poly.runs import memory_dimension, run_dimension, strided_dimension

_DYNAMIC = ir.ShapedType.get_dynamic_size()


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

    For a GPU (`target=sm_90`, with so many `blocks`) the members of the team are thread blocks, and the threads of each
    share the work of a kernel; with a `precision` of tf32, bf16 or f16, tensor cores multiply, and add up in f32.
    Weights of recurrences stay in shared memory, unless `form=waves` ends the kernel with every wave.
    """

    name = "lower-to-loops"

    target: str = "cpu"
    blocks: int = 0
    precision: str = EXACT
    form: str = PERSISTENT

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            raise CompileError("the module has no function @main")
        kernels = _Kernels(module, find_target(self.target, self.blocks, self.precision, self.form))
        for op in walk(main, "parc.system"):
            with op.location:
                _lower(op, kernels)
        if kernels.blocks is not None:
            with module.context:
                module.operation.attributes["parc.weights"] = ir.ArrayAttr.get(kernels.weights)


class _Kernels:
    """The functions that a module's systems call: kernels, which cells with equal keys share, and copies.

    They are made for the vectors of this machine, or for the thread blocks of `blocks`.
    """

    def __init__(self, module: ir.Module, blocks: BlockTarget | None) -> None:
        self._module = module
        self.blocks = blocks
        self._vectors = VectorTarget.host()
        self._kernels: dict[tuple[object, ...], Kernel] = {}
        self._copies: set[str] = set()
        self.weights: list[ir.Attribute] = []
        """For reports: the weights of recurrences, and whether they stay in shared memory."""

    def of(self, cell: Cell, name: str, is_strided: bool, carry: Carry | None, plan: BlockPlan | None) -> Kernel:
        """The kernel of a cell; `plan` is that for the threads of a block, which work in their own way."""
        key = (is_strided, carry, None if plan is None else plan.key, *cell.key)
        if key not in self._kernels:
            taken = {kernel.name for kernel in self._kernels.values()}
            unique = f"{name}_kernel" if f"{name}_kernel" not in taken else f"{name}_{len(taken)}_kernel"
            if plan is None:
                kernel = emit_kernel(self._module, cell, unique, self._vectors, is_strided, carry)
            else:
                kernel = emit_block_kernel(self._module, plan, unique, is_strided, carry)
            self._kernels[key] = kernel
        return self._kernels[key]

    def copy(self, element: ir.Type) -> str:
        """The function `(%source, %from, %target, %to, %count)` that copies elements of flat buffers."""
        name = f"copy_{element}"
        if name not in self._copies:
            self._copies.add(name)
            with ir.InsertionPoint(self._module.body), ir.Location.unknown():
                _emit_copy(name, element, self.blocks)
        return name


def _emit_copy(name: str, element: ir.Type, blocks: BlockTarget | None) -> None:
    flat, index_type = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], element), ir.IndexType.get()
    type_ = ir.FunctionType.get([flat, index_type, flat, index_type, index_type], [])
    function = func.FuncOp(name, type_, visibility="private")
    function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
    with ir.InsertionPoint(function.add_entry_block()):
        source, start, target, to, count = function.arguments
        first = index(0) if blocks is None else gpu.thread_id(gpu.Dimension.x)
        loop = scf.ForOp(first, count, index(1 if blocks is None else blocks.threads))
        with ir.InsertionPoint(loop.body):
            i = loop.induction_variable
            memref.store(memref.load(source, [arith.addi(start, i)]), target, [arith.addi(to, i)])
            scf.YieldOp([])
        func.ReturnOp([])


def _lower(op: ir.OpView, kernels: _Kernels) -> None:
    """Replace one system."""
    move_known_arrays_out(op)
    system = build(op)
    verify(system)
    with ir.InsertionPoint(op):
        arrays = _SystemLowering(system, kernels).emit()
        for use in list(op.operation.results[0].uses):
            taker = use.owner.operation
            array = arrays[ir.StringAttr(taker.attributes["name"]).value]
            buffer = array.buffer
            if "at" in taker.attributes:
                buffer = array.tile(ir.AffineMapAttr(taker.attributes["at"]).value, [], list(op.operands))
            tensor = bufferization.to_tensor(taker.results[0].type, buffer, restrict=True, writable=True)
            taker.results[0].replace_all_uses_with(tensor)
            taker.erase()
    op.operation.erase()


@dataclass(frozen=True)
class _Argument:
    """One array of a kernel; of a packed one, the extents of the weights before packing and the size of each packed."""

    array: Array
    access: ir.AffineMap | None
    stride: ir.Value | None = None
    """Of a strided kernel: the distance from the tile of one point to that of the next one in its run."""
    matrices: Sequence[int] = ()
    matrix_size: int = 0
    is_last: bool = False
    """Does the kernel take the tile of a run's last point, not that of the first?"""

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
    innermost: int | None
    """The dimension along which its tiles are neighbours in memory, or at the distances that a strided kernel takes."""
    run_dimension: int | None
    """The same where points of equal time may be one call."""


def _divided(system: System, is_shared: bool) -> Crews | None:
    """The crews of a system that distributes points, proved to wait for all that they need."""
    crews = find_crews(system, is_shared) if system.distribute == "points" else None
    if crews is not None:
        check_crews(system, crews)
    return crews


def _last(cell: _CellEquation, first: Sequence[ir.Value], count: ir.Value) -> list[ir.Value]:
    """The last point of a run."""
    return [arith.addi(x, arith.subi(count, index(1))) if d == cell.run_dimension else x for d, x in enumerate(first)]


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
        self._owners = {
            e.name: ir.AffineMapAttr(e.op.attributes["owner"]).value
            for e in system.equations
            if "owner" in e.op.attributes
        }
        packed: dict[tuple[ir.Value, Layout], Array] = {}
        cells = find_cells(system)
        # A thread goes through its chains one after another, whatever the order of their points in time.
        self._lines, self._chains = find_chains(system, cells)
        self._crews = _divided(self._lines, is_shared=not self._chains)
        self._blocks = None if kernels.blocks is None else BlockTeam.of(system, cells, self._crews, kernels.blocks)
        if self._blocks is not None:
            kernels.weights += self._blocks.describe()
        for equation in system.equations:
            cell = cells[equation.name]
            if cell is None:
                self._general[equation.name] = GeneralEquation(equation.op, self._symbols, self._array)
            else:
                self._cells[equation.name] = self._cell_equation(equation, cell, packed)

    def emit(self) -> dict[str, Array]:
        """Emit everything; returns the unknown arrays by name."""
        boundaries = [
            (self._array(b.op.operands[0]), self._array(b.op.operands[1]), b) for b in self._system.boundaries
        ]
        innermost = {name: cell.innermost for name, cell in self._cells.items()}
        loops = schedule_asts(self._lines, innermost)
        team = TeamOp()
        index_type = ir.IndexType.get()
        block = team.operation.regions[0].blocks.append(index_type, index_type)
        self._tid, self._nthreads = block.arguments
        with ir.InsertionPoint(block):
            self._shared = None if self._blocks is None else self._blocks.emit()
            self._member = Member(self._crews, self._tid, self._nthreads)
            self._units = {name: self._unit_share(cell.kernel, cell.units) for name, cell in self._cells.items()}
            for target, source, boundary in boundaries:
                function = self._kernels.copy(target.type.element_type)
                thread = (self._tid, self._nthreads)
                copy = _BoundaryCopy(boundary.op, target, source, self._symbols, thread, function)
                emit(domain_ast(boundary.target.relation.domain(), self._system.context), self._names, copy)
            if boundaries:
                BarrierOp()
            for node in loops:
                emit(node, self._names, self)
        return {u.name: self._array(u.op.results[0]) for u in self._system.unknowns}

    # The callbacks of `codegen.loops.emit`.

    def run_dimension(self, name: str) -> int | None:
        """Points with tiles next to each other in memory are one call with more rows."""
        cell = self._cells.get(name)
        return None if cell is None else cell.run_dimension

    def point(self, name: str, point: Sequence[ir.Value]) -> None:
        """One instance of an equation."""
        if name in self._cells:
            self.run(name, point, index(1))
        else:
            with self._one_thread(name, point, is_alone=True):
                self._general[name].emit(point)

    def run(self, name: str, first: Sequence[ir.Value], count: ir.Value) -> None:
        """Instances of an equation that follow each other in memory."""
        cell = self._cells[name]
        rows = (index(0), cell.rows)
        if not cell.kernel.is_strided:
            rows = (index(0), arith.muli(arith.maxsi(count, index(0)), cell.rows))
        if self._system.distribute == "points":
            with self._one_thread(name, first):
                self._call(name, rows, self._units[name], first, count)
        elif self._system.distribute == "rows":
            units = (index(0), index(cell.units))
            self._call(name, share(rows[1], self._tid, self._nthreads), units, first, count)
        else:
            self._call(name, rows, self._units[name], first, count)

    def enter(self, mark: str, names: frozenset[str]) -> None:
        """A thread that owns rows alone has to wait before one thread runs a general equation on all of them."""
        if mark == STEP and self._system.distribute == "rows" and not names.isdisjoint(self._general):
            BarrierOp()

    def leave(self, mark: str, names: frozenset[str]) -> None:
        """Wait, where the way of sharing the work needs it."""
        distribute = self._system.distribute
        general = not names.isdisjoint(self._general)
        if distribute == "points":
            if mark == WAVE:
                self._member.after_wave()
            else:
                self._member.after_step(names)
        elif mark == STEP and (distribute == "units" or general):
            BarrierOp()

    # Arrays and kernels.

    def _array(self, value: ir.Value) -> Array:
        """The buffer of an array: allocated for an unknown one, the tensor's own for a known one."""
        if value not in self._arrays:
            owner = defining_op(value)
            if owner is not None and owner.operation.name == "parc.unknown":
                self._arrays[value] = self._allocate(owner.operation)
            else:
                type_ = ir.RankedTensorType(value.type)
                memref_type = ir.MemRefType.get(type_.shape, type_.element_type)
                self._arrays[value] = Array(bufferization.to_buffer(memref_type, value, read_only=True))
        return self._arrays[value]

    def _allocate(self, unknown: ir.Operation) -> Array:
        shape = ir.AffineMapAttr(unknown.attributes["shape"]).value
        stored = unknown.attributes.get("storage")
        storage = None if stored is None else ir.AffineMapAttr(stored).value
        type_ = ir.RankedTensorType(unknown.results[0].type)
        sizes = list(type_.shape)
        for d, place in enumerate(storage.results if storage is not None else []):
            sizes[d] = modulus(place) or sizes[d]
        extents = indices(shape, [], self._symbols)
        dynamic = [extent for extent, size in zip(extents, sizes, strict=True) if size == _DYNAMIC]
        # `plan-buffers` finds the name of a buffer in its location.
        name = ir.Location.name(ir.StringAttr(unknown.attributes["name"]).value, unknown.location)
        buffer = memref.AllocOp(ir.MemRefType.get(sizes, type_.element_type), dynamic, [], loc=name).result
        return Array(buffer, storage)

    def _cell_equation(
        self, equation: Equation, cell: Cell, packed: dict[tuple[ir.Value, Layout], Array]
    ) -> _CellEquation:
        innermost, run = memory_dimension(equation, cell), run_dimension(self._system, equation, cell)
        strided = strided_dimension(self._system, equation, cell) if run is None else None
        chain = self._chains.get(equation.name)
        carry = Carry((), frozenset()) if chain is None else chain.carry
        if chain is not None:
            strided = chain.dim
        plan = None if self._blocks is None else self._blocks.plans[equation.name]
        with equation.op.location:
            kernel = self._kernels.of(cell, equation.name, strided is not None, None if chain is None else carry, plan)
        arguments = []
        for number, operand in enumerate(cell.operands):
            layout = kernel.layouts.get(number)
            if layout is None:
                array = self._array(operand.array)
                stays = number in dict(carry.states) or number in carry.kept
                stride = None if strided is None else index(0) if stays else array.stride(operand.access, strided)
                arguments.append(_Argument(array, operand.access, stride, is_last=number in carry.kept))
                continue
            key = (operand.array, layout)
            if key not in packed:
                flat = pack(operand.array, layout)
                type_ = ir.RankedTensorType(flat.type)
                memref_type = ir.MemRefType.get(type_.shape, type_.element_type)
                packed[key] = Array(bufferization.to_buffer(memref_type, flat, read_only=True))
            leading = list(ir.RankedTensorType(operand.array.type).shape[:-2])
            arguments.append(_Argument(packed[key], operand.access, None, leading, layout.size))
        written = cell.operands[-1]
        assert written.access is not None
        size = self._array(written.array).tile_size(len(written.access.results))
        rows = arith.divui(size, index(written.columns or 1))
        if strided is not None:
            innermost = run = strided
        return _CellEquation(kernel, tuple(arguments), rows, cell.units, innermost, run)

    def _unit_share(self, kernel: Kernel, units: int) -> tuple[ir.Value, ir.Value]:
        """The thread's units: whole unit tiles."""
        part = (self._tid, self._nthreads)
        if self._system.distribute == "points":
            if not self._member.is_shared:
                return index(0), index(units)
            part = (self._member.place, self._member.size)
        lo, hi = share(index(-(-units // kernel.unit_tile)), *part)
        tile = index(kernel.unit_tile)
        return arith.muli(lo, tile), arith.minsi(arith.muli(hi, tile), index(units))

    def _call(
        self,
        name: str,
        rows: tuple[ir.Value, ir.Value],
        units: tuple[ir.Value, ir.Value],
        point: Sequence[ir.Value],
        count: ir.Value,
    ) -> None:
        cell = self._cells[name]
        operands = [*rows, *units, *([count] if cell.kernel.is_strided else [])]
        for argument in cell.arguments:
            at = _last(cell, point, count) if argument.is_last else point
            operands += [argument.array.flat, argument.offset(at, self._symbols)]
            operands += [] if argument.stride is None else [argument.stride]
        if self._shared is not None:
            operands += self._shared[name]
        func.CallOp([], ir.FlatSymbolRefAttr.get(cell.kernel.name), operands)

    @contextmanager
    def _one_thread(self, name: str, point: Sequence[ir.Value], *, is_alone: bool = False) -> Iterator[None]:
        """What is emitted inside is run by one thread: thread 0, or the owner of the point; of a crew by all or one."""
        if self._system.distribute == "points":
            runs = self._member.has(indices(self._owners[name], point, self._symbols)[0])
            if is_alone and self._member.is_shared:
                runs = arith.andi(runs, self._member.is_first())
        else:
            runs = arith.cmpi(arith.CmpIPredicate.eq, index(0), self._tid)
        branch = scf.IfOp(runs)
        with ir.InsertionPoint(branch.then_block):
            yield
            scf.YieldOp([])
