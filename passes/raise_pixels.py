"""`raise-pixels`: the sampler of an autoregressive image model becomes one system over pixels.

Where the module says that an argument of `@main` is one of its results (`parc.fixed`), as in a sampler
`x = step(x, u)` of masked convolutions, every layer becomes an array and an equation that computes it at one pixel,
from the pixels that its convolution has weights for; and the argument itself becomes an unknown:

    func.func @main(%H, %W, %x, %u, %w, ...) -> %new {                        parc.fixed = {x = "new"}
      %y = linalg.conv_2d_nchw_fchw ins(pad(%x), %w) ...
      %new = linalg.generic ins(%y, %u) ...
  becomes
      %s = "parc.system"(%H, %W) ({
        "parc.equation"() ({^bb0(%h, %w): ... "parc.read"(%X)[h - 1, w], "parc.read"(%X)[h, w - 1] ... %Y[h, w]
        "parc.equation"() ({^bb0(%h, %w): ... "parc.read"(%Y)[h, w], "parc.read"(%u)[h, w] ...         %X[h, w]

So all is computed once instead of once for each pixel. Which weights are zero is said by `parc.nonzero`, for the
parameters by name. A mask that is not causal makes a system of values that need each other: `schedule` shows them.
"""

from dataclasses import dataclass

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import find_function, terminator
from parc.errors import CompileError
from parc.passbase import Pass
from parc.pixels.dims import Dims
from parc.pixels.layers import Layers
from parc.pixels.nonzero import Nonzero, Pattern
from parc.pixels.taps import Taps
from parc.pixels.windows import Windows
from parc.pixels.write import write_system


@dataclass
class RaisePixels(Pass):
    """Turn the sampler of an autoregressive image model into a system over pixels."""

    name = "raise-pixels"

    def run(self, module: ir.Module) -> None:
        attributes = module.operation.attributes
        function = find_function(module, "main")
        if function is None or "parc.fixed" not in attributes:
            return
        with module.context, function.location:
            fixed = ir.DictAttr(attributes["parc.fixed"])
            results = [ir.DictAttr(a)["parc.name"] for a in function.result_attrs]
            if len(fixed) != 1 or fixed[0].attr not in results:
                raise CompileError("`parc.fixed` names one argument and the result that it is", function.location)
            which = results.index(fixed[0].attr)
            _raise(function, _argument(function, fixed[0].name), which, _patterns(module, function))
            for name in ("parc.fixed", "parc.nonzero"):
                if name in attributes:
                    del attributes[name]


def _raise(function: func.FuncOp, image: ir.BlockArgument, which: int, patterns: dict[ir.Value, Pattern]) -> None:
    end = terminator(function.entry_block)
    dims = Dims(function, image)
    depends = [v for v in end.operands if dims.depends(v)]
    sample = end.operands[which]
    if sample not in depends or dims.pixels(sample) != dims.pixels(image):
        raise CompileError("the new image is not made of the image, pixel by pixel", function.location)
    windows = Windows(dims)
    taps = Taps(dims, Nonzero(patterns))
    results = list(dict.fromkeys([sample, *depends]))
    layers = Layers(dims, windows, taps, results)
    solved = dict(zip(results, write_system(function, layers, results), strict=True))
    for i, value in enumerate(end.operands):
        if value in solved:
            end.operands[i] = solved[value]
    for op in reversed(dims.operations):
        if not any(True for result in op.results for _ in result.uses):
            op.erase()


def _argument(function: func.FuncOp, name: str) -> ir.BlockArgument:
    for argument, attributes in zip(function.arguments, function.arg_attrs, strict=True):
        if ir.StringAttr(ir.DictAttr(attributes)["parc.name"]).value == name:
            return argument
    raise CompileError(f"there is no argument named '{name}'", function.location)


def _patterns(module: ir.Module, function: func.FuncOp) -> dict[ir.Value, Pattern]:
    """Where the arguments named in `parc.nonzero` are other than zero."""
    if "parc.nonzero" not in module.operation.attributes:
        return {}
    named = ir.DictAttr(module.operation.attributes["parc.nonzero"])
    return {_argument(function, n.name): np.array(n.attr).astype(np.bool_) for n in named}
