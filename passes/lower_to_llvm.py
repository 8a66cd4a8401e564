"""`lower-to-llvm`: loops, vectors and buffers become the LLVM dialect."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import find_function, run_pipeline
from parc.passbase import Pass

PIPELINE = (
    "convert-vector-to-scf,"
    "expand-strided-metadata,"
    "lower-affine,"
    "convert-scf-to-cf,"
    "canonicalize,"
    # bfloat16 is computed in float32 and rounded: not every machine has it.
    "math-extend-to-supported-types{extra-types=f16 target-type=f32},"
    "arith-emulate-unsupported-floats{source-types=bf16 target-type=f32},"
    "arith-expand{include-bf16=true},"
    "convert-vector-to-llvm,"
    "convert-math-to-llvm,"
    "convert-math-to-libm,"
    "convert-to-llvm,"
    "reconcile-unrealized-casts,"
    "cse"
)


@dataclass
class LowerToLLVM(Pass):
    """Loops, vectors and buffers become the LLVM dialect.

    A buffer argument becomes the fields of its descriptor: allocated and aligned pointer, offset, sizes, strides.

        func.func @main(%tid: index, ..., %x: memref<?x8xf32>)

        llvm.func @main(%tid: i64, ..., %x: !llvm.ptr, %x_aligned: !llvm.ptr, %offset: i64, %d0: i64, %d1: i64, ...)
    """

    name = "lower-to-llvm"

    def run(self, module: ir.Module) -> None:
        with module.context:
            internal = ir.Attribute.parse("#llvm.linkage<internal>")
            for function in module.body.operations:
                # Nobody else calls these: LLVM may inline them and drop them.
                if isinstance(function, func.FuncOp) and _is_private(function) and not function.is_external:
                    function.attributes["llvm.linkage"] = internal
            prepare = find_function(module, "prepare")
            if prepare is not None:
                # It runs once: that LLVM takes half the time for its loops is worth more than their speed.
                prepare.attributes["llvm.passthrough"] = ir.ArrayAttr.get([ir.StringAttr.get("optsize")])
        run_pipeline(module, PIPELINE, self.name)


def _is_private(function: func.FuncOp) -> bool:
    attributes = function.attributes
    return "sym_visibility" in attributes and ir.StringAttr(attributes["sym_visibility"]).value == "private"
