"""`.onnx` files compile and compute what ONNX Runtime does; files that cannot be compiled say why."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch_mlir import ir

import parc
from parc.importers.onnx_model import import_onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import speech

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FEATURES, HIDDEN = 8, 16

RECURRENT = {
    "rnn": {"kind": "RNN"},
    "rnn_reverse": {"kind": "RNN", "direction": "reverse", "state": True},
    "gru": {"kind": "GRU"},
    "gru_of_torch": {"kind": "GRU", "linear_before_reset": 1, "state": True},
    "gru_bidirectional": {"kind": "GRU", "direction": "bidirectional", "linear_before_reset": 1},
    "gru_clipped": {"kind": "GRU", "clip": 0.3},
    "lstm": {"kind": "LSTM"},
    "lstm_without_bias": {"kind": "LSTM", "bias": False, "state": True},
    "lstm_bidirectional": {"kind": "LSTM", "direction": "bidirectional", "state": True},
    "lstm_peepholes": {"kind": "LSTM", "peepholes": True},
    "lstm_coupled": {"kind": "LSTM", "input_forget": 1, "clip": 0.5},
    "lstm_other_activations": {"kind": "LSTM", "activations": ["Sigmoid", "Relu", "Tanh"]},
}


def value(name: str, shape: Sequence[int | str | None] | None, type_: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, type_, shape)


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Path:
    initialisers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def random(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / 4).astype(np.float32)


def recurrent_node(
    kind: str, bias: bool = True, state: bool = False, peepholes: bool = False, **attributes: object
) -> tuple[NodeProto, list[str], dict[str, np.ndarray]]:
    """A node with input x and outputs y, y_h (and y_c); the names of its state inputs; its weights."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    width = GATES[kind] * HIDDEN
    weights = {"W": random(directions, width, FEATURES), "R": random(directions, width, HIDDEN)}
    if bias:
        weights["B"] = random(directions, 2 * width)
    if peepholes:
        weights["P"] = random(directions, 3 * HIDDEN)
    states = ["h0", "c0"][: 2 if kind == "LSTM" else 1] if state else []
    names = ["x", "W", "R", "B" if bias else "", "", *(states or [""]), *(["P"] if peepholes else [])]
    if peepholes and not state:
        names.insert(6, "")
    outputs = ["y", "y_h", "y_c"][: 3 if kind == "LSTM" else 2]
    return helper.make_node(kind, names, outputs, "cell", hidden_size=HIDDEN, **attributes), states, weights


def check(path: Path, compiled: parc.Module, *inputs: np.ndarray) -> None:
    """The compiled program's results for these inputs equal ONNX Runtime's."""
    session = onnxruntime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    expected = session.run(None, dict(zip(names, inputs, strict=True)))
    results = compiled(*map(torch.from_numpy, inputs))
    results = results if isinstance(results, tuple) else (results,)
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, torch.from_numpy(np.asarray(reference)), rtol=1e-5, atol=1e-5)


def refused(path: Path) -> str:
    with pytest.raises(parc.CompileError) as error:
        parc.compile(path)
    return str(error.value)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_operators(tmp_path: Path, name: str) -> None:
    node, states, weights = recurrent_node(**RECURRENT[name])  # type: ignore[arg-type]
    directions = weights["W"].shape[0]
    shape = [directions, "B", HIDDEN]
    inputs = [value("x", ["T", "B", FEATURES]), *(value(s, shape) for s in states)]
    outputs = [value(node.output[0], ["T", directions, "B", HIDDEN]), *(value(o, shape) for o in node.output[1:])]
    path = save(tmp_path / "m.onnx", [node], inputs, outputs, weights)
    compiled = parc.compile(path)
    for steps, batch in ((1, 1), (2, 3), (11, 2)):
        given = [random(directions, batch, HIDDEN) for _ in states]
        check(path, compiled, random(steps, batch, FEATURES), *given)


def test_batch_first_layout(tmp_path: Path) -> None:
    """ONNX Runtime has no layout=1: compare with the same weights in the other layout."""
    node, _, weights = recurrent_node("LSTM", direction="bidirectional")
    outputs = [value(o, None) for o in node.output]
    for output, rank in zip(outputs, (4, 3, 3), strict=True):
        output.CopyFrom(value(output.name, [None] * rank))
    path = save(tmp_path / "m.onnx", [node], [value("x", ["T", "B", FEATURES])], outputs, weights)
    node.attribute.append(helper.make_attribute("layout", 1))
    turned = save(tmp_path / "t.onnx", [node], [value("x", ["B", "T", FEATURES])], outputs, weights)
    y, y_h, y_c = parc.compile(path)(x := torch.from_numpy(random(7, 3, FEATURES)))
    z, z_h, z_c = parc.compile(turned)(x.transpose(0, 1))
    torch.testing.assert_close(z, y.permute(2, 0, 1, 3))
    torch.testing.assert_close((z_h, z_c), (y_h.transpose(0, 1), y_c.transpose(0, 1)))


def test_whole_model(tmp_path: Path) -> None:
    """Embedding, two layers, shapes computed from the input, a linear head and a softmax."""
    first, _, weights = recurrent_node("GRU", direction="bidirectional", linear_before_reset=1)
    first.output[:] = ["y", ""]
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"]),
        first,
        helper.make_node("Transpose", ["y"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Concat", ["shape", "width"], ["target"], axis=0),
        helper.make_node("Reshape", ["turned", "target"], ["merged"]),
        helper.make_node("LSTM", ["merged", "W2", "R2"], ["z"], "second", hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["z", "axis"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["out"], axis=-1),
    ]
    weights |= {
        "table": random(20, FEATURES),
        "W2": random(1, 4 * HIDDEN, 2 * HIDDEN),
        "R2": random(1, 4 * HIDDEN, HIDDEN),
        "head": random(HIDDEN, 5),
        "width": np.array([2 * HIDDEN]),
        "axis": np.array([1]),
    }
    inputs = [value("tokens", ["T", "B"], TensorProto.INT64)]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("out", ["T", "B", 5])], weights)
    compiled = parc.compile(path)
    for steps, batch in ((1, 2), (9, 1), (30, 4)):
        check(path, compiled, np.random.default_rng(0).integers(0, 20, (steps, batch)))


def test_speech_model_at_every_length() -> None:
    path = speech.model_file()
    compiled = parc.compile(path)
    for steps in (1, 2, 33, 300):
        check(path, compiled, random(steps, 576), random(1, 1, 128), random(1, 1, 128))
    states = torch.randn(1, 1, 128), torch.randn(1, 1, 128)
    probabilities, *after = compiled(torch.zeros(0, 576), *states)
    assert probabilities.shape == (0,) and all(torch.equal(a, b) for a, b in zip(after, states, strict=True))


def test_weights_are_parameters(tmp_path: Path) -> None:
    node, _, weights = recurrent_node("RNN")
    outputs = [value("y", ["T", 1, "B", HIDDEN]), value("y_h", [1, "B", HIDDEN])]
    path = save(tmp_path / "m.onnx", [node], [value("x", ["T", "B", FEATURES])], outputs, weights)
    assert list(import_onnx(path, ir.Context()).parameters) == ["W", "R", "B"]
    compiled = parc.compile(path)
    other = {name: torch.from_numpy(array / 2) for name, array in weights.items()}
    compiled.load_state_dict(other)
    halved = {name: tensor.numpy() for name, tensor in other.items()}
    path = save(tmp_path / "h.onnx", [node], [value("x", ["T", "B", FEATURES])], outputs, halved)
    check(path, compiled, random(5, 2, FEATURES))


def test_calls_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    inputs = [value("a", ["N", 4]), value("b", ["N", 4])]
    compiled = parc.compile(save(tmp_path / "m.onnx", nodes, inputs, [value("y", ["N", 4])]))
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(compiled(b=b, a=a), a - b)
    with pytest.raises(parc.CallError, match="dimension 0 of input 'b"):
        compiled(a, torch.randn(2, 4))
    with pytest.raises(parc.CallError, match="float32"):
        compiled(a.double(), b)


def test_unnamed_dimensions_that_have_to_agree(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    inputs = [value("a", [None, 4]), value("b", [None, 4])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", [None, 4])])
    check(path, parc.compile(path), random(7, 4), random(7, 4))


def test_branches_on_shapes(tmp_path: Path) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(operator, ["x"], [name])], name, [], [value(name, ["N", 4])])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1),
        helper.make_node("Equal", ["shape", "four"], ["is_four"]),
        helper.make_node("If", ["is_four"], ["y"], then_branch=branch("a", "Exp"), else_branch=branch("b", "Neg")),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], {"four": np.array([4])})
    check(path, parc.compile(path), random(3, 4))


def test_old_files(tmp_path: Path) -> None:
    """Opset 9, axes as attributes, weights listed among the inputs."""
    nodes = [helper.make_node("Squeeze", ["x"], ["s"], axes=[1]), helper.make_node("MatMul", ["s", "w"], ["y"])]
    inputs = [value("x", ["N", 1, 4]), value("w", [4, 3])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", ["N", 3])], {"w": random(4, 3)}, opset=9)
    compiled = parc.compile(path)
    x = random(6, 1, 4)
    torch.testing.assert_close(compiled(torch.from_numpy(x)), torch.from_numpy(x[:, 0] @ random(4, 3)))


def test_weights_in_another_file(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["N", 64])], [value("y", ["N", 64])], {"w": random(64, 64)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    check(path, parc.compile(path), random(3, 64))
    (tmp_path / "weights.bin").unlink()
    assert "weights" in refused(path)


def test_no_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Exp", ["w"], ["y"])]
    compiled = parc.compile(save(tmp_path / "m.onnx", nodes, [], [value("y", [2, 3])], {"w": random(2, 3)}))
    torch.testing.assert_close(compiled(), torch.from_numpy(np.exp(random(2, 3))))


@pytest.mark.parametrize("length", [0, 100, 5000, 600_000])
def test_truncated_files(tmp_path: Path, length: int) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(speech.model_file().read_bytes()[:length])
    assert "broken.onnx: " in refused(path) and "ONNX model" in refused(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("this is no model")
    assert "text.onnx: cannot be read as an ONNX model" in refused(path)
    assert "no file" in refused(tmp_path / "missing.onnx")


def test_errors_name_the_node(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x, y = value("x", ["N", 4]), value("y", ["N", 4])
    save(path, [helper.make_node("Softsign", ["x"], ["y"], "squash")], [x], [y])
    assert "node 'squash' (Softsign) is not supported" in refused(path)
    save(path, [helper.make_node("Softsign", ["x"], ["y"])], [x], [y])
    assert "node 'Softsign_0' (Softsign) is not supported" in refused(path)

    node, _, weights = recurrent_node("LSTM", activations=["Sigmoid", "Affine", "Tanh"])
    outputs = [value("y", ["T", 1, "B", HIDDEN]), value("y_h", [1, "B", HIDDEN]), value("y_c", [1, "B", HIDDEN])]
    inputs = [value("x", ["T", "B", FEATURES])]
    save(path, [node], inputs, outputs, weights)
    assert "activation Affine of node 'cell' (LSTM) is not supported" in refused(path)
    node, _, weights = recurrent_node("LSTM")
    node.input[4] = "lengths"
    save(path, [node], [*inputs, value("lengths", ["B"], TensorProto.INT32)], outputs, weights)
    assert "sequence_lens of node 'cell' (LSTM) is not supported" in refused(path)


def test_control_flow_on_values(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node("Neg", ["x"], [name])], name, [], [value(name, [4])])

    node = helper.make_node("If", ["c"], ["y"], "choose", then_branch=branch("a"), else_branch=branch("b"))
    inputs = [value("x", [4]), value("c", [], TensorProto.BOOL)]
    path = save(tmp_path / "m.onnx", [node], inputs, [value("y", [4])])
    assert "node 'choose' (If) is not supported: what runs depends on values" in refused(path)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"], "sum")]
    path = save(tmp_path / "m.onnx", nodes, [value("a", ["N", 4]), value("b", ["N", 5])], [value("y", ["N", 4])])
    assert "do not fit together" in refused(path)
