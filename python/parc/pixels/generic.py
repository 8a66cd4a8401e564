"""A linalg operation at one step of some of its loops."""

from collections.abc import Collection, Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.codegen.irtools import clone_with
from parc.pixels.structure import Linear, Structured


def tile_of(
    structured: Structured,
    inputs: Sequence[ir.Value],
    outs: Sequence[ir.Value],
    pixel: Collection[int],
    taps: Mapping[int, int],
    indices: Mapping[int, ir.Value],
) -> list[ir.Value]:
    """The operation on tiles, without the loops of the pixel and of a window that is at `taps`.

    The operands lack the dimensions along these loops.  `indices` are the loops' values where the body counts them.
    """
    rest = [d for d in range(structured.loops) if d not in pixel and d not in taps]
    number = {d: i for i, d in enumerate(rest)}
    maps = []
    for index in structured.indices:
        places = [p.at(taps) for p in index if p.terms.keys() <= number.keys() or not p.terms]
        maps.append(ir.AffineMap.get(len(rest), 0, [_expression(p, number) for p in places]))
    kinds = ["parallel" if d in structured.parallel else "reduction" for d in rest]
    generic = linalg.GenericOp(
        [v.type for v in outs],
        list(inputs),
        list(outs),
        ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
        ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds]),
    )
    old = structured.op.regions[0].blocks[0]
    block = generic.regions[0].blocks.append(
        *[a.type for a in old.arguments], arg_locs=[structured.op.location] * len(old.arguments)
    )
    values: dict[ir.Value, ir.Value] = dict(zip(old.arguments, block.arguments, strict=True))
    with ir.InsertionPoint(block):
        for op in old.operations:
            if op.operation.name != "linalg.index":
                clone_with(op, values)
                continue
            loop = ir.IntegerAttr(op.operation.attributes["dim"]).value
            if loop in indices:
                values[op.operation.results[0]] = indices[loop]
            elif loop in taps:
                values[op.operation.results[0]] = arith.constant(ir.IndexType.get(), taps[loop])
            else:
                dim = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number[loop])
                index = ir.Operation.create("linalg.index", [ir.IndexType.get()], attributes={"dim": dim})
                values[op.operation.results[0]] = index.results[0]
    return list(generic.results)


def _expression(place: Linear, number: Mapping[int, int]) -> ir.AffineExpr:
    expr = ir.AffineExpr.get_constant(place.constant)
    for loop, factor in place.terms.items():
        expr = expr + ir.AffineExpr.get_dim(number[loop]) * factor
    return expr
