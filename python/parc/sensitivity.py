"""Which results of a program can have a gradient by which of its arguments."""

from collections.abc import Iterable

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import argument_kind, captured_values

Sources = frozenset[int]
"""Numbers of arguments: inputs and then parameters, the symbols not counted."""
_NONE: Sources = frozenset()


def sensitivities(main: func.FuncOp) -> list[Sources]:
    """For each result, the arguments that it depends on through floating-point (or complex) values alone.

    What a program reads from a system depends on what the equations behind that array read, and so on.
    """
    arguments = [a for a, named in zip(main.arguments, main.arg_attrs, strict=True) if argument_kind(named) != "symbol"]
    known = {a: frozenset([i]) for i, a in enumerate(arguments) if _is_floating(a.type)}
    arrays: dict[tuple[ir.Operation, str], Sources] = {}
    for op in main.entry_block.operations:
        operation = op.operation
        if operation.name == "parc.system":
            for name, sources in _solve(operation, known).items():
                arrays[operation, name] = sources
        elif operation.name == "parc.array":
            system = operation.operands[0].owner.operation
            known[operation.results[0]] = arrays[system, ir.StringAttr(operation.attributes["name"]).value]
        elif operation.name == "func.return":
            return [known.get(v, _NONE) for v in operation.operands]
        else:
            _pass_on(operation, known)
    return []


def _solve(system: ir.Operation, known: dict[ir.Value, Sources]) -> dict[str, Sources]:
    """The sources of each array of a system, by its name."""
    members = [op.operation for op in system.regions[0].blocks[0].operations]
    arrays = {op.results[0]: ir.StringAttr(op.attributes["name"]).value for op in members if op.name == "parc.unknown"}
    found: dict[ir.Value, Sources] = dict.fromkeys(arrays, _NONE)
    before = None
    while found != before:
        before = dict(found)
        for member in members:
            if member.name == "parc.boundary":
                array, source = member.operands
                found[array] |= known.get(source, _NONE)
            elif member.name == "parc.equation":
                inside = {**known, **found}
                for op in member.regions[0].blocks[0].operations:
                    if op.operation.name == "parc.write":
                        tile, array = op.operation.operands
                        found[array] |= inside.get(tile, _NONE)
                    else:
                        _pass_on(op.operation, inside)
    return {name: found[array] for array, name in arrays.items()}


def _pass_on(op: ir.Operation, known: dict[ir.Value, Sources]) -> None:
    """Enter the sources of an operation's results: those of all that it uses."""
    sources = _union(known.get(v, _NONE) for v in captured_values(op.opview))
    for result in op.results:
        if sources and _is_floating(result.type):
            known[result] = sources


def _union(parts: Iterable[Sources]) -> Sources:
    return _NONE.union(*parts)


def _is_floating(type_: ir.Type) -> bool:
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return isinstance(element, ir.FloatType | ir.ComplexType)
