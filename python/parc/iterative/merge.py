"""Makes systems that need nothing of each other one system, so that one schedule serves all of them at once."""

from collections.abc import Iterable
from itertools import pairwise

from torch_mlir import ir

from parc.codegen.irtools import captured_values, name_of


def merge_systems(block: ir.Block) -> None:
    """Merge the systems of a block that are equally many systems deep; they have the same symbols."""
    groups: dict[tuple[object, ...], list[ir.Operation]] = {}
    for op, depth in _in_order_of_depth(block):
        if op.name == "parc.system":
            assumed = str(op.attributes["assume"]) if "assume" in op.attributes else ""
            groups.setdefault((depth, *op.operands, str(op.attributes["symbols"]), assumed), []).append(op)
    for *others, last in groups.values():
        taken = _names(last)
        for system in reversed(others):
            _rename(system, taken)
            taken |= _names(system)
            _move_into(system, last)


def _in_order_of_depth(block: ir.Block) -> list[tuple[ir.Operation, int]]:
    """Reorder a block, systems behind all else that is as many systems deep; the operations with these numbers."""
    depths: dict[ir.Value, int] = {}
    found = []
    for op in (op.operation for op in block.operations):
        depth = max((depths.get(v, 0) for v in captured_values(op)), default=0)
        depths.update((result, depth + (op.name == "parc.system")) for result in op.results)
        found.append((op, depth))
    found.sort(key=lambda pair: (pair[1], pair[0].name == "parc.system"))
    for (before, _), (op, _) in pairwise(found):
        op.move_after(before)
    return found


def _members(system: ir.Operation) -> list[ir.Operation]:
    return [op.operation for op in system.regions[0].blocks[0].operations]


def _names(system: ir.Operation) -> set[str]:
    return {name_of(op) for op in _members(system) if "name" in op.attributes}


def _rename(system: ir.Operation, taken: Iterable[str]) -> None:
    """Give other names to unknowns and equations whose names are taken."""
    taken = {*taken}
    users = [use.owner.operation for use in system.results[0].uses]
    named = [op for op in _members(system) if "name" in op.attributes]
    for name in [name for op in named if (name := name_of(op)) in taken]:
        fresh, number = name, 1
        while fresh in taken or fresh in map(name_of, named):
            fresh, number = f"{name}_{number}", number + 1
        for op in (op for op in (*named, *users) if name_of(op) == name):
            op.attributes["name"] = ir.StringAttr.get(fresh)


def _move_into(system: ir.Operation, other: ir.Operation) -> None:
    """Move all of a system into another one behind it."""
    first = _members(other)[0]
    for op in _members(system):
        op.move_before(first)
    for use in list(system.results[0].uses):
        use.owner.operation.operands[use.operand_number] = other.results[0]
    system.erase()
