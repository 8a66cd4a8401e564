"""How the threads of a block share the products of a cell: rounds of sums, tiles, and places in shared memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch_mlir import ir

from parc.codegen.blocks import tensor_core
from parc.codegen.blocks.target import WARP, BlockTarget
from parc.codegen.blocks.tensor_core import TensorCore
from parc.codegen.cell import Cell, Contraction
from parc.codegen.irtools import defining_op
from parc.codegen.packing import Layout

_ROWS = 8
"""Rows that share the loads of a weight; each is a register for every sum of a thread."""
_MOST_COLUMNS = 4 * WARP
"""Sums of one row and one tile: a thread has up to four of them."""
_LEFT_SHARE = 4
"""What part of shared memory the left factors may take: one in so many."""
VECTOR = 4
"""Elements of a left factor that a thread loads at once, where the depth is a multiple of it."""
_BANKS, _WORD = 32, 4
"""Of shared memory: how many there are, and bytes that one gives at a time."""
_LONGEST = 16
"""Bytes of the longest vector that is loaded."""


@dataclass(frozen=True)
class Left:
    """Columns `column..column + depth` of the rows of a read operand."""

    read: int
    column: int
    depth: int


@dataclass(frozen=True)
class Stage:
    """The products of a left factor with rows `row..row + depth` of a weight; sum i takes its group `groups[i]`."""

    left: Left
    weight: int
    row: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """Stages that add to the same sums, those of the contractions with these node numbers."""

    totals: tuple[int, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class BlockPlan:
    """The plan of one cell's kernel; sizes in elements. The `resident` operands have a slot in shared memory."""

    cell: Cell
    target: BlockTarget
    unit_tile: int
    layouts: dict[int, Layout]
    rounds: tuple[Round, ...]
    core: TensorCore | None
    """What multiplies; None is the threads' own fused multiply-adds."""
    resident: tuple[int, ...] = ()

    @staticmethod
    def of(cell: Cell, target: BlockTarget, members: int) -> "BlockPlan":
        """The plan of a cell whose units so many blocks share; of one without products there is nothing to plan."""
        unit_tile, core = _unit_tile(cell, members), _core(cell, target)
        layouts = {}
        for number, operand in enumerate(cell.operands):
            if operand.kind == "weight":
                columns = tuple(sorted({p.column for p in cell.products if p.weight == number}))
                depth = operand.extents[1 if operand.transposed else 0] or 0
                layouts[number] = Layout(
                    cell.units, depth, columns, unit_tile, unit_tile, operand.transposed, by_depth=True, core=core
                )
        return BlockPlan(cell, target, unit_tile, layouts, _rounds(cell, layouts), core)

    @property
    def key(self) -> tuple[object, ...]:
        """What kernels of equal cells differ in."""
        return self.unit_tile, self.core, self.resident, tuple(map(self.copy_width, self.left_places))

    @property
    def sum_bytes(self) -> int:
        """Of a sum."""
        return int(self.cell.dtype.width) // 8

    @property
    def factor(self) -> ir.Type:
        """The type of factors in shared memory, and of packed weights."""
        return self.cell.dtype if self.core is None else self.core.element

    @property
    def factor_bytes(self) -> int:
        """Of a factor."""
        return self.sum_bytes if self.core is None else self.core.bytes

    def left_length(self, left: Left) -> int:
        """Elements from one row of a left factor in scratch memory to the next."""
        if self.core is None:
            return left.depth
        # Eight rows of a fragment are in banks of their own where rows are 8 words (of 32) apart.
        words = -(-left.depth // self.core.depth) * self.core.depth * self.core.bytes // _WORD
        return (words + (8 - words) % _BANKS) * _WORD // self.core.bytes

    def copy_width(self, left: Left) -> int:
        """How many elements of a left factor are copied at once: a vector, where it surely is aligned in memory.

        Unknowns are: they are in the arena, on cache lines. Inputs may start anywhere.
        """
        owner = defining_op(self.cell.operands[left.read].array)
        is_unknown = owner is not None and owner.operation.name == "parc.unknown"
        sizes = (left.depth, left.column, self.left_length(left), self.row_stride(left.read))
        return VECTOR if is_unknown and all(size % VECTOR == 0 for size in sizes) else 1

    @cached_property
    def left_places(self) -> dict[Left, int]:
        """Where a row of each left factor starts, if it were the only row."""
        places: dict[Left, int] = {}
        end = 0
        for round_ in self.rounds:
            for stage in round_.stages:
                if stage.left not in places:
                    places[stage.left] = end
                    end += self._place_length(stage.left)
        return places

    def _place_length(self, left: Left) -> int:
        """So many elements that the next left factor, which is read in vectors, is aligned."""
        return -(-self.left_length(left) // VECTOR) * VECTOR

    @property
    def _left_row(self) -> int:
        return sum(map(self._place_length, self.left_places))

    @cached_property
    def rows(self) -> int:
        """Rows that are computed together."""
        if self.core is not None:
            return tensor_core.ROWS
        rows, most = _ROWS, self.target.shared_bytes // _LEFT_SHARE
        while rows > 1 and rows * self._left_row * self.factor_bytes > most:
            rows //= 2
        return rows

    @property
    def left_elements(self) -> int:
        """Of the scratch memory, what holds the left factors."""
        return self.rows * self._left_row

    @property
    def part_elements(self) -> int:
        """Of the scratch memory, what holds parts of sums."""
        return self.rows * self.part_place(len(self.rounds))

    @property
    def part_start(self) -> int:
        """Where the parts of sums start in the scratch memory, in bytes."""
        return -(-self.left_elements * self.factor_bytes // _LONGEST) * _LONGEST

    @property
    def scratch_bytes(self) -> int:
        """The size of the scratch memory."""
        return self.part_start + self.part_elements * self.sum_bytes

    def part_place(self, number: int) -> int:
        """Where the parts of a round start, if there were one row."""
        return sum(self.parts(r) * self.columns(r) for r in self.rounds[:number])

    def columns(self, round_: Round) -> int:
        """Sums of one row and one tile."""
        return len(round_.totals) * self.unit_tile

    def lanes(self, round_: Round) -> int:
        """Threads that take the same part of k."""
        if self.core is not None:
            return WARP
        lanes = 1
        while lanes < min(WARP, self.columns(round_)):
            lanes *= 2
        return lanes

    def parts(self, round_: Round) -> int:
        """Into how many parts k is divided."""
        return self.target.threads // self.lanes(round_)

    def row_stride(self, operand: int) -> int:
        """Elements from one row of a left factor to the next."""
        description = self.cell.operands[operand]
        return 0 if description.kind == "vector" else description.columns


def _core(cell: Cell, target: BlockTarget) -> TensorCore | None:
    """The target's tensor core, if the cell's products fit it: f32, and cut where the instruction cuts them."""
    core = target.core
    fits = isinstance(cell.dtype, ir.F32Type) and all(p.row % (core.depth if core else 1) == 0 for p in cell.products)
    return core if fits and cell.products else None


def _unit_tile(cell: Cell, members: int) -> int:
    """A power of two that gives no block more units than it must have, and else fills warps with few tiles."""
    sums = sum(isinstance(node, Contraction) for node in cell.nodes)
    smallest = tensor_core.COLUMNS
    tiles = [smallest << i for i in range(5) if (smallest << i) * sums <= _MOST_COLUMNS] or [smallest]

    def units_of_a_block(tile: int) -> int:
        return -(-cell.units // (tile * members)) * tile

    least = min(map(units_of_a_block, tiles))
    return max(tile for tile in tiles if units_of_a_block(tile) == least)


def _rounds(cell: Cell, layouts: Mapping[int, Layout]) -> tuple[Round, ...]:
    """The products of a cell by their left factor and weight, and these by the sums that they add to."""
    found: dict[tuple[Left, int, int], list[tuple[int, int]]] = {}
    for number, node in enumerate(cell.nodes):
        for p in node.products if isinstance(node, Contraction) else ():
            key = (Left(p.read, p.read_column, p.depth), p.weight, p.row)
            found.setdefault(key, []).append((layouts[p.weight].columns.index(p.column), number))
    rounds: dict[tuple[int, ...], list[Stage]] = {}
    for (left, weight, row), items in found.items():
        items.sort()
        stage = Stage(left, weight, row, tuple(group for group, _ in items))
        rounds.setdefault(tuple(number for _, number in items), []).append(stage)
    return tuple(Round(totals, tuple(stages)) for totals, stages in rounds.items())
