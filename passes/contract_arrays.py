"""`contract-arrays`: keep of every unknown array only what is still to be read."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.codegen.sizes import affine_of
from parc.passbase import Pass
from parc.poly.model import System, build, systems
from parc.poly.rows import find_cells
from parc.poly.storage import check_storage, contract


@dataclass
class ContractArrays(Pass):
    """Keep of every unknown array only what is still to be read.

    Of a scheduled system. Where only single tiles of an array are results, these alone are taken out of the system;
    an array that nothing uses is not.
    Elements that are not in use at the same time share their place (`storage`): the products of a tile of 8 steps, of
    which each is read once, in the same tile, take the place of those of the tile before.

        %p = "parc.unknown"() {name = "P", shape = affine_map<()[T, B] -> (T + 1, B, 1024)>}
        %c = "parc.unknown"() {name = "C", shape = affine_map<()[T, B] -> (T + 1, B, 256)>}
      ...
      %C = "parc.array"(%s) {name = "C"}
      %last = tensor.extract_slice %C[%T, 0, 0] [1, %B, 256] [1, 1, 1]

        %p = "parc.unknown"() {name = "P", ..., storage = affine_map<(t)[T, B] -> ((t - 1) mod 8)>}
        %c = "parc.unknown"() {name = "C", ..., storage = affine_map<(t)[T, B] -> (t mod 2)>}
      ...
      %last = "parc.array"(%s) {name = "C", at = affine_map<()[T, B] -> (T)>}
    """

    name: ClassVar[str] = "contract-arrays"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            for op in systems(module):
                _take_tiles(op)
                system = build(op)
                if all(e.time is not None for e in system.equations):
                    _contract(system)
                    check_storage(build(op))


def _contract(system: System) -> None:
    cells = find_cells(system)
    for unknown in system.unknowns:
        storage = contract(system, unknown, cells)
        if storage is not None:
            unknown.op.attributes["storage"] = ir.AffineMapAttr.get(storage)


def _take_tiles(system: ir.Operation) -> None:
    """`parc.array` and slices that are single tiles -> a `parc.array` of each of these tiles; without slices, none."""
    shapes = {
        member.attributes["name"]: ir.AffineMapAttr(member.attributes["shape"]).value
        for member in (op.operation for op in system.regions[0].blocks[0].operations)
        if member.name == "parc.unknown"
    }
    for use in list(system.results[0].uses):
        taker = use.owner.operation
        if "at" in taker.attributes:
            continue
        slices = [use.owner.operation for use in taker.results[0].uses]
        tiles = [_tile(op, system, shapes[taker.attributes["name"]]) for op in slices]
        if any(tile is None for tile in tiles):
            continue
        for slice_, at in zip(slices, tiles, strict=True):
            with ir.InsertionPoint(slice_), slice_.location:
                attributes = {"name": taker.attributes["name"], "at": ir.AffineMapAttr.get(at)}
                tile = ir.Operation.create("parc.array", [slice_.results[0].type], [system.results[0]], attributes)
            slice_.results[0].replace_all_uses_with(tile.results[0])
            slice_.erase()
        taker.erase()


def _tile(op: ir.Operation, system: ir.Operation, shape: ir.AffineMap) -> ir.AffineMap | None:
    """Which tile of an array of this shape a slice is, as an affine map of the system's symbols; None if it is none."""
    if op.name != "tensor.extract_slice":
        return None
    positions = {value: i for i, value in enumerate(system.operands)}
    segments = list(op.attributes["operandSegmentSizes"])
    dynamic = list(op.operands)[segments[0] :]
    offsets, sizes, strides = (_mixed(op, key, dynamic, positions) for key in ("offsets", "sizes", "strides"))
    rank, source = op.results[0].type.rank, op.operands[0].type
    leading = source.rank - rank
    one, zero = ir.AffineExpr.get_constant(1), ir.AffineExpr.get_constant(0)
    whole = (
        leading > 0
        and all(stride == one for stride in strides)
        and all(size == one for size in sizes[:leading])
        and all(offset == zero for offset in offsets[leading:])
        and sizes[leading:] == list(shape.results)[leading:]
        and list(op.results[0].type.shape) == list(source.shape)[leading:]
    )
    if not whole or any(offset is None for offset in offsets[:leading]):
        return None
    return ir.AffineMap.get(0, len(positions), offsets[:leading])


def _mixed(
    op: ir.Operation, key: str, dynamic: list[ir.Value], positions: dict[ir.Value, int]
) -> list[ir.AffineExpr | None]:
    """Static and dynamic entries of a slice as expressions of the symbols; takes the dynamic ones off the front."""
    mark = ir.ShapedType.get_dynamic_size()
    return [
        affine_of(dynamic.pop(0), positions) if entry == mark else ir.AffineExpr.get_constant(entry)
        for entry in op.attributes[f"static_{key}"]
    ]
