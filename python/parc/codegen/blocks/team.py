"""What the blocks of a grid keep in shared memory while they solve a system: weights, and scratch memory of kernels.

A weight is *resident* where a block reads the same part of it again and again: it belongs to a recurrence, and neither
the units nor the matrix that a block takes change from step to step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch_mlir import ir
from torch_mlir.dialects import arith, memref

from parc.codegen.blocks.plan import BlockPlan
from parc.codegen.blocks.shared import ALIGNMENT, aligned
from parc.codegen.blocks.target import BlockTarget, workgroup
from parc.codegen.loops import index
from parc.poly.crews import Crews
from parc.poly.model import Equation, System
from parc.poly.rows import Cells

_DYNAMIC = ir.ShapedType.get_dynamic_size()


@dataclass(frozen=True)
class _Weight:
    """A weight that may be resident: an operand of an equation's cell."""

    equation: str
    operand: int
    elements: int
    """Of the largest part of it that a block takes."""
    bytes: int
    owner: int | None
    """No block computes equations of two owners; None is every block's."""


@dataclass(frozen=True)
class BlockTeam:
    """The kernels of a system's cells, and what blocks keep for them; `slots` are the places of resident weights."""

    plans: Mapping[str, BlockPlan]
    weights: tuple[_Weight, ...]
    slots: Mapping[_Weight, int]
    """Bytes from the start of all that is resident."""

    @staticmethod
    def of(system: System, cells: Cells, crews: Crews | None, target: BlockTarget) -> "BlockTeam":
        """Plan the kernels, and have as many weights as fit beside them resident, the first ones first."""
        sharers = {e.name: _sharers(system, e, crews, target.blocks) for e in system.equations}
        found = [(e, cells[e.name]) for e in system.equations]
        plans = {e.name: BlockPlan.of(cell, target, sharers[e.name][0]) for e, cell in found if cell is not None}
        weights = [
            weight
            for equation in system.equations
            if equation.name in plans and _is_read_again(equation, plans[equation.name], target)
            for weight in _weights(equation.name, plans[equation.name], *sharers[equation.name])
        ]
        slots = _place(weights, target.shared_bytes - _scratch_bytes(plans) - aligned(8 * len(weights)))
        resident = {name: tuple(w.operand for w in slots if w.equation == name) for name in plans}
        return BlockTeam({n: replace(p, resident=resident[n]) for n, p in plans.items()}, tuple(weights), slots)

    def describe(self) -> list[ir.Attribute]:
        """Each weight of a recurrence: the equation it belongs to, a block's bytes of it, and whether they stay."""
        i64 = ir.IntegerType.get_signless(64)
        found: list[ir.Attribute] = []
        for weight in self.weights:
            described = {"equation": ir.StringAttr.get(weight.equation), "bytes": ir.IntegerAttr.get(i64, weight.bytes)}
            stays = {"resident": ir.UnitAttr.get()} if weight in self.slots else {}
            found.append(ir.DictAttr.get(described | stays))
        return found

    def emit(self) -> Mapping[str, list[ir.Value]]:
        """Allocate it, at the start of a team; returns what the kernel of each equation takes in addition."""
        arguments: dict[str, list[ir.Value]] = {name: [] for name in self.plans}
        scratch_bytes = _scratch_bytes(self.plans)
        if not scratch_bytes:
            return arguments
        byte, index_type = ir.IntegerType.get_signless(8), ir.IndexType.get()
        scratch = _allocate(scratch_bytes, byte, "scratch")
        tags = _allocate(max(1, len(self.slots)), index_type, "tags")
        pool = _allocate(max((start + w.bytes for w, start in self.slots.items()), default=1), byte, "weights")
        for name, plan in self.plans.items():
            arguments[name] = [_any_size(scratch), _any_size(tags)] if plan.rounds else []
        for tag, (weight, start) in enumerate(self.slots.items()):
            memref.store(arith.constant(index_type, -1), tags, [index(tag)])
            type_ = workgroup(ir.MemRefType.get([weight.elements], self.plans[weight.equation].factor))
            view = memref.ViewOp(type_, pool, index(start), []).result
            arguments[weight.equation] += [_any_size(view), index(tag)]
        return arguments


def _scratch_bytes(plans: Mapping[str, BlockPlan]) -> int:
    """Of the scratch memory that all kernels with products work in."""
    return aligned(max((p.scratch_bytes for p in plans.values() if p.rounds), default=0))


def _sharers(system: System, equation: Equation, crews: Crews | None, blocks: int) -> tuple[int, int | None]:
    """How many blocks share the units of an equation, and the owner whose equations alone they have, if any."""
    if system.distribute == "units":
        return blocks, None
    if crews is None or blocks < crews.owners:
        return 1, None
    owner = ir.AffineMapAttr(equation.op.attributes["owner"]).value.results[0]
    own = owner.value if isinstance(owner, ir.AffineConstantExpr) else None
    return crews.members(blocks), own


def _is_read_again(equation: Equation, plan: BlockPlan, target: BlockTarget) -> bool:
    """Whether blocks read the same weights at many times, in one launch."""
    time = ir.AffineMapAttr(equation.op.attributes["schedule"]).value
    same = all(_is_constant(plan.cell.operands[w].access) for w in plan.layouts)
    return bool(plan.rounds) and not _is_constant(time) and same and target.is_persistent


def _is_constant(access: ir.AffineMap | None) -> bool:
    """Whether a map has the same value at all points."""
    return access is None or all(isinstance(e, ir.AffineConstantExpr) for e in access.results)


def _weights(name: str, plan: BlockPlan, members: int, owner: int | None) -> list[_Weight]:
    found = []
    for operand, layout in plan.layouts.items():
        elements = -(-layout.tiles // members) * layout.tile_size
        found.append(_Weight(name, operand, elements, elements * plan.factor_bytes, owner))
    return found


def _place(weights: list[_Weight], free: int) -> dict[_Weight, int]:
    """Where weights start, of those that fit: what every block has first, then parts that owners use in their ways."""
    places: dict[_Weight, int] = {}
    common, owned = 0, {w.owner: 0 for w in weights if w.owner is not None}
    for weight in sorted(weights, key=lambda w: w.owner is not None):
        start = common + (0 if weight.owner is None else owned[weight.owner])
        end = start + aligned(weight.bytes)
        if end > free:
            continue
        places[weight] = start
        if weight.owner is None:
            common = end
        else:
            owned[weight.owner] = end - common
    return places


def _allocate(count: int, element: ir.Type, name: str) -> ir.Value:
    location = ir.Location.name(name, ir.Location.unknown())
    type_ = workgroup(ir.MemRefType.get([count], element))
    return memref.AllocOp(type_, [], [], alignment=ALIGNMENT, loc=location).result


def _any_size(buffer: ir.Value) -> ir.Value:
    type_ = ir.MemRefType(buffer.type)
    return memref.cast(workgroup(ir.MemRefType.get([_DYNAMIC], type_.element_type)), buffer)
