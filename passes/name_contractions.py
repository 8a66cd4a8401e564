"""`name-contractions`: contractions become `linalg.contract`, which reads its operands as they are."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.contraction import find_contraction
from parc.codegen.irtools import defining_op, walk
from parc.passbase import Pass


@dataclass
class NameContractions(Pass):
    """Contractions become `linalg.contract`, which reads its operands as they are.

    Fusion leaves the named operation whole: it would compute an operand again for every tile of the result. Transposes
    of operands, and of a result that nothing else uses, are done by the indexing maps.

        %kt = linalg.transpose ins(%k : tensor<?x64xf32>) permutation = [1, 0]
        %s = linalg.matmul ins(%q, %kt)

        %s = linalg.contract indexing_maps = [(m, n, k) -> (m, k), (m, n, k) -> (n, k), (m, n, k) -> (m, n)] ins(%q, %k)
    """

    name = "name-contractions"

    def run(self, module: ir.Module) -> None:
        with module.context:
            structured = [op.operation for op in walk(module.operation) if op.operation.name.startswith("linalg.")]
            for op in [op for op in structured if find_contraction(op) is not None]:
                _name(op)


def _name(op: ir.Operation) -> None:
    maps = [ir.AffineMapAttr(a).value for a in linalg.get_indexing_maps(op)]
    read = [_before_transpose(v, m) for v, m in zip(list(op.operands)[:2], maps[:2], strict=True)]
    replaced, start, result = [op], op.operands[2], maps[2]
    transpose, scalar = _only_transpose(op), _filled_with(start)
    if transpose is not None and scalar is not None:
        replaced.insert(0, transpose.operation)
        result = ir.AffineMap.get(result.n_dims, 0, [result.results[d] for d in transpose.permutation])
        with ir.InsertionPoint(transpose), op.location:
            start = linalg.fill(scalar, outs=[transpose.operation.operands[1]])
    with ir.InsertionPoint(replaced[0]), op.location:
        named = ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in (*(m for _, m in read), result)])
        contract = linalg.contract(*(v for v, _ in read), outs=[start], indexing_maps=named)
    for value in replaced[0].results:
        value.replace_all_uses_with(contract)
    for old in replaced:
        old.erase()


def _only_transpose(op: ir.Operation) -> linalg.TransposeOp | None:
    """The transpose that is all that uses a result."""
    users = [use.owner.opview for value in op.results for use in value.uses]
    return users[0] if len(users) == 1 and isinstance(users[0], linalg.TransposeOp) else None


def _filled_with(value: ir.Value) -> ir.Value | None:
    """The scalar that all elements of a tensor are."""
    op = defining_op(value)
    return op.operation.operands[0] if isinstance(op, linalg.FillOp) else None


def _before_transpose(value: ir.Value, map_: ir.AffineMap) -> tuple[ir.Value, ir.AffineMap]:
    """What `value` is a transpose of, and how to read it there; itself if it is none."""
    op = defining_op(value)
    if isinstance(op, linalg.TransposeOp):
        order = list(op.permutation)
        results = [map_.results[order.index(d)] for d in range(len(order))]
        return op.operation.operands[0], ir.AffineMap.get(map_.n_dims, 0, results)
    return value, map_
