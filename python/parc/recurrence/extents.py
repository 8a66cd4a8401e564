"""The extents of values inside a `parc.system` as expressions of its symbols."""

from torch_mlir import ir

from parc.codegen.sizes import affine_of
from parc.errors import CompileError


def extents_of(value: ir.Value, system: ir.Operation) -> list[ir.AffineExpr]:
    """The extents of a tensor; raises `CompileError` where what defines it does not say them."""
    type_ = value.type
    if type_.has_static_shape:
        return [ir.AffineExpr.get_constant(s) for s in type_.shape]
    if isinstance(value.owner, ir.Block):
        return _of_argument(value, system)
    op = value.owner.operation
    if op.name == "parc.unknown":
        return list(op.attributes["shape"].value.results)
    if op.name == "parc.read":
        return extents_of(op.operands[0], system)[len(op.attributes["at"].value.results) :]
    if op.name.startswith("linalg."):
        return extents_of(op.operands[len(op.operands) - len(op.results) + value.result_number], system)
    if op.name == "tensor.collapse_shape":
        return _of_collapse(op, extents_of(op.operands[0], system))
    if op.name == "tensor.concat":
        dim, extents = op.attributes["dim"].value, extents_of(op.operands[0], system)
        for piece in list(op.operands)[1:]:
            extents[dim] = extents[dim] + extents_of(piece, system)[dim]
        return extents
    if op.name == "tensor.extract_slice":
        segments = list(op.attributes["operandSegmentSizes"])
        dynamic = list(op.operands)[segments[0] + segments[1] : sum(segments[:3])]
    elif op.name in ("tensor.empty", "tensor.expand_shape"):
        dynamic = [v for v in op.operands if isinstance(v.type, ir.IndexType)]
    else:
        raise _unknown(op)
    symbols = {v: i for i, v in enumerate(system.operands)}
    fresh = iter(dynamic)
    extents = []
    for d, size in enumerate(type_.shape):
        extent = affine_of(next(fresh), symbols) if type_.is_dynamic_dim(d) else ir.AffineExpr.get_constant(size)
        if extent is None:
            raise _unknown(op)
        extents.append(extent)
    return extents


def _of_argument(value: ir.BlockArgument, system: ir.Operation) -> list[ir.AffineExpr]:
    """By the argument's `parc.shape`, which is in terms of the function's symbols, its first arguments."""
    block = value.owner
    function = block.owner.operation
    attributes = list(function.attributes["arg_attrs"]) if "arg_attrs" in function.attributes else []
    own = attributes[value.arg_number] if attributes else {}
    same = all(a == b for a, b in zip(system.operands, block.arguments, strict=False))
    if "parc.shape" not in own or not same:
        raise CompileError(f"the extents of argument {value.arg_number} are not known", system.location)
    return list(own["parc.shape"].value.results)


def _of_collapse(op: ir.Operation, source: list[ir.AffineExpr]) -> list[ir.AffineExpr]:
    type_ = op.results[0].type
    extents = []
    for i, group in enumerate(op.attributes["reassociation"]):
        extent = ir.AffineExpr.get_constant(1 if type_.is_dynamic_dim(i) else type_.shape[i])
        if type_.is_dynamic_dim(i):
            for d in group:
                factor = source[d.value]
                extent = factor if isinstance(extent, ir.AffineConstantExpr) and extent.value == 1 else extent * factor
        extents.append(extent)
    return extents


def _unknown(op: ir.Operation) -> CompileError:
    return CompileError(f"cannot express the shape of a value of '{op.name}' in the system's symbols", op.location)
