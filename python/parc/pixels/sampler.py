"""From an imported step of an autoregressive image model to an imported sampler."""

from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import argument_kind
from parc.errors import CompileError
from parc.importers.imported import Imported


def sampler(step: Imported) -> Imported:
    """The program `x = step(x, u)` of a step x' = step(x, u), as a system over the pixels of the image x.

    step: a program whose first input is the image, with the type and shape of its first result, the new image.  Made
        of it is one with the same inputs; the value of the image that it is given does not matter.
    Which weights are zero is read off the parameters now: later values must be zero at the same places.

    The module is changed in place; `original` stays that of the step.  CompileError when the first input is not like
    the first result.  That no pixel needs a later one is proved when the system is scheduled.
    """
    module = step.module
    main = next(op for op in module.body.operations if isinstance(op, func.FuncOp))
    arguments, results = ([ir.DictAttr(a) for a in attrs] for attrs in (main.arg_attrs, main.result_attrs))
    if not arguments or argument_kind(arguments[0]) != "input":
        raise CompileError("a sampler's step takes the image as its first input", main.location)
    if main.type.inputs[0] != main.type.results[0]:
        raise CompileError(
            f"the image is {main.type.inputs[0]}, but the step gives {main.type.results[0]}", main.location
        )
    with module.context:
        fixed = {ir.StringAttr(arguments[0]["parc.name"]).value: results[0]["parc.name"]}
        module.operation.attributes["parc.fixed"] = ir.DictAttr.get(fixed)
        patterns = {name: _pattern(tensor) for name, tensor in step.parameters.items() if (tensor == 0).any()}
        module.operation.attributes["parc.nonzero"] = ir.DictAttr.get(patterns)
    return step


def _pattern(tensor: Tensor) -> ir.Attribute:
    """Where a parameter is other than zero."""
    nonzero = (tensor != 0).detach().cpu().contiguous().numpy()
    return ir.DenseElementsAttr.get(nonzero, type=ir.IntegerType.get_signless(1))
