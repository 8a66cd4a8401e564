"""`lower-linalg`: linalg operations on buffers become loops over vectors, parallel where their iterations are."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.blocks.target import find_target
from parc.codegen.irtools import run_pipeline, walk
from parc.codegen.microkernel import VectorTarget
from parc.codegen.structured import vectorize
from parc.codegen.transposes import transpose
from parc.passbase import Pass


def _put_parallel_first(op: linalg.GenericOp) -> None:
    """Make the parallel dimensions the outer ones: threads share them once, not in each step of a reduction."""
    kinds = list(ir.ArrayAttr(op.attributes["iterator_types"]))
    order = sorted(range(len(kinds)), key=lambda d: "parallel" not in str(kinds[d]))
    if order == list(range(len(kinds))):
        return
    place = {old: new for new, old in enumerate(order)}
    dims = [ir.AffineExpr.get_dim(place[old]) for old in range(len(kinds))]
    moved = ir.AffineMap.get(len(kinds), 0, dims)
    maps = (ir.AffineMapAttr(a).value for a in op.attributes["indexing_maps"])
    maps = (ir.AffineMap.get(m.n_dims, m.n_symbols, [e.compose(moved) for e in m.results]) for m in maps)
    op.attributes["indexing_maps"] = ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps])
    op.attributes["iterator_types"] = ir.ArrayAttr.get([kinds[d] for d in order])
    i64 = ir.IntegerType.get_signless(64)
    for inner in walk(op, "linalg.index"):
        dim = place[ir.IntegerAttr(inner.attributes["dim"]).value]
        inner.attributes["dim"] = ir.IntegerAttr.get(i64, dim)


@dataclass
class LowerLinalg(Pass):
    """Linalg operations on buffers become loops over vectors, parallel where their iterations are.

        linalg.exp ins(%x : memref<?x16xf32>) outs(%y : memref<?x16xf32>)

        scf.parallel (%i, %strip) = (0, 0) to (%n, 1) {
          %v = vector.load %x[%i, %start] : memref<?x16xf32>, vector<16xf32>
          %e = ... a polynomial ...
          vector.store %e, %y[%i, %start]

    Squares of vectors are transposed in registers; where there is nothing to take as the lanes, the loops are scalar.

    For a GPU (`target=sm_90`) the iterations are the threads': the loops are scalar, and all dimensions are parallel.
    """

    name = "lower-linalg"

    target: str = "cpu"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for copy in walk(module.operation, "memref.copy"):
                source, destination = copy.operation.operands
                if source != destination:
                    with ir.InsertionPoint(copy), copy.location:
                        linalg.copy(source, outs=[destination])
                copy.operation.erase()
            run_pipeline(module, "linalg-generalize-named-ops,math-expand-ops{ops=fpowi}", self.name)
            target = VectorTarget.host()
            for op in walk(module.operation, "linalg.generic"):
                if find_target(self.target) is not None:
                    _put_parallel_first(op)
                elif not transpose(op, target):
                    vectorize(op, target)
        run_pipeline(module, "convert-linalg-to-parallel-loops", self.name)
