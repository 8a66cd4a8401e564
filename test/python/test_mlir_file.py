"""`.mlir` and `.mlirbc` files compile from every stage; errors in them have a place."""

from pathlib import Path

import pytest
import torch
from models import Recurrence
from torch import Tensor
from torch_mlir import ir

import parc
from parc import dialect
from parc.importers import import_model
from parc.pipelines import run_pipeline, stage_steps, stages_after

RNN = """
module attributes {parc.symbols = ["T", "B"]} {
  func.func @main(
      %x: tensor<?x?x8xf32> {parc.name = "x", parc.shape = affine_map<()[T, B] -> (T, B, 8)>},
      %U: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "U"}) -> (tensor<?x?x8xf32>, tensor<?x8xf32>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %zero = arith.constant 0.0 : f32
    %T = tensor.dim %x, %c0 : tensor<?x?x8xf32>
    %B = tensor.dim %x, %c1 : tensor<?x?x8xf32>
    %e = tensor.empty(%B) : tensor<?x8xf32>
    %h0 = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %y0 = tensor.empty(%T, %B) : tensor<?x?x8xf32>
    %h, %y = scf.for %t = %c0 to %T step %c1 iter_args(%s = %h0, %ys = %y0) -> (tensor<?x8xf32>, tensor<?x?x8xf32>) {
      %xt = tensor.extract_slice %x[%t, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x?x8xf32> to tensor<?x8xf32>
      %p = linalg.matmul ins(%s, %U : tensor<?x8xf32>, tensor<8x8xf32>) outs(%xt : tensor<?x8xf32>) -> tensor<?x8xf32>
      %n = linalg.tanh ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %more = tensor.insert_slice %n into %ys[%t, 0, 0] [1, %B, 8] [1, 1, 1] : tensor<?x8xf32> into tensor<?x?x8xf32>
      scf.yield %n, %more : tensor<?x8xf32>, tensor<?x?x8xf32>
    }
    return %y, %h : tensor<?x?x8xf32>, tensor<?x8xf32>
  }
}
"""


def rnn(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    h, ys = torch.zeros(x.shape[1], 8), [torch.zeros(0, x.shape[1], 8)]
    for xt in x:
        h = torch.tanh(xt + h @ weights)
        ys.append(h[None])
    return torch.cat(ys), h


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(parc.CompileError) as error:
        parc.compile(path)
    return str(error.value)


def test_loop_with_dynamic_sizes(tmp_path: Path) -> None:
    compiled = parc.compile(write(tmp_path / "rnn.mlir", RNN))
    assert list(compiled.state_dict()) == ["U"]
    weights = torch.randn(8, 8) / 3
    compiled.load_state_dict({"U": weights})
    for steps, batch in ((0, 2), (1, 1), (5, 3), (200, 2), (3, 0)):
        x = torch.randn(steps, batch, 8)
        torch.testing.assert_close(compiled(x), rnn(x, weights), rtol=1e-5, atol=1e-5)


def test_bytecode(tmp_path: Path) -> None:
    path = tmp_path / "rnn.mlirbc"
    with ir.Context() as context:
        dialect.load(context)
        with path.open("wb") as file:
            ir.Module.parse(RNN).operation.write_bytecode(file)
    x = torch.randn(4, 2, 8)
    torch.testing.assert_close(parc.compile(path)(x), rnn(x, torch.zeros(8, 8)))


@pytest.mark.parametrize("stage", ["torch", "linalg", "system", "schedule", "loops"])
def test_every_stage(tmp_path: Path, stage: str) -> None:
    """A model's IR, written after any stage, compiles to the model."""
    model, context = Recurrence(), ir.Context()
    dialect.load(context)
    shapes = ({0: "T", 1: "B"},)
    imported = import_model(
        model,
        (torch.randn(4, 2, 8),),
        {},
        context,
        dynamic_shapes=shapes,
        stage="torch" if stage == "torch" else "linalg",
    )
    with context, ir.Location.unknown():
        for name in stages_after(None, stage):
            run_pipeline(imported.module, stage_steps(name))
        compiled = parc.compile(write(tmp_path / "m.mlir", str(imported.module)))
    compiled.load_state_dict(model.state_dict())
    with torch.no_grad():
        for steps, batch in ((1, 1), (13, 3)):
            x = torch.randn(steps, batch, 8)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_plain_function(tmp_path: Path) -> None:
    """No recurrence, no names for sizes, and the only function is not called main."""
    text = """
    func.func @forward(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
      %c0 = arith.constant 0 : index
      %n = tensor.dim %x, %c0 : tensor<?x4xf32>
      %e = tensor.empty(%n) : tensor<?x4xf32>
      %y = linalg.exp ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
      return %y : tensor<?x4xf32>
    }
    """
    compiled = parc.compile(write(tmp_path / "m.mlir", text))
    x = torch.randn(5, 4)
    torch.testing.assert_close(compiled(x), x.exp())


def test_errors_have_a_place(tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    write(path, "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {\n  %y = foo %x\n  return %y : tensor<4xf32>\n}")
    assert refused(path).startswith(f"{path}:2:8: custom op 'foo' is unknown")
    write(path, "func.func @main(%x: tensor<4xf32>) -> tensor<5xf32> {\n  return %x : tensor<4xf32>\n}")
    assert refused(path).startswith(f"{path}:2:3: type of return operand 0")
    write(path, RNN.replace("(T, B, 8)", "(T, B, 9)"))
    assert refused(path).startswith(f"{path}:3:3: the parc.shape of argument 0 does not fit its type")
    write(path, "module {}")
    assert refused(path) == f"{path}: expected a function @main; the file has none"
    write(path, "func.func @a() {\n  return\n}\nfunc.func @b() {\n  return\n}")
    assert refused(path) == f"{path}: expected a function @main; the file has @a, @b"


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"ML\xefR\x0d"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.mlirbc"
    path.write_bytes(content)
    assert refused(path).startswith(str(path))
