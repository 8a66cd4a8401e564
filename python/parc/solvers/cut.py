"""Cuts a system in several, one after another, so that each part can have a solver of its own."""

from collections.abc import Collection, Sequence

from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.dependences import Dependence
from parc.poly.model import System


def cut(system: System, flow: Sequence[Dependence], core: Collection[str]) -> tuple[ir.Operation, ir.Operation | None]:
    """Replace a system by three: what the equations `core` need, these alone, and all others; the second and third.

    Parts without equations are left out.  An array that one part solves is a known array of those after it.
    CompileError when equations of two parts define the same array.
    """
    before = needed(flow, core)
    names = [e.name for e in system.equations]
    parts = [
        [name for name in names if name in before],
        [name for name in names if name in core],
        [name for name in names if name not in before and name not in core],
    ]
    arrays = [{w.array: None for name in part for w in system.equation(name).writes} for part in parts]
    everything = [array for part in arrays for array in part]
    for array in everything:
        if everything.count(array) > 1:
            where = system.unknown(array).op.location
            raise CompileError(f"{array} is defined by the recurrence {', '.join(core)} and by other equations", where)
    # What only boundaries define can be anywhere.
    arrays[1] |= {u.name: None for u in system.unknowns if u.name not in everything}
    _, middle, rest = (_part(system, part, list(own)) for part, own in zip(parts, arrays, strict=True))
    system.op.erase()
    assert middle is not None
    return middle, rest


def needed(flow: Sequence[Dependence], names: Collection[str], without: Collection[str] = ()) -> set[str]:
    """What these equations need besides themselves, directly or through others, but not through those `without`."""
    found: set[str] = set()
    pending = set(names)
    while pending:
        name = pending.pop()
        new = {d.source for d in flow if d.sink == name} - found - set(names) - set(without)
        found |= new
        pending |= new
    return found


def _part(system: System, names: Sequence[str], arrays: Sequence[str]) -> ir.Operation | None:
    """A system in front of the old one, with some of its equations and unknowns, which are taken out of the old one."""
    if not names:
        return None
    old = system.op
    with ir.InsertionPoint(old), old.location:
        part = ir.Operation.create(
            "parc.system",
            results=[old.results[0].type],
            operands=list(old.operands),
            attributes=dict(old.attributes),
            regions=1,
        )
    block = part.regions[0].blocks.append()
    unknowns = [system.unknown(name).op for name in arrays]
    boundaries = [b.op for b in system.boundaries if b.target.array in arrays]
    for op in [*unknowns, *boundaries, *(system.equation(name).op for name in names)]:
        block.append(op)
    for unknown in unknowns:
        _hand_on(unknown, part, old)
    return part


def _hand_on(unknown: ir.Operation, part: ir.Operation, old: ir.Operation) -> None:
    """Let all that uses an unknown behind its system take it out of that one."""
    name = unknown.attributes["name"]
    for use in list(old.results[0].uses):
        taker = use.owner.operation
        if taker.attributes["name"] == name:
            taker.operands[0] = part.results[0]
    value = unknown.results[0]
    readers = [use.owner.operation for use in value.uses]
    behind = [op for op in readers if op.parent is not None and _system_of(op) != part]
    if behind:
        with ir.InsertionPoint(old), unknown.location:
            taken = ir.Operation.create(
                "parc.array", results=[value.type], operands=[part.results[0]], attributes={"name": name}
            )
        for op in behind:
            for number, operand in enumerate(op.operands):
                if operand == value:
                    op.operands[number] = taken.results[0]


def _system_of(op: ir.Operation) -> ir.Operation:
    """The system that an operation is inside of."""
    while op.name != "parc.system":
        op = op.parent.operation
    return op
