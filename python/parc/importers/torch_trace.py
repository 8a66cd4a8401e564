"""Records one run of a torch program on fake tensors, as a graph of functional ATen operations.

Only shapes and dtypes are computed: no weight is read and no memory of the model's size is
touched.  The recorder sees every operation below autograd, where composite operators
(`aten.lstm`, `aten.linear`) have already become loops of simple ones; so `nn.LSTM` at a small
length is an unrolled loop like any loop that a user wrote.
"""

import operator
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_mlir.extras.fx_decomp_util import get_decomposition_table

from parc.errors import CompileError

_aten = torch.ops.aten
# Operators that give their argument back: nothing to record.
_IDENTITIES = (_aten.detach.default, _aten.lift_fresh.default, _aten.alias.default)
_LIBRARIES = tuple(
    os.path.join(path, "")
    for path in (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)), sysconfig.get_path("stdlib"))
)


class TooLong(Exception):
    """The program ran more operations than the recorder's limit."""


@dataclass(frozen=True)
class Recording:
    """One run: the graph and what its placeholders and results are.

    `operations` lists name and result shapes of every operation in order: two runs with
    equal lists computed the same thing.  `outputs` holds, per leaf of the result, an index
    into the graph's results or a plain value.
    """

    graph: fx.GraphModule
    captured: tuple[Tensor, ...]
    output_spec: pytree.TreeSpec
    outputs: tuple["OutputLeaf", ...]
    operations: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]


@dataclass(frozen=True)
class OutputLeaf:
    """A leaf of the program's result: the graph's result number `index`, or else the constant `value`."""

    index: int | None
    value: object = None


@dataclass(eq=False)
class Recorder(TorchDispatchMode):
    """The dispatch mode that builds the graph; real tensors that turn up become further placeholders."""

    fake: FakeTensorMode
    inputs: Sequence[tuple[str, FakeTensor]]
    captured_names: dict[int, str]
    known: Sequence[Tensor] = ()
    limit: int | None = None
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: torch.nn.Module = field(default_factory=torch.nn.Module)
    operations: list[tuple[str, tuple[tuple[int, ...], ...]]] = field(default_factory=list)
    mutates_locals: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        # The slot between functionalisation (above) and fake tensors (below) in torch's stack of modes.
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self._nodes: dict[int, fx.Node] = {}
        self._constants: dict[int, Tensor] = {}
        self._lifted: dict[int, tuple[Tensor, FakeTensor]] = {}
        self._alive: list[object] = []  # ids stay unique while their tensors live
        self._placeholders: dict[int, str] = {}
        self._table = get_decomposition_table()
        for name, tensor in self.inputs:
            self._placeholder(name, tensor)
        self._last_placeholder: fx.Node | None = next(reversed(self.graph.nodes), None)
        for tensor in self.known:
            self._lift(tensor)

    @property
    def captured(self) -> tuple[Tensor, ...]:
        """Real tensors that the program used, in the order of their placeholders."""
        return tuple(real for real, _ in self._lifted.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func.namespace == "prim":  # metadata queries such as prim.device
            return func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CompileError(
                f"{_plain_name(func)} draws random numbers; call model.eval() first, or take the numbers as an input",
                self._line(),
            )
        if func in self._table:
            with self:
                out = self._table[func](*args, **kwargs)
            if out is not NotImplemented:
                return out
        with self:
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        if func in (_aten.lift_fresh.default, _aten.lift_fresh_copy.default) and not isinstance(args[0], FakeTensor):
            out = func(*args, **kwargs)
            self._constants[id(out)] = args[0]
            self._alive.append(out)
            return out
        args, kwargs = pytree.tree_map_only(Tensor, self._as_fake, (args, kwargs))
        if func in _IDENTITIES:
            return args[0]
        if func._schema.is_mutable:
            self._check_mutation(func, args, kwargs)
        out = func(*args, **kwargs)
        self._record(func, args, kwargs, out)
        return out

    def node(self, tensor: Tensor) -> fx.Node:
        """The graph node of a fake tensor that the run has produced, or of a real tensor that it captured."""
        tensor = self._as_fake(tensor)
        if id(tensor) in self._constants:
            # A node a use: the FX importer binds each get_attr node once.
            name = f"constant{sum(1 for _ in self.root.buffers())}"
            self.root.register_buffer(name, self._constants[id(tensor)])
            return self.graph.get_attr(name)
        return self._nodes[id(tensor)]

    def _as_fake(self, tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self._lift(tensor)

    def _lift(self, tensor: Tensor) -> FakeTensor:
        if id(tensor) not in self._lifted:
            fake = self.fake.from_tensor(tensor)
            self._lifted[id(tensor)] = tensor, fake
            name = self.captured_names.get(id(tensor), f"constant{len(self._lifted)}")
            last = self._last_placeholder
            with self.graph.inserting_after(last) if last else self.graph.inserting_before():
                self._last_placeholder = self._placeholder(name, fake)
        return self._lifted[id(tensor)][1]

    def _placeholder(self, name: str, tensor: FakeTensor) -> fx.Node:
        node = self.graph.placeholder(f"arg{len(self._placeholders)}")
        node.meta["val"] = tensor
        self._nodes[id(tensor)] = node
        self._placeholders[id(tensor)] = name
        self._alive.append(tensor)
        return node

    def _check_mutation(self, func: torch._ops.OpOverload, args: Sequence[object], kwargs: dict[str, object]) -> None:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            for tensor in pytree.tree_leaves(value):
                base = tensor._base if isinstance(tensor, Tensor) and tensor._base is not None else tensor
                if id(base) in self._placeholders:
                    raise CompileError(
                        f"'{self._placeholders[id(base)]}' is changed in place by {_plain_name(func)}; "
                        "compiled programs have no side effects: work on a copy (`.clone()`) and return it",
                        self._line(),
                    )
        self.mutates_locals = True

    def _record(self, func: torch._ops.OpOverload, args: object, kwargs: object, out: object) -> None:
        tensors = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        self.operations.append((str(func), tuple(tuple(t.shape) for t in tensors)))
        if self.limit is not None and len(self.operations) > self.limit:
            raise TooLong
        node_args, node_kwargs = pytree.tree_map_only(Tensor, self.node, (args, kwargs))
        node = self.graph.call_function(func, tuple(node_args), dict(node_kwargs))
        node.meta["val"] = out
        if line := self._line():
            file, number = line.rsplit(":", 1)
            node.meta["stack_trace"] = f'File "{file}", line {number}, in forward'
        self._alive.append(out)
        if isinstance(out, Tensor):
            self._nodes[id(out)] = node
        elif isinstance(out, list | tuple):
            for i, item in enumerate(out):
                if isinstance(item, Tensor):
                    part = self.graph.call_function(operator.getitem, (node, i))
                    part.meta["val"] = item
                    self._nodes[id(item)] = part

    def _line(self) -> str:
        return innermost_user_line(_frames(sys._getframe(1)))


def record(
    call: Callable[[list[Tensor]], object],
    inputs: Sequence[tuple[str, tuple[int, ...], torch.dtype]],
    *,
    fake: FakeTensorMode,
    known: Sequence[Tensor] = (),
    names: dict[int, str] | None = None,
    limit: int | None = None,
) -> Recording:
    """Run `call` on fake inputs of the given (name, shape, dtype) and return what it did.

    `known` tensors get their placeholders first, in this order, used or not; `names` maps
    the id of a real tensor to the name that error messages use.  Raises `TooLong` after
    `limit` operations, `CompileError` for what cannot be compiled, and whatever the program
    itself raises.
    """
    functional = False
    while True:
        with fake:
            tensors = [torch.empty(shape, dtype=dtype) for _, shape, dtype in inputs]
        labelled = [(name, t) for (name, *_), t in zip(inputs, tensors, strict=True)]
        recorder = Recorder(fake, labelled, names or {}, known, limit)
        body = dispatch_functionalize(call) if functional else call
        with torch.no_grad(), _without_mkldnn(), fake, recorder, enable_python_dispatcher(), _explained():
            result = body(list(tensors))
        if functional or not recorder.mutates_locals:
            return _finish(recorder, result)
        # In-place writes into locals: run again with every write turned into a new value.
        functional = True


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


def _plain_name(func: torch._ops.OpOverload) -> str:
    return str(func.name()).replace("::", ".")


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """With oneDNN on, a recurrent layer would stay one opaque operator."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


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


def _finish(recorder: Recorder, result: object) -> Recording:
    leaves, spec = pytree.tree_flatten(result)
    results: list[fx.Node] = []
    outputs = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            outputs.append(OutputLeaf(len(results)))
            results.append(recorder.node(leaf))
        else:
            outputs.append(OutputLeaf(None, leaf))
    recorder.graph.output(tuple(results))
    module = fx.GraphModule(recorder.root, recorder.graph)
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return Recording(module, recorder.captured, spec, tuple(outputs), tuple(recorder.operations))
