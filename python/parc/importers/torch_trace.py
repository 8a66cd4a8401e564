"""Records one run of a torch program on fake tensors, as a graph of functional ATen operations.

Only shapes and dtypes are computed: no weight is read and no memory of the model's size is
touched.  The recorder sees every operation below autograd, where composite operators
(`aten.lstm`, `aten.linear`) have already become loops of simple ones; so `nn.LSTM` at a small
length is an unrolled loop like any loop that a user wrote.
"""

import functools
import operator
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_mlir.extras.fx_decomp_util import get_decomposition_table

from parc.errors import CompileError
from parc.importers.torch_values import Values, functional_variant

_aten = torch.ops.aten
# Operators that give their argument back: nothing to record.
_IDENTITIES = (_aten.detach.default, _aten.lift_fresh.default, _aten.alias.default)
# Operators through which torch.tensor([...]) brings in its values.
_LITERALS = (_aten.lift_fresh.default, _aten.lift_fresh_copy.default)
# Checks of values, which are no part of what is computed (`one_hot` makes them).
_CHECKS = (_aten._assert_async.default, _aten._assert_async.msg)
# Operators whose lowering for unsigned integers ends torch-mlir's process.
_DIVISIONS = (_aten.div, _aten.floor_divide, _aten.remainder, _aten.fmod)
_LIBRARIES = tuple(
    os.path.join(path, "")
    for path in (
        os.path.dirname(torch.__file__),
        os.path.dirname(os.path.dirname(__file__)),
        sysconfig.get_path("stdlib"),
    )
)


class TooLong(Exception):
    """The program ran more operations than the recorder's limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} operations")
        self.limit = limit


@dataclass(frozen=True)
class Run:
    """One run: what it computed, and the form of its result.

    `operations` lists name and result shapes of every operation in order: two runs with
    equal lists computed the same thing.  `results` are the (fake) tensors in the program's
    result; `outputs` holds, per leaf of the result, an index into them or a plain value.
    """

    operations: tuple["Operation", ...]
    results: tuple[Tensor, ...]
    output_spec: pytree.TreeSpec
    outputs: tuple["OutputLeaf", ...]


@dataclass(frozen=True)
class Recording(Run):
    """A run and its graph, whose placeholders are the inputs and then the `captured` tensors."""

    graph: fx.Graph
    captured: tuple[Tensor, ...]


Operation = tuple[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class OutputLeaf:
    """A leaf of the program's result: the graph's result number `index`, or else the constant `value`."""

    index: int | None
    value: object = None


class ShapeRules:
    """Runs operators on fake tensors, and remembers what shapes they gave.

    Most operators of an unrolled loop run at the same shapes again and again; what torch does to find out again takes
    longer than all else.
    """

    def __init__(self) -> None:
        self.fake = FakeTensorMode()
        self._known: dict[object, tuple[_Form, ...] | _Form] = {}

    def run(self, func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        """What `func` gives for these arguments."""
        try:
            key = (func, _key(args), _key(tuple(kwargs.items())))
            known = self._known.get(key)
        except TypeError:  # not hashable
            return func(*args, **kwargs)
        if known is None:
            out = func(*args, **kwargs)
            if isinstance(out, Tensor):
                self._known[key] = _form(out)
            elif isinstance(out, tuple | list) and all(isinstance(t, Tensor) for t in out):
                self._known[key] = tuple(map(_form, out))
            return out
        return self._tensor(known) if isinstance(known, _Form) else [self._tensor(form) for form in known]

    def _tensor(self, form: "_Form") -> Tensor:
        with no_dispatch():
            meta = torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta")
        return FakeTensor(self.fake, meta, torch.device("cpu"))


class _Form(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def _form(tensor: Tensor) -> _Form:
    return _Form(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _key(value: object) -> object:
    """What an operator's result depends on, of one of its arguments; equal numbers of different types differ."""
    if isinstance(value, Tensor):
        return _form(value)
    if isinstance(value, tuple | list):
        return tuple([_key(v) for v in value])
    return type(value), value


class Rehearsal(TorchDispatchMode):
    """The dispatch mode that takes a program apart into simple operations, and lists them."""

    def __init__(self, shapes: "ShapeRules", limit: int | None) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._shapes = shapes
        self._limit = limit
        self._table = _decompositions()
        self._lifted: dict[int, tuple[Tensor, FakeTensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _CHECKS:
            return None
        if func.namespace == "prim":  # metadata queries such as prim.device
            return func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CompileError(
                f"{_plain_name(func)} draws random numbers; call model.eval() first, or take the numbers as an input",
                _line(),
            )
        if func in _LITERALS and not isinstance(args[0], FakeTensor):
            out = func(*args, **kwargs)
            self._literal_made(out, args[0])
            return out
        args, kwargs = _map_tensors(self.lift, args), _map_tensors(self.lift, kwargs)
        if func in _IDENTITIES:
            return args[0]
        with self:
            out = self._table[func](*args, **kwargs) if func in self._table else func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        if func._schema.is_mutable:
            self._write(func, args, kwargs)
            return args[0]
        out = self._shapes.run(func, args, kwargs)
        tensors = [out] if isinstance(out, Tensor) else [t for t in out if isinstance(t, Tensor)]
        self.operations.append((str(func), tuple(tuple(t.shape) for t in tensors)))
        if self._limit is not None and len(self.operations) > self._limit:
            raise TooLong(self._limit)
        self._ran(func, args, kwargs, out)
        return out

    def lift(self, tensor: Tensor) -> FakeTensor:
        """The fake tensor that stands for a real one."""
        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._lifted:
            self._lifted[id(tensor)] = tensor, self._shapes.fake.from_tensor(tensor)
        return self._lifted[id(tensor)][1]

    def _functional(self, func: OpOverload, args: Sequence[object], kwargs: dict[str, object]) -> Tensor:
        """What an in-place operator writes into its first argument, by the variant that returns it."""
        target = args[0]
        functional = functional_variant(func)
        writes = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if functional is None or not isinstance(target, Tensor) or writes != [func._schema.arguments[0].name]:
            raise CompileError(f"{_plain_name(func)} writes in place and is not supported here", _line())
        with self:
            new: Tensor = functional(*args, **kwargs)
            if new.dtype != target.dtype:
                new = new.to(target.dtype)
            return new if new.shape == target.shape else new.expand(target.shape)

    def _literal_made(self, tensor: Tensor, value: Tensor) -> None:
        """`tensor` holds the real `value`."""

    def _write(self, func: OpOverload, args: Sequence[object], kwargs: dict[str, object]) -> None:
        """An in-place operator."""
        self._functional(func, args, kwargs)

    def _ran(self, func: OpOverload, args: Sequence[object], kwargs: dict[str, object], out: object) -> None:
        """A simple operator gave `out`."""


class Recorder(Rehearsal):
    """Builds the graph too; real tensors that turn up become further placeholders."""

    def __init__(self, shapes: "ShapeRules", inputs: Sequence[tuple[str, Tensor]], names: Mapping[int, str]) -> None:
        super().__init__(shapes, limit=None)
        self.graph = fx.Graph()
        self.root = nn.Module()
        self._names = names
        self._values = Values(self.graph)
        self._constants: dict[int, Tensor] = {}
        self._placeholders: dict[int, str] = {}
        for name, tensor in inputs:
            self._placeholder(name, tensor)

    @property
    def captured(self) -> tuple[Tensor, ...]:
        """Real tensors that the program used, in the order of their placeholders."""
        return tuple(real for real, _ in self._lifted.values())

    def lift(self, tensor: Tensor) -> FakeTensor:
        """The fake tensor that stands for a real one; it becomes a placeholder when first seen."""
        new = not isinstance(tensor, FakeTensor) and id(tensor) not in self._lifted
        fake = super().lift(tensor)
        if new:
            self._placeholder(self._names.get(id(tensor), "a captured tensor"), fake)
        return fake

    def node(self, tensor: Tensor) -> fx.Node:
        """The node that holds a tensor's present contents."""
        fake = self.lift(tensor)
        # Literals get a node a use: the FX importer binds each get_attr node once.
        return self._literal(self._constants[id(fake)]) if id(fake) in self._constants else self._values.node(fake)

    def _placeholder(self, name: str, tensor: Tensor) -> None:
        last = next((n for n in reversed(self.graph.nodes) if n.op == "placeholder"), None)
        with self.graph.inserting_after(last):
            node = self.graph.placeholder(f"arg{len(self._placeholders)}")
        node.meta["val"] = tensor
        self._placeholders[id(tensor)] = name
        self._values.define(tensor, node)

    def _literal(self, value: Tensor) -> fx.Node:
        name = f"literal{len(self.root._buffers)}"
        self.root.register_buffer(name, value)
        return self.graph.create_node("get_attr", name)

    def _literal_made(self, tensor: Tensor, value: Tensor) -> None:
        self._constants[id(tensor)] = value
        self._values.define(tensor, self._literal(value))

    def _write(self, func: OpOverload, args: Sequence[object], kwargs: dict[str, object]) -> None:
        """Record an in-place operator as a new value for what it writes."""
        new = self._functional(func, args, kwargs)
        target = args[0]
        assert isinstance(target, Tensor)
        root = self._values.root(target)
        if id(root) in self._placeholders:
            raise CompileError(
                f"'{self._placeholders[id(root)]}' is changed in place by {_plain_name(func)}; compiled programs have "
                "no side effects: work on a copy (`.clone()`) and return it",
                _line(),
            )
        try:
            self._constants.pop(id(root), None)
            self._values.write(target, self.node(new))
        except NotImplementedError as e:
            raise CompileError(f"{e} is not supported", _line()) from None

    def _ran(self, func: OpOverload, args: Sequence[object], kwargs: dict[str, object], out: object) -> None:
        if func.overloadpacket in _DIVISIONS and isinstance(out, Tensor) and out.dtype is torch.uint8:
            raise CompileError(f"{_plain_name(func)} of unsigned integers is not supported", _line())
        node = self.graph.call_function(func, _map_tensors(self.node, args), _map_tensors(self.node, kwargs))
        node.meta["val"] = out
        if line := _line():
            file, number = line.rsplit(":", 1)
            node.meta["stack_trace"] = f'File "{file}", line {number}, in forward'
        viewed = args[0] if func.is_view and isinstance(args[0], Tensor) else None
        if isinstance(out, Tensor):
            self._values.define(out, node, viewed)
            return
        assert isinstance(out, Sequence)
        for i, item in enumerate(t for t in out if isinstance(t, Tensor)):
            part = self.graph.call_function(operator.getitem, (node, i))
            part.meta["val"] = item
            self._values.define(item, part, viewed, i)


def rehearse(
    call: Callable[[list[Tensor]], object], inputs: Sequence["Input"], shapes: "ShapeRules", limit: int | None = None
) -> Run:
    """Run `call` on fake inputs and list what it does; raises as `record` does, but misses writes into inputs."""
    mode = Rehearsal(shapes, limit)
    leaves, spec = pytree.tree_flatten(_run(call, _fake_inputs(inputs, shapes.fake), shapes.fake, mode))
    results, outputs = _results(leaves)
    return Run(tuple(mode.operations), results, spec, outputs)


def record(
    call: Callable[[list[Tensor]], object],
    inputs: Sequence["Input"],
    shapes: "ShapeRules",
    *,
    known: Sequence[Tensor] = (),
    names: Mapping[int, str] | None = None,
) -> Recording:
    """Run `call` on fake inputs and return what it did.

    `known` tensors get their placeholders first, in this order, used or not; `names` maps
    the id of a real tensor to the name that error messages use.  Raises `CompileError` for
    what cannot be compiled, and whatever the program itself raises.
    """
    tensors = _fake_inputs(inputs, shapes.fake)
    labelled = [(name, t) for (name, *_), t in zip(inputs, tensors, strict=True)]
    recorder = Recorder(shapes, labelled, names or {})
    for tensor in known:
        recorder.lift(tensor)
    leaves, spec = pytree.tree_flatten(_run(call, tensors, shapes.fake, recorder))
    results, outputs = _results(leaves)
    graph = recorder.graph
    graph.owning_module = recorder.root  # type: ignore[assignment]
    graph.output(tuple(recorder.node(tensor) for tensor in results))
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return Recording(tuple(recorder.operations), results, spec, outputs, graph, recorder.captured)


Input = tuple[str, tuple[int, ...], torch.dtype]
"""Name, shape and element type of a fake input."""


def _fake_inputs(inputs: Sequence[Input], fake: FakeTensorMode) -> list[Tensor]:
    with fake:
        return [torch.empty(shape, dtype=dtype) for _, shape, dtype in inputs]


def _run(
    call: Callable[[list[Tensor]], object], tensors: list[Tensor], fake: FakeTensorMode, mode: Rehearsal
) -> object:
    with torch.no_grad(), _without_fused_layers(), fake, mode, enable_python_dispatcher(), _explained():
        return call(tensors)


def _results(leaves: Sequence[object]) -> tuple[tuple[Tensor, ...], tuple[OutputLeaf, ...]]:
    """The tensors among the leaves of a result, and what each leaf is."""
    results = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
    numbers = iter(range(len(results)))
    return results, tuple(OutputLeaf(next(numbers)) if isinstance(v, Tensor) else OutputLeaf(None, v) for v in leaves)


def user_line(error: BaseException) -> str:
    """`file:line` of the innermost user code in an exception's traceback, or an empty string."""
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return innermost_user_line(reversed(frames))


def innermost_user_line(frames: Iterator[tuple[str, int]]) -> str:
    """The first (file, line), innermost first, outside torch, parc and the standard library."""
    for file, line in frames:
        if _is_user_file(file):
            return f"{file}:{line}"
    return ""


def _is_user_file(file: str) -> bool:
    if file.startswith("<"):
        return False
    inside = file.startswith(_LIBRARIES)
    return not inside or (_LIBRARIES[2] in file and ("-packages" in file) and not file.startswith(_LIBRARIES[:2]))


def _frames(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


@functools.cache
def _decompositions() -> dict[OpOverload, Callable[..., object]]:
    """torch-mlir's table, and the recurrent operators in their variants that do not write in place."""
    rnn = [_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input]
    return get_decomposition_table() | get_decompositions(rnn)


def _map_tensors(fn: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply `fn` to the tensors in an operator's arguments (pytree's general walk costs more than the operator)."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, list | tuple):
        return type(value)([_map_tensors(fn, v) for v in value])
    if isinstance(value, dict):
        return {k: _map_tensors(fn, v) for k, v in value.items()}
    return value


def _line() -> str:
    """The user's line that is running."""
    return innermost_user_line(_frames(sys._getframe(1)))


def _plain_name(func: OpOverload) -> str:
    return str(func.name()).replace("::", ".")


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    """With oneDNN on, a recurrent layer would stay one opaque operator; so would attention."""
    mkldnn, transformer = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(mkldnn)
        torch.backends.mha.set_fastpath_enabled(transformer)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn fake-tensor errors into messages that say what to do, at the user's line."""
    try:
        yield
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as e:
        raise CompileError(
            "the program needs the value of a tensor while it is compiled (`if`, `int()`, `.item()` or `.tolist()` on "
            "a result); use torch.where or a fixed number of steps instead",
            user_line(e),
        ) from e
    except DynamicOutputShapeException as e:
        raise CompileError(f"the result of {e.func} has a shape that depends on its values", user_line(e)) from e
    except UnsupportedOperatorException as e:
        raise CompileError(f"operator {e.func} cannot be traced", user_line(e)) from e
