"""`lower-reductions`: contractions and sums over many rows become code with buffers of its own."""

from dataclasses import dataclass

from torch_mlir import ir

from parc.codegen.blocks.contraction import emit_block_contraction
from parc.codegen.blocks.target import find_target
from parc.codegen.column_sums import ColumnSums, find_column_sums
from parc.codegen.contraction import find_contraction
from parc.codegen.irtools import is_inside, run_pipeline, walk
from parc.codegen.microkernel import VectorTarget
from parc.codegen.shared_product import emit_contraction
from parc.passbase import Pass


@dataclass
class LowerReductions(Pass):
    """Contractions and sums over many rows become code with buffers of its own.

    A contraction is a product of packed blocks, of which the threads of the team compute parts:

        linalg.generic {... (k, n, t, b) -> ...} ins(%h, %d : memref<?x?x256xf32>, memref<?x?x1024xf32>)
                                                 outs(%dU : memref<256x1024xf32>) { mulf, addf }

        "parc.team"() ({ ^bb0(%tid, %nthreads):
          %a = memref.alloc() : memref<49152xf32>
          %b = memref.alloc() : memref<262144xf32>
          scf.for %part = ... {
            func.call @contract_f32_2(%rows, ..., %columns, ..., %T, ..., %B, ..., %h, ..., %d, ..., %dU, ..., %a, %b)

    A sum over many rows is that of the sums of at most 64 parts of them. What is too small for that stays.

    For a GPU (`target=sm_90`) a contraction is a team of blocks, which take squares of the result in turns.
    """

    name = "lower-reductions"

    target: str = "cpu"

    def run(self, module: ir.Module) -> None:
        run_pipeline(module, "linalg-generalize-named-ops", self.name)
        blocks = find_target(self.target)
        with module.context:
            target = VectorTarget.host()
            for op in walk(module.operation, "linalg.generic"):
                with ir.InsertionPoint(op), op.location:
                    contraction = find_contraction(op.operation)
                    if blocks and is_inside(op, "parc.team"):
                        # The threads of one block share its loops: that team's shared memory has been given out.
                        continue
                    if contraction and blocks:
                        emit_block_contraction(module, contraction, blocks)
                    elif contraction:
                        emit_contraction(module, contraction, target)
                    elif blocks:
                        continue
                    elif lanes := find_column_sums(op, target):
                        ColumnSums(lanes).emit()
                    else:
                        continue
                op.operation.erase()
