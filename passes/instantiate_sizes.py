"""`instantiate-sizes`: a function with named dynamic sizes becomes traces of it at a few small sizes.

`raise-recurrence` reads static traces; a hand-written file may come with dynamic shapes instead:

    module attributes {parc.symbols = ["T"]}
    func.func @main(%x: tensor<?x8xf32> {parc.shape = affine_map<()[T] -> (T, 8)>}) -> tensor<?x8xf32> {
      %n = tensor.dim %x, %c0   ... scf.for %t = %c0 to %n ...
  becomes
    func.func @main_0(%x: tensor<5x8xf32>) -> tensor<5x8xf32> attributes {parc.trace = [5]} { ... }
    func.func @main_1(%x: tensor<6x8xf32>) -> tensor<6x8xf32> attributes {parc.trace = [6]} { ... }
    func.func @main_2(%x: tensor<8x8xf32>) -> tensor<8x8xf32> attributes {parc.trace = [8]} { ... }

with loops unrolled.  A module without `parc.symbols`, or with traces already, stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import func, tensor

from parc.codegen.irtools import find_function, run_pipeline
from parc.errors import CompileError
from parc.passbase import Pass
from parc.passes.unroll_loops import UnrollLoops
from parc.poly.affine import evaluate
from parc.recurrence.sizes import TIME_BASE, trace_sizes

_RESOLVE = "resolve-ranked-shaped-type-result-dims,canonicalize,cse"
#: Sizes become constants from the arguments on, a little further with every round.
_MAX_ROUNDS = 16


@dataclass
class InstantiateSizes(Pass):
    """Turn a function with named dynamic sizes into static traces of it."""

    name = "instantiate-sizes"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        symbols = _symbols(module)
        if main is None or not symbols or not _has_shapes(main):
            return
        with module.context:
            functions = [
                _instantiate(main, f"main_{i}", dict(zip(symbols, sizes, strict=True)))
                for i, sizes in enumerate(trace_sizes([TIME_BASE] * len(symbols)))
            ]
            main.operation.erase()
            run_pipeline(module, "canonicalize,cse", self.name)
            UnrollLoops().run(module)
            for _ in range(_MAX_ROUNDS):
                run_pipeline(module, _RESOLVE, self.name)
                if not any([_tighten_results(f) for f in functions]):
                    break
            for function in functions:
                _check_static(function)


def _symbols(module: ir.Module) -> list[str]:
    attributes = module.operation.attributes
    return [ir.StringAttr(s).value for s in attributes["parc.symbols"]] if "parc.symbols" in attributes else []


def _has_shapes(main: func.FuncOp) -> bool:
    """Whether the sizes are still in the arguments' shapes: not so where they are arguments themselves."""
    attributes = [ir.DictAttr(a) for a in main.arg_attrs] if main.arguments else []
    kinds = [ir.StringAttr(a["parc.kind"]).value for a in attributes if "parc.kind" in a]
    return bool(main.body.blocks) and "symbol" not in kinds and any("parc.shape" in a for a in attributes)


def _instantiate(main: func.FuncOp, name: str, sizes: Mapping[str, int]) -> func.FuncOp:
    """A copy of `main` before it, with static arguments for these values of the symbols."""
    with ir.InsertionPoint(main), main.location:
        copy = main.operation.clone()
        copy.attributes["sym_name"] = ir.StringAttr.get(name)
        i64 = ir.IntegerType.get_signless(64)
        copy.attributes["parc.trace"] = ir.ArrayAttr.get([ir.IntegerAttr.get(i64, v) for v in sizes.values()])
    function = copy.opview
    block = function.entry_block
    attributes = []
    for argument, attribute in zip(block.arguments, function.arg_attrs, strict=True):
        named = {n.name: n.attr for n in ir.DictAttr(attribute)}
        shape = named.pop("parc.shape", None)
        attributes.append(ir.DictAttr.get(named))
        if not isinstance(argument.type, ir.RankedTensorType) or argument.type.has_static_shape:
            continue
        if shape is None:
            raise CompileError(f"argument {argument.arg_number} has dynamic sizes but no parc.shape", main.location)
        extents = ir.AffineMapAttr(shape).value.results
        _make_static(argument, [evaluate(e, list(sizes.values())) for e in extents], main.location)
    function.arg_attrs = ir.ArrayAttr.get(attributes)
    _set_type(function, function.type.results)
    return function


def _make_static(argument: ir.BlockArgument, shape: Sequence[int], location: ir.Location) -> None:
    """Give an argument a static type; its users go on with the old one, through a cast."""
    old = argument.type
    fixed = {d: old.get_dim_size(d) for d in range(old.rank) if not old.is_dynamic_dim(d)}
    if len(shape) != old.rank or any(shape[d] != n for d, n in fixed.items()):
        raise CompileError(f"the parc.shape of argument {argument.arg_number} does not fit its type {old}", location)
    users = [(use.owner, use.operand_number) for use in argument.uses]
    with location:
        argument.set_type(ir.RankedTensorType.get(shape, old.element_type))
        with ir.InsertionPoint.at_block_begin(argument.owner):
            cast = tensor.CastOp(old, argument)
    for owner, position in users:
        owner.operands[position] = cast.result


def _tighten_results(function: func.FuncOp) -> bool:
    """Return what is known to be static as such; whether anything changed."""
    terminator = function.entry_block.operations[len(function.entry_block.operations) - 1].operation
    changed = False
    for i, value in enumerate(terminator.operands):
        owner = value.owner
        if not isinstance(owner, ir.Block) and owner.name == "tensor.cast":
            terminator.operands[i] = owner.operands[0]
            changed = True
    _set_type(function, [v.type for v in terminator.operands])
    return changed


def _set_type(function: func.FuncOp, results: Sequence[ir.Type]) -> None:
    inputs = [a.type for a in function.entry_block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, list(results)))


def _check_static(function: func.FuncOp) -> None:
    for i, type_ in enumerate(function.type.results):
        if isinstance(type_, ir.RankedTensorType) and not type_.has_static_shape:
            sizes = [ir.IntegerAttr(v).value for v in ir.ArrayAttr(function.attributes["parc.trace"])]
            raise CompileError(
                f"the shape of result {i} is not known from the sizes of the arguments ({type_} for sizes {sizes})",
                function.location,
            )
