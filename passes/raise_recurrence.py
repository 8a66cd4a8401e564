"""`raise-recurrence`: unrolled traces of a loop become one function with a system of equations.

The module holds the same program traced at a few sizes (`@main_0`, `@main_1`, ... with
`parc.trace`); the operations that repeat from step to step, and how each step reads the ones
before, are recovered as affine functions of the step and of the sizes:

    func.func @main_0(%x: tensor<4x2x8xf32>, %U: tensor<8x8xf32>)    parc.trace = [4, 2]
      %x0 = tensor.extract_slice %x[0, 0, 0] ...   %h0 = (tanh(%x0 + %zero * %U))
      %x1 = tensor.extract_slice %x[1, 0, 0] ...   %h1 = (tanh(%x1 + %h0 * %U))   ...
    func.func @main_1(%x: tensor<5x2x8xf32>, ...)                    parc.trace = [5, 2]   ...
  becomes
    func.func @main(%T: index, %B: index, %x: tensor<?x?x8xf32>, %U: tensor<8x8xf32>)
      %s = "parc.system"(%T, %B) ({ ... "parc.equation"() ({^bb0(%t: index): ... })
             {name = "cell0", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} ... })

Every instance of every trace is checked against what was recovered; a loop that is not regular
is an error that names where regularity breaks.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.errors import CompileError
from parc.passbase import Pass
from parc.recurrence.build import build_main
from parc.recurrence.counters import round_constants
from parc.recurrence.recover import recover


@dataclass
class RaiseRecurrence(Pass):
    """Recover the equations and their affine domains from unrolled traces."""

    name: ClassVar[str] = "raise-recurrence"

    def run(self, module: ir.Module) -> None:
        funcs = [op.operation for op in module.body.operations if "parc.trace" in op.operation.attributes]
        if not funcs:
            funcs = [op.operation for op in module.body.operations if _is_static_main(op.operation)]
        if not funcs:
            return
        symbols = (
            [s.value for s in module.operation.attributes["parc.symbols"]]
            if "parc.symbols" in module.operation.attributes
            else []
        )
        for func in funcs:
            round_constants(func)
        found = recover(funcs, [_sizes(func, symbols) for func in funcs])
        with ir.InsertionPoint(funcs[0]), module.operation.location:
            build_main(found, symbols)
        for func in funcs:
            func.erase()


def _sizes(func: ir.Operation, symbols: list[str]) -> tuple[int, ...]:
    sizes = tuple(a.value for a in func.attributes["parc.trace"]) if "parc.trace" in func.attributes else ()
    if len(sizes) != len(symbols):
        raise CompileError(f"parc.trace has {len(sizes)} sizes for {len(symbols)} symbols", func.location)
    return sizes


def _is_static_main(op: ir.Operation) -> bool:
    """A hand-written straight-line `@main` with static shapes and no system yet."""
    if op.name != "func.func" or op.attributes["sym_name"].value != "main" or not op.regions[0].blocks:
        return False
    blocks = list(op.regions[0].blocks)
    if len(blocks) != 1 or any(o.operation.name.startswith("parc.") for o in blocks[0].operations):
        return False
    types = [a.type for a in blocks[0].arguments]
    return all(t.has_static_shape for t in types if isinstance(t, ir.RankedTensorType))
