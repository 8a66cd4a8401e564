"""`lower-linalg`: linalg operations on buffers become loops over vectors, parallel where their iterations are."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.block_target import find_target
from parc.codegen.irtools import run_pipeline, walk
from parc.codegen.microkernel import VectorTarget
from parc.codegen.structured import vectorize
from parc.codegen.transposes import transpose
from parc.passbase import Pass


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
            if find_target(self.target) is None:
                for op in walk(module.operation, "linalg.generic"):
                    if not transpose(op, target):
                        vectorize(op, target)
        run_pipeline(module, "convert-linalg-to-parallel-loops", self.name)
