"""Imports torch programs: modules, plain functions, and exported programs (`.pt2`).

`Program` gives all of them one form: a function of a flat list of tensors, with the structure
of its arguments kept apart.  `emit` lowers recordings of it at several sizes to one module of
traces in linalg-on-tensors form.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_importer import FxImporter, FxImporterHooks
from torch_mlir.passmanager import PassManager

from parc.call_structure import bind
from parc.errors import CompileError
from parc.importers.special_values import keep_special_values
from parc.importers.torch_trace import Input, Recording, Run, ShapeRules, record, rehearse, user_line
from parc.pipelines import diagnostic_location
from parc.template import Template

_TO_LINALG = (
    "builtin.module(func.func(torch-match-quantized-custom-ops),"
    "torchdynamo-export-to-torch-backend-pipeline{extra-library= shape-dtype-refine=true},"
    "torch-backend-to-linalg-on-tensors-backend-pipeline)"
)


@dataclass(frozen=True)
class Program:
    """A torch callable with its example call taken apart.

    `roots` names the positional arguments, `defaults` are those of the last ones; `arguments` holds the templates of
    the positional ones and of those that are passed by name, `names` and `examples` are the tensors in them.
    """

    function: Callable[..., object]
    module: nn.Module | None
    signature: inspect.Signature | None
    roots: tuple[str, ...]
    defaults: tuple[object, ...]
    arguments: tuple[tuple[Template, ...], Mapping[str, Template]]
    names: tuple[str, ...]
    examples: tuple[Tensor, ...]
    shape_rules: ShapeRules
    parameters: Mapping[str, Tensor]

    @staticmethod
    def of(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> "Program":
        """Take a call apart; raises `CompileError` when the arguments do not fit the function."""
        if isinstance(function, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise CompileError(
                "TorchScript programs are not supported: pass the nn.Module itself or an exported program"
            )
        signature = _signature(function)
        try:
            args, kwargs = bind(signature, args, kwargs)
        except TypeError as e:
            raise CompileError(f"the example inputs do not fit the model: {e}") from None
        roots = _positional_names(signature, len(args))
        values = [*zip(roots, args, strict=True), *kwargs.items()]
        tensors = {}
        for root, value in values:
            for path, leaf in pytree.tree_flatten_with_path(value, is_leaf=_is_packed)[0]:
                _check_leaf(root + pytree.keystr(path), leaf)
                if isinstance(leaf, Tensor):
                    tensors[root + pytree.keystr(path)] = leaf
        templates = [Template.of(value, root) for root, value in values]
        module = function if isinstance(function, nn.Module) else None
        parameters: dict[str, Tensor] = {}
        if module is not None:
            parameters |= dict(module.named_parameters())
            parameters |= dict(module.named_buffers())
        return Program(
            function=function,
            module=module,
            signature=signature,
            roots=tuple(roots),
            defaults=_defaults(signature),
            arguments=(tuple(templates[: len(args)]), dict(zip(kwargs, templates[len(args) :], strict=True))),
            names=tuple(tensors),
            examples=tuple(tensors.values()),
            shape_rules=ShapeRules(),
            parameters=parameters,
        )

    def call(self, tensors: Sequence[Tensor]) -> object:
        """Call the program with these tensors in the places of the example's."""
        args, kwargs = self.places(tensors)
        return self.function(*args, **kwargs)

    def places(self, values: Sequence[object]) -> tuple[list[object], dict[str, object]]:
        """The (args, kwargs) of a call with these values in the places of the tensors."""
        left = iter(values)
        positional, named = self.arguments
        return [t.fill(left) for t in positional], {name: t.fill(left) for name, t in named.items()}

    def record(self, shapes: Sequence[Sequence[int]], known: Sequence[Tensor] = ()) -> Recording:
        """Run on fake inputs of these shapes (see `torch_trace.record`)."""
        names = {id(tensor): name for name, tensor in self.parameters.items()}
        _refuse_dropout(self.module)
        with _state_kept(self.module):
            return record(self.call, self._inputs(shapes), self.shape_rules, known=known, names=names)

    def rehearse(self, shapes: Sequence[Sequence[int]], limit: int | None = None) -> Run:
        """Run on fake inputs of these shapes, without a graph (see `torch_trace.rehearse`)."""
        _refuse_dropout(self.module)
        with _state_kept(self.module):
            return rehearse(self.call, self._inputs(shapes), self.shape_rules, limit)

    def _inputs(self, shapes: Sequence[Sequence[int]]) -> list[Input]:
        triples = zip(self.names, shapes, self.examples, strict=True)
        return [(name, tuple(shape), example.dtype) for name, shape, example in triples]


def parameter_names(program: Program, captured: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the tensors that recordings captured: the module's own, else the closure variable's, else a number."""
    names = {id(tensor): name for name, tensor in program.parameters.items()}
    if program.module is None and inspect.isfunction(program.function):
        scope = inspect.getclosurevars(program.function)
        for name, value in [*scope.globals.items(), *scope.nonlocals.items()]:
            inner = dict(value.named_parameters()) if isinstance(value, nn.Module) else {}
            for key, tensor in inner.items():
                names.setdefault(id(tensor), f"{name}.{key}")
            if isinstance(value, Tensor):
                names.setdefault(id(value), name)
    return tuple(names.get(id(t), f"constant{i}") for i, t in enumerate(captured))


def emit(
    recordings: Sequence[Recording],
    sizes: Sequence[Sequence[int]],
    symbols: Sequence[str],
    inputs: Sequence[str],
    parameters: Sequence[str],
    context: ir.Context,
    stage: str = "linalg",
) -> ir.Module:
    """Lower recordings to one module of traces `@main_0`, `@main_1`, ... (docs/architecture.md, "Traces").

    With `stage` "torch" the traces stay in the torch dialect.
    """
    torch_dialect.register_dialect(context)
    module = ir.Module.create(ir.Location.unknown(context))
    importer = FxImporter(module=module, config_check=False, hooks=_InlineConstants())
    for i, recording in enumerate(recordings):
        try:
            importer.import_stateless_graph(recording.graph, func_name=f"main_{i}")
        except (NotImplementedError, TypeError, AssertionError, RuntimeError) as e:
            raise CompileError(f"torch-mlir cannot import this program: {e}", user_line(e)) from e
    if stage == "linalg":
        lower_to_linalg(module)
    label_traces(module, sizes, symbols, inputs, parameters)
    return module


def lower_to_linalg(module: ir.Module) -> None:
    """torch dialect -> linalg on tensors; an operator without a lowering is a `CompileError` at its source line."""
    try:
        PassManager.parse(_TO_LINALG, module.context).run(module.operation)
    except ir.MLIRError as e:
        first = e.error_diagnostics[0] if e.error_diagnostics else None
        message = first.message if first else str(e)
        raise CompileError(_unsupported(message), diagnostic_location(first) if first else None) from e
    keep_special_values(module)


def label_traces(
    module: ir.Module,
    sizes: Sequence[Sequence[int]],
    symbols: Sequence[str],
    inputs: Sequence[str],
    parameters: Sequence[str],
) -> None:
    """Put the attributes of the trace contract on `@main_i`: symbols, sizes, kinds and names of arguments."""
    with module.context:
        module.operation.attributes["parc.symbols"] = ir.ArrayAttr.get([ir.StringAttr.get(s) for s in symbols])
        i64 = ir.IntegerType.get_signless(64)
        arguments = ir.ArrayAttr.get(
            [
                ir.DictAttr.get({"parc.kind": ir.StringAttr.get(kind), "parc.name": ir.StringAttr.get(name)})
                for kind, names in (("input", inputs), ("parameter", parameters))
                for name in names
            ]
        )
        for i, values in enumerate(sizes):
            function = ir.SymbolTable(module.operation)[f"main_{i}"]
            function.attributes["parc.trace"] = ir.ArrayAttr.get([ir.IntegerAttr.get(i64, v) for v in values])
            function.attributes["arg_attrs"] = arguments
            count = len(ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value).results)
            function.attributes["res_attrs"] = ir.ArrayAttr.get(
                [ir.DictAttr.get({"parc.name": ir.StringAttr.get(f"result{k}")}) for k in range(count)]
            )


def load_exported(path: str | os.PathLike[str]) -> torch.export.ExportedProgram:
    """Read a `.pt2` file; a file that is not one is a `CompileError`."""
    try:
        return torch.export.load(path)
    except Exception as e:  # torch.export raises many kinds for a bad archive
        raise CompileError(f"cannot be read as an exported program: {_first_line(e)}", str(path)) from e


class _InlineConstants(FxImporterHooks):
    """Writes literal tensors into the IR itself, so that equal constants of two traces compare equal."""

    def resolve_literal(self, gni, literal, info):  # type: ignore[no-untyped-def]
        if not isinstance(literal, Tensor):
            return None
        element = gni._cc.dtype_to_type(literal.dtype)
        shape = list(literal.shape)
        values = literal.flatten().tolist()
        make = ir.FloatAttr.get if literal.dtype.is_floating_point else ir.IntegerAttr.get
        attribute = ir.DenseElementsAttr.get(
            [make(element, v) for v in values], ir.RankedTensorType.get(shape, element)
        )
        type_ = gni._cc.tensor_to_vtensor_type(literal)
        return ir.Operation.create("torch.vtensor.literal", results=[type_], attributes={"value": attribute}).result


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):  # builtins have none
        return None


def _positional_names(signature: inspect.Signature | None, count: int) -> list[str]:
    names: list[str] = []
    for parameter in signature.parameters.values() if signature is not None else ():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"arg{i}" for i in range(len(names), count)]
    return names[:count]


def _defaults(signature: inspect.Signature | None) -> tuple[object, ...]:
    """The defaults of the positional arguments; none where the call may have any number of them."""
    parameters = list(signature.parameters.values()) if signature is not None else []
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(p.default for p in positional if p.default is not p.empty)


def _is_packed(value: object) -> bool:
    return isinstance(value, PackedSequence)


def _check_leaf(name: str, leaf: object) -> None:
    if _is_packed(leaf):
        raise CompileError(f"input '{name}' is a PackedSequence, which is not supported: pass the padded tensor")
    if isinstance(leaf, np.ndarray):
        raise CompileError(f"input '{name}' is a numpy array: pass a torch tensor (torch.from_numpy)")
    if isinstance(leaf, Tensor) and leaf.is_complex():
        raise CompileError(f"input '{name}' has complex elements, which are not supported: see torch.view_as_real")
    if isinstance(leaf, Tensor) and (leaf.device.type not in ("cpu", "meta") or leaf.layout is not torch.strided):
        raise CompileError(
            f"input '{name}' is a {leaf.layout} tensor on {leaf.device}; dense CPU tensors are supported"
        )


def _refuse_dropout(module: nn.Module | None) -> None:
    """Refuse what torch's decomposition of recurrent layers leaves out without a word."""
    for name, part in module.named_modules() if module is not None else ():
        if isinstance(part, nn.RNNBase) and part.training and part.dropout and part.num_layers > 1:
            where = f" '{name}'" if name else ""
            raise CompileError(
                f"the {type(part).__name__}{where} draws random numbers for dropout between its layers; call "
                "model.eval() first"
            )


@contextmanager
def _state_kept(module: nn.Module | None) -> Iterator[None]:
    """Check that a run leaves the module as it was; put back what it changed."""
    if module is None:
        yield
        return
    before = [(name, part, _state(part)) for name, part in module.named_modules()]
    try:
        yield
    finally:
        changed = [
            f"{name}.{key}" if name else key
            for name, part, state in before
            for key in _restore(part, state)
        ]  # fmt: skip
    if changed:
        raise CompileError(
            f"the model changes its own attribute '{changed[0]}' while it runs; compiled programs have no side "
            "effects: return the new value and pass it in at the next call"
        )


def _state(module: nn.Module) -> dict[str, tuple[object, list[object]]]:
    """Attribute -> (the object, its leaves); buffers and parameters included."""
    attributes = {**vars(module), **module._buffers, **module._parameters}
    return {key: (value, _leaves(value)) for key, value in attributes.items() if not isinstance(value, nn.Module)}


def _leaves(value: object) -> list[object]:
    return pytree.tree_leaves(value) if isinstance(value, list | tuple | dict | Tensor) else []


def _restore(module: nn.Module, before: dict[str, tuple[object, list[object]]]) -> list[str]:
    changed = []
    for key, (value, leaves) in _state(module).items():
        old, old_leaves = before.get(key, (None, []))
        same = value is old and len(leaves) == len(old_leaves) and all(map(_is, leaves, old_leaves))
        tensors = any(isinstance(leaf, Tensor) for leaf in leaves)
        if not same and tensors and key not in ("_buffers", "_parameters", "_modules"):
            changed.append(key)
            if isinstance(old, list):
                old[:] = old_leaves if all(not isinstance(x, list | tuple | dict) for x in old) else old
            if key not in before:
                delattr(module, key)
            else:
                setattr(module, key, old)
    return changed


def _is(a: object, b: object) -> bool:
    return a is b


def _unsupported(message: str) -> str:
    """What the user should read in a legalisation failure."""
    if "failed to legalize" in message or "explicitly marked illegal" in message or "unsupported" in message:
        parts = [p for p in message.replace('"', "'").split("'") if p.startswith(("torch.", "aten."))]
        name = next((p for p in parts if p != "torch.operator"), parts[0] if parts else "an operator")
        return f"operator {name.removeprefix('torch.')} is not supported"
    return message


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().split("\n", 1)[0]
