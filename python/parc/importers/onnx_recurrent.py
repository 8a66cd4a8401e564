"""Writes ONNX's recurrent operators (RNN, GRU, LSTM) out, step by step, as plain ONNX operators.

torch-mlir's own lowering of these keeps a loop, refuses the reverse direction and ignores
`sequence_lens`; here a node becomes the straight line that `raise-recurrence` reads:

    Y, Y_h = GRU(X, W, R, B)      X: [2, batch, features]
  becomes, once a direction,
    x0 = X[0], x1 = X[1], h0 = 0
    h1 = cell(x0, h0), h2 = cell(x1, h1)
    Y = [h1, h2], Y_h = h2
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import NodeProto, TensorProto, helper

from parc.errors import CompileError

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
RECURRENT = tuple(_GATES)

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
#: Activations without parameters: their names are those of operators.
_PLAIN = {name.lower(): name for name in ("Relu", "Tanh", "Sigmoid", "Softplus")}


@dataclass
class Emitter:
    """Collects nodes and constants under names that start with `prefix`; every method returns a value's name."""

    prefix: str
    #: Of floating-point values (a `TensorProto.DataType`).
    data_type: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def __call__(self, op_type: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = f"{self.prefix}/{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output or name], name, **attributes))
        return output or name

    def integers(self, *values: int) -> str:
        """A rank-1 tensor of int64."""
        name = f"{self.prefix}/integers_{'_'.join(map(str, values))}"
        self.constants.setdefault(name, helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def scalar(self, value: float) -> str:
        name = f"{self.prefix}/scalar_{value}"
        self.constants.setdefault(name, helper.make_tensor(name, self.data_type, [], [value]))
        return name

    def zeros(self, *shape: int) -> str:
        zero = helper.make_tensor("value", self.data_type, [1], [0.0])
        return self("ConstantOfShape", self.integers(*shape), value=zero)

    def slice(self, value: str, axis: int, start: int, stop: int) -> str:
        return self("Slice", value, self.integers(start), self.integers(stop), self.integers(axis))

    def item(self, value: str, axis: int, index: int) -> str:
        """`value[index]` along an axis, the axis removed."""
        return self("Squeeze", self.slice(value, axis, index, index + 1), self.integers(axis))

    def split(self, value: str, axis: int, size: int, count: int) -> list[str]:
        """The `count` parts of this size along an axis."""
        return [self.slice(value, axis, k * size, (k + 1) * size) for k in range(count)]


@dataclass(frozen=True)
class _Cell:
    """One direction of a node: what a step needs beside the input and the state.

    `w` and `r` are transposed to [inputs, gates * hidden]; `bias_r` is apart from `bias_w` where a GRU needs it so.
    """

    hidden: int
    w: str
    r: str
    bias_w: str
    bias_r: str
    peepholes: tuple[str, ...]
    activations: tuple[Callable[[str], str], ...]
    coupled: bool
    linear_before_reset: bool


def expand(node: NodeProto, shape: Sequence[int], data_type: int) -> Emitter:
    """The nodes and constants that compute what `node` does for an input X of this static shape (opset 13 or later).

    Raises `CompileError` for rows of different lengths and for an activation that is not known here.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = dict(zip(_INPUTS, [*node.input, *[""] * len(_INPUTS)], strict=False))
    if inputs["sequence_lens"]:
        raise CompileError(f"input sequence_lens of node '{node.name}' ({node.op_type}) is not supported")
    emit = Emitter(node.name, data_type)
    kind, hidden, rows_first = node.op_type, int(attributes["hidden_size"]), bool(attributes.get("layout", 0))
    direction = attributes.get("direction", b"forward").decode()
    time = int(rows_first)
    steps, rows = shape[time], shape[1 - time]
    xs = [emit.item(inputs["X"], time, t) for t in range(steps)]

    sequences, finals = [], []
    for d, one in enumerate(["forward", "reverse"] if direction == "bidirectional" else [direction]):
        cell = _cell(emit, node, attributes, inputs, d)
        state = [
            emit.item(inputs[key], int(rows_first), d) if inputs[key] else emit.zeros(rows, hidden)
            for key in ("initial_h", "initial_c")[: 2 if kind == "LSTM" else 1]
        ]
        ys = [""] * steps
        for t in range(steps) if one == "forward" else reversed(range(steps)):
            state = _STEPS[kind](emit, cell, xs[t], state)
            ys[t] = state[0]
        sequences.append(ys)
        finals.append(state)
    _results(emit, node, sequences, finals, rows_first)
    return emit


def _cell(emit: Emitter, node: NodeProto, attributes: Mapping[str, object], inputs: Mapping[str, str], d: int) -> _Cell:
    """Take direction `d` out of a node's stacked weights."""
    hidden = int(attributes["hidden_size"])  # type: ignore[call-overload]
    w, r = (emit("Transpose", emit.item(inputs[key], 0, d), perm=[1, 0]) for key in ("W", "R"))
    bias_w = bias_r = ""
    if inputs["B"]:
        bias_w, bias_r = emit.split(emit.item(inputs["B"], 0, d), 0, _GATES[node.op_type] * hidden, 2)
        if node.op_type != "GRU":
            bias_w, bias_r = emit("Add", bias_w, bias_r), ""
    return _Cell(
        hidden=hidden,
        w=w,
        r=r,
        bias_w=bias_w,
        bias_r=bias_r,
        peepholes=tuple(emit.split(emit.item(inputs["P"], 0, d), 0, hidden, 3)) if inputs["P"] else (),
        activations=_activations(emit, node, attributes, d),
        coupled=bool(attributes.get("input_forget", 0)),
        linear_before_reset=bool(attributes.get("linear_before_reset", 0)),
    )


def _activations(
    emit: Emitter, node: NodeProto, attributes: Mapping[str, object], d: int
) -> tuple[Callable[[str], str], ...]:
    """The activation functions of direction `d`, the gates' with the node's clip in front of them."""
    default = _ACTIVATIONS[node.op_type]
    given = attributes.get("activations")
    names = [n.decode() for n in given] if isinstance(given, list) else [*default, *default]

    def make(name: str, clip: object) -> Callable[[str], str]:
        if name.lower() not in _PLAIN:
            raise CompileError(f"activation {name} of node '{node.name}' ({node.op_type}) is not supported")

        def apply(value: str) -> str:
            if isinstance(clip, float):
                value = emit("Clip", value, emit.scalar(-clip), emit.scalar(clip))
            return emit(_PLAIN[name.lower()], value)

        return apply

    # The state of an LSTM goes into the third activation as it is, in ONNX Runtime too.
    names = names[d * len(default) : (d + 1) * len(default)]
    return tuple(make(name, attributes.get("clip") if k < 2 else None) for k, name in enumerate(names))


def _linear(emit: Emitter, x: str, weights: str, bias: str) -> str:
    product = emit("MatMul", x, weights)
    return emit("Add", product, bias) if bias else product


def _rnn_step(emit: Emitter, cell: _Cell, x: str, state: Sequence[str]) -> list[str]:
    (activation,) = cell.activations
    return [activation(emit("Add", _linear(emit, x, cell.w, cell.bias_w), emit("MatMul", state[0], cell.r)))]


def _gru_step(emit: Emitter, cell: _Cell, x: str, state: Sequence[str]) -> list[str]:
    gate, activation = cell.activations
    (h,) = state
    size = cell.hidden
    from_x = _linear(emit, x, cell.w, cell.bias_w)
    if cell.linear_before_reset:
        z_x, r_x, n_x = emit.split(from_x, 1, size, 3)
        z_h, r_h, n_h = emit.split(_linear(emit, h, cell.r, cell.bias_r), 1, size, 3)
        z, r = gate(emit("Add", z_x, z_h)), gate(emit("Add", r_x, r_h))
        new = activation(emit("Add", n_x, emit("Mul", r, n_h)))
    else:
        if cell.bias_r:
            from_x = emit("Add", from_x, cell.bias_r)
        z_x, r_x, n_x = emit.split(from_x, 1, size, 3)
        z_h, r_h = emit.split(emit("MatMul", h, emit.slice(cell.r, 1, 0, 2 * size)), 1, size, 2)
        z, r = gate(emit("Add", z_x, z_h)), gate(emit("Add", r_x, r_h))
        weights = emit.slice(cell.r, 1, 2 * size, 3 * size)
        new = activation(emit("Add", n_x, emit("MatMul", emit("Mul", r, h), weights)))
    # (1 - z) * new + z * h
    return [emit("Add", new, emit("Mul", z, emit("Sub", h, new)))]


def _lstm_step(emit: Emitter, cell: _Cell, x: str, state: Sequence[str]) -> list[str]:
    gate, inner, outer = cell.activations
    h, c = state

    def peep(value: str, c: str, which: int) -> str:
        return emit("Add", value, emit("Mul", c, cell.peepholes[which])) if cell.peepholes else value

    total = emit("Add", _linear(emit, x, cell.w, cell.bias_w), emit("MatMul", h, cell.r))
    i_in, o_in, f_in, g_in = emit.split(total, 1, cell.hidden, 4)
    i = gate(peep(i_in, c, 0))
    g = inner(g_in)
    if cell.coupled:  # f = 1 - i
        new = emit("Add", c, emit("Mul", i, emit("Sub", g, c)))
    else:
        new = emit("Add", emit("Mul", gate(peep(f_in, c, 2)), c), emit("Mul", i, g))
    o = gate(peep(o_in, new, 1))
    return [emit("Mul", o, outer(new)), new]


_STEPS = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _results(
    emit: Emitter, node: NodeProto, sequences: list[list[str]], finals: list[list[str]], rows_first: bool
) -> None:
    """Stack the states of all directions into the node's outputs that are used."""
    y, *last = [*node.output, "", "", ""][:3]
    if y:
        # Y is [steps, directions, batch, hidden], or [batch, steps, directions, hidden] with rows first.
        direction, time = (2, 1) if rows_first else (1, 0)
        steps = [
            [emit("Unsqueeze", h, emit.integers(*sorted((direction, time)))) for h in sequence]
            for sequence in sequences
        ]
        whole = [emit("Concat", *parts, axis=time) for parts in steps]
        emit("Concat", *whole, axis=direction, output=y)
    for k, output in enumerate(last):
        if output:
            axis = 1 if rows_first else 0
            parts = [emit("Unsqueeze", state[k], emit.integers(axis)) for state in finals]
            emit("Concat", *parts, axis=axis, output=output)
