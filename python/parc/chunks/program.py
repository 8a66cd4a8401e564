"""A program for a chunk of the steps of another one."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import affine, func, tensor

from parc.chunks.complete import complete_steps
from parc.chunks.steps import Along, follow
from parc.chunks.systems import States, time_symbol
from parc.codegen.irtools import (
    append_results,
    arguments_of_kind,
    find_function,
    insert_arguments,
    symbol_arguments,
    terminator,
)
from parc.errors import CompileError
from parc.poly.model import build, systems


@dataclass(frozen=True)
class Chunked:
    """What a program for chunks takes and gives; axes are the dimensions that the steps run along, None without."""

    symbol: int
    """The position of the symbol that is the number of steps."""
    inputs: tuple[int | None, ...]
    results: tuple[int | None, ...]
    """Those without are of the last chunk."""
    states: int
    """How many more results, and inputs where it continues, hand on to the next chunk."""


def make_chunk(module: ir.Module, *, continues: bool) -> Chunked:
    """Make `@main` compute a chunk of its steps, in place: the first, or one that `continues` where another ended.

    The last states become results, and the initial ones inputs where it continues.  NoChunksError when there is a step
    that needs others than those before it, or too many of them.
    """
    main = find_function(module, "main")
    if main is None:
        raise CompileError("the module has no function @main")
    with module.context, ir.Location.unknown():
        for system in systems(module):
            complete_steps(system)
        built = [build(op) for op in systems(module)]
        name = time_symbol(built)
        position = built[0].symbols.index(name)
        follower = follow(main.operation, position, built)
        (end,) = [op for op in main.entry_block.operations if op.operation.name == "func.return"]
        inputs = [_axis(follower.role(a)) for a in arguments_of_kind(main, "input")]
        results = [_axis(follower.role(v)) for v in end.operands]
        found = [(op, s) for op, arrays in follower.states.items() for s in arrays.values() if s.given]
        _hand_on(main, found, position)
        if continues:
            _take_over(main, found)
        count = sum(len(s.given) for _, s in found)
        return Chunked(position, tuple(inputs), tuple(results), count)


def _axis(role: object) -> int | None:
    return role.axis if isinstance(role, Along) else None


def state_slice(main: func.FuncOp, unknown: ir.Operation, solved: ir.Value, at: ir.AffineExpr) -> ir.Value:
    """One element of a solved array, emitted at the current insertion point; `at` is a function of the symbols."""
    shape, type_ = unknown.attributes["shape"].value, unknown.results[0].type
    symbols = symbol_arguments(main)

    def size(expr: ir.AffineExpr) -> ir.Value:
        return affine.AffineApplyOp(ir.AffineMap.get(0, shape.n_symbols, [expr]), symbols).result

    offset = size(at)
    sizes = [size(shape.results[d]) for d in range(1, type_.rank) if type_.is_dynamic_dim(d)]
    tile, mark = _tile_type(type_), ir.ShapedType.get_dynamic_size()
    offsets, extents, strides = [mark, *[0] * (type_.rank - 1)], [1, *tile.shape], [1] * type_.rank
    return tensor.ExtractSliceOp(tile, solved, [offset], sizes, [], offsets, extents, strides).result


def _hand_on(main: func.FuncOp, found: list[tuple[ir.Operation, States]], time: int) -> None:
    """Return the last states too."""
    end = terminator(main.entry_block)
    count = len(end.operands)
    new: list[tuple[ir.Value, dict[str, ir.Attribute]]] = []
    state = {"parc.kind": ir.StringAttr.get("state")}
    with ir.InsertionPoint(end):
        for system, array in found:
            unknown = _unknown(system, array.name)
            shape = unknown.attributes["shape"].value
            whole = taken(system, unknown)
            for place in array.places():
                steps = ir.AffineExpr.get_symbol(time) + place
                attributes = _attributes(f"state{count + len(new)}", shape) | state
                new.append((state_slice(main, unknown, whole, steps), attributes))
    append_results(main, new)


def _take_over(main: func.FuncOp, found: list[tuple[ir.Operation, States]]) -> None:
    """Take the initial states as inputs, behind the others."""
    at = len(symbol_arguments(main)) + len(arguments_of_kind(main, "input"))
    given = [(_unknown(system, array.name), b.op) for system, array in found for b in array.given]
    types = [_tile_type(unknown.results[0].type) for unknown, _ in given]
    names = [f"state{i}" for i in range(len(given))]
    new = [(t, {"parc.kind": "input", "parc.name": n}) for t, n in zip(types, names, strict=True)]
    insert_arguments(main, at, new)
    attributes = list(main.arg_attrs)
    for i, (unknown, boundary) in enumerate(given):
        shape = unknown.attributes["shape"].value
        attributes[at + i] = ir.DictAttr.get({"parc.kind": ir.StringAttr.get("input"), **_attributes(names[i], shape)})
        boundary.operands[1] = main.arguments[at + i]
        dims = boundary.attributes["of"].value.n_dims
        boundary.attributes["of"] = ir.AffineMapAttr.get(ir.AffineMap.get(dims, shape.n_symbols, []))
    main.arg_attrs = ir.ArrayAttr.get(attributes)


def _attributes(name: str, shape: ir.AffineMap) -> dict[str, ir.Attribute]:
    """Name and shape of a state of an array of this shape."""
    tile = ir.AffineMap.get(0, shape.n_symbols, list(shape.results)[1:])
    return {"parc.name": ir.StringAttr.get(name), "parc.shape": ir.AffineMapAttr.get(tile)}


def _tile_type(array: ir.RankedTensorType) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(array.shape[1:], array.element_type)


def taken(system: ir.Operation, unknown: ir.Operation) -> ir.Value:
    """The solved array, which is taken out of the system once."""
    name = unknown.attributes["name"]
    for use in system.results[0].uses:
        if use.owner.attributes["name"] == name:
            return use.owner.operation.results[0]
    return ir.Operation.create("parc.array", [unknown.results[0].type], [system.results[0]], {"name": name}).results[0]


def _unknown(system: ir.Operation, name: str) -> ir.Operation:
    members = (op.operation for op in system.regions[0].blocks[0].operations)
    return next(m for m in members if m.name == "parc.unknown" and ir.StringAttr(m.attributes["name"]).value == name)
