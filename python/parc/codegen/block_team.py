"""What the blocks of a grid keep in shared memory while they solve a system: weights, and scratch memory of kernels.

A weight is *resident* where a block reads the same part of it again and again: it belongs to a recurrence, and neither
the units nor the matrix that a block takes change from step to step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, memref

from parc.codegen.block_plan import BlockPlan
from parc.codegen.block_target import BlockTarget, workgroup
from parc.codegen.loops import index
from parc.codegen.shared_buffers import ALIGNMENT, aligned

_DYNAMIC = ir.ShapedType.get_dynamic_size()


@dataclass(frozen=True)
class Weights:
    """The weights of one equation, which may be resident."""

    plan: BlockPlan
    members: int
    """Blocks that share its units."""
    owner: int | None
    """No block computes equations of two owners; None is every block's."""

    def elements(self, operand: int) -> int:
        """Of the largest part of a weight that a block takes."""
        layout = self.plan.layouts[operand]
        return -(-layout.tiles // self.members) * layout.tile_size


@dataclass(frozen=True)
class Slot:
    """The place of a resident weight: bytes from the start, elements, and the number of its tag."""

    start: int
    elements: int
    tag: int


@dataclass(frozen=True)
class SharedMemory:
    """The plan of a team's shared memory, in bytes; slots by equation and operand."""

    scratch_bytes: int
    weight_bytes: int
    slots: Mapping[tuple[str, int], Slot]

    @staticmethod
    def plan(target: BlockTarget, plans: Sequence[BlockPlan], weights: Mapping[str, Weights]) -> "SharedMemory":
        """Scratch memory for all `plans`, and as many of the `weights` as fit beside it, the first ones first."""
        scratch = aligned(max((p.scratch_bytes for p in plans if p.rounds), default=0))
        tags = aligned(8 * sum(len(w.plan.layouts) for w in weights.values()))
        free = target.shared_bytes - scratch - tags
        slots: dict[tuple[str, int], Slot] = {}
        # What every block has comes first, then parts that owners use for different weights.
        common, owned = 0, {w.owner: 0 for w in weights.values() if w.owner is not None}
        for name, equation in sorted(weights.items(), key=lambda item: item[1].owner is not None):
            for operand in equation.plan.layouts:
                elements = equation.elements(operand)
                start = common if equation.owner is None else common + owned[equation.owner]
                end = start + aligned(elements * equation.plan.factor_bytes)
                if end > free:
                    continue
                slots[name, operand] = Slot(start, elements, len(slots))
                if equation.owner is None:
                    common = end
                else:
                    owned[equation.owner] = end - common
        return SharedMemory(scratch, common + max(owned.values(), default=0), slots)

    def resident(self, name: str) -> tuple[int, ...]:
        """The operands of an equation that have a slot."""
        return tuple(operand for equation, operand in self.slots if equation == name)

    def emit(self, weights: Mapping[str, Weights]) -> "SharedArguments":
        """Allocate it, at the start of a team."""
        if not self.scratch_bytes:
            return SharedArguments([], {})
        byte, index_type = ir.IntegerType.get_signless(8), ir.IndexType.get()
        scratch = _allocate(self.scratch_bytes, byte, "scratch")
        tags = _allocate(max(1, len(self.slots)), index_type, "tags")
        pool = _allocate(max(1, self.weight_bytes), byte, "weights")
        found: dict[str, list[ir.Value]] = {}
        for (name, _), slot in self.slots.items():
            memref.store(arith.constant(index_type, -1), tags, [index(slot.tag)])
            type_ = workgroup(ir.MemRefType.get([slot.elements], weights[name].plan.factor))
            view = memref.ViewOp(type_, pool, index(slot.start), []).result
            found.setdefault(name, []).extend([_any_size(view), index(slot.tag)])
        return SharedArguments([_any_size(scratch), _any_size(tags)], found)


@dataclass(frozen=True)
class SharedArguments:
    """What kernels with products take in addition: the same for all, and slots with their tags by equation."""

    common: list[ir.Value]
    slots: Mapping[str, Sequence[ir.Value]]

    def of(self, name: str, plan: BlockPlan) -> list[ir.Value]:
        """The arguments of one equation's kernel."""
        return [*self.common, *self.slots.get(name, [])] if plan.rounds else []


def _allocate(count: int, element: ir.Type, name: str) -> ir.Value:
    location = ir.Location.name(name, ir.Location.unknown())
    type_ = workgroup(ir.MemRefType.get([count], element))
    return memref.AllocOp(type_, [], [], alignment=ALIGNMENT, loc=location).result


def _any_size(buffer: ir.Value) -> ir.Value:
    type_ = ir.MemRefType(buffer.type)
    return memref.cast(workgroup(ir.MemRefType.get([_DYNAMIC], type_.element_type)), buffer)
