"""`lower-linalg`: linalg operations on buffers become loops, parallel where their iterations are."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.irtools import run_pipeline, walk
from parc.passbase import Pass


@dataclass
class LowerLinalg(Pass):
    """Linalg operations on buffers become loops, parallel where their iterations are."""

    name = "lower-linalg"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for copy in walk(module.operation, "memref.copy"):
                source, target = copy.operation.operands
                if source != target:
                    with ir.InsertionPoint(copy), copy.location:
                        linalg.copy(source, outs=[target])
                copy.operation.erase()
        run_pipeline(module, "convert-linalg-to-parallel-loops", self.name)
