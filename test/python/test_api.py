"""`parc.compile` as an object: signatures, parameters, modes, and what wrong calls are told."""

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from models import Recurrence
from torch import Tensor, nn
from torch.testing import assert_close

import parc

R = torch.randn


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Step(nn.Module):
    """A small model with every kind of argument and result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(
        self, x: Tensor, states: dict[str, Tensor] | None = None, *, flip: bool = False, bias: Tensor | None = None
    ) -> dict[str, object]:
        y = self.linear(x) * self.scale
        if states is not None:
            y = y + states["h"]
        if bias is not None:
            y = y + bias
        if flip:
            y = -y
        return {"y": y, "pair": Pair(y + 1, x), "flag": flip, "list": [y * 2, None]}


def equal(compiled: Callable[..., object], model: Callable[..., object], *args: object, **kwargs: object) -> None:
    with torch.no_grad():
        result, expected = compiled(*args, **kwargs), model(*args, **kwargs)
    assert torch.utils._pytree.tree_structure(result) == torch.utils._pytree.tree_structure(expected)
    assert_close(result, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.fixture(scope="module")
def recurrence() -> tuple[Recurrence, parc.Module]:
    model = Recurrence()
    return model, parc.compile(model, R(6, 3, 8), threads=2)


def test_arguments_and_results_keep_their_structure() -> None:
    model = Step()
    x, states, bias = R(3, 4), {"h": R(3, 6)}, R(6)
    compiled = parc.compile(model, (x, states), example_kwargs={"bias": bias, "flip": True})
    equal(compiled, model, R(5, 4), {"h": R(5, 6)}, flip=True, bias=R(6))
    equal(compiled, model, x=R(5, 4), states={"h": R(5, 6)}, bias=R(6), flip=True)


def test_defaults_may_be_given_or_left_out() -> None:
    model = Step()
    compiled = parc.compile(model, (R(3, 4),))
    equal(compiled, model, R(2, 4))
    equal(compiled, model, R(2, 4), None, flip=False)
    equal(compiled, model, x=R(2, 4), bias=None)


def test_without_example_inputs_the_first_call_compiles() -> None:
    model = Step()
    compiled = parc.compile(model)
    assert "not compiled yet" in repr(compiled)
    with pytest.raises(parc.CallError, match="not compiled yet"):
        compiled.explain()
    equal(compiled, model, R(3, 4))
    equal(compiled, model, R(7, 4))
    assert "x: float32[B, 4]" in repr(compiled)


def test_functions_and_their_closures() -> None:
    weight = R(4, 4)

    def program(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(x @ weight) + y, x.sum(0)

    compiled = parc.compile(program, (R(3, 4), R(3, 4)))
    equal(compiled, program, R(5, 4), R(5, 4))
    weight.mul_(2)
    equal(compiled, program, R(5, 4), R(5, 4))
    assert list(compiled.parameters()) == []


# Parameters.


def test_changed_weights_are_used_at_the_next_call() -> None:
    model = Recurrence()
    compiled, x = parc.compile(model, R(6, 3, 8), threads=2), R(4, 2, 8)
    equal(compiled, model, x)

    model.load_state_dict(Recurrence().state_dict())
    equal(compiled, model, x)
    with torch.no_grad():
        model.U.mul_(0.5)
    equal(compiled, model, x)
    model.W = nn.Parameter(R(8, 16))
    equal(compiled, model, x)
    model.W.data = R(8, 16)
    equal(compiled, model, x)
    compiled.load_state_dict(Recurrence().state_dict())
    equal(compiled, model, x)
    compiled.W = nn.Parameter(R(8, 16))
    assert compiled.W is model.W
    equal(compiled, model, x)
    model.W = nn.Parameter(R(16, 8).t())
    equal(compiled, model, x)

    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    model(x).sum().backward()
    optimizer.step()
    equal(compiled, model, x)


def test_the_state_is_the_originals() -> None:
    model = Step()
    compiled = parc.compile(model, R(3, 4))
    assert list(compiled.state_dict()) == list(model.state_dict())
    assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in compiled.named_buffers()] == ["scale"]
    assert compiled.linear is model.linear

    outer = nn.Sequential(compiled, nn.Identity())
    other = nn.Sequential(Step(), nn.Identity())
    assert list(outer.state_dict()) == list(other.state_dict())
    outer.load_state_dict(other.state_dict())
    equal(compiled, other[0], R(2, 4))


def test_weights_of_another_form_are_told() -> None:
    model = Recurrence()
    compiled, x = parc.compile(model, R(6, 3, 8)), R(4, 2, 8)
    for weight, message in [
        (R(8, 17), "parameter 'W' has shape [8, 17]; expected float32[8, 16]"),
        (R(8), "parameter 'W' has shape [8]; expected float32[8, 16]"),
        (R(8, 16).double(), "parameter 'W' has elements of type float64; expected float32[8, 16]"),
    ]:
        model.W = nn.Parameter(weight)
        with pytest.raises(parc.CallError, match=re.escape(message)):
            compiled(x)
    model.W = None
    with pytest.raises(parc.CallError, match="parameter 'W' is NoneType"):
        compiled(x)


def test_shared_weights_have_to_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    compiled = parc.compile(model, R(3, 4))
    equal(compiled, model, R(2, 4))
    model[2].weight = nn.Parameter(R(4, 4))
    with pytest.raises(parc.CallError, match="was shared by modules when compiled"):
        compiled(R(2, 4))


def test_inference_tensors_as_weights() -> None:
    with torch.inference_mode():
        model = nn.Linear(4, 4)
        compiled = parc.compile(model, R(3, 4))
        equal(compiled, model, R(2, 4))
        model.weight.mul_(2)
        equal(compiled, model, R(2, 4))


# Modes.


def test_a_mode_that_matters_is_checked() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval()
    compiled = parc.compile(model, R(3, 4))
    equal(compiled, model, R(3, 4))
    compiled.train()
    assert model.training and model[1].training
    with pytest.raises(parc.CallError, match="compiled in evaluation mode and the model is now in training mode"):
        compiled(R(3, 4))
    compiled.eval()
    equal(compiled, model, R(3, 4))


def test_a_mode_that_does_not_matter_is_not_asked_for(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    equal(compiled.train(), model, R(2, 3, 8))
    equal(compiled.eval(), model, R(2, 3, 8))


def test_nothing_of_the_callers_is_changed() -> None:
    model = nn.Sequential(nn.LSTM(4, 8, 2, dropout=0.5), nn.Identity()).train()
    model[0].dropout = 0.0
    before, rng, threads = copy.deepcopy(model.state_dict()), torch.get_rng_state(), torch.get_num_threads()
    parc.compile(model, R(1, 1, 4, generator=torch.Generator()))
    assert all(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.get_num_threads() == threads
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_copies_are_refused(recurrence: tuple[Recurrence, parc.Module]) -> None:
    with pytest.raises(TypeError, match="compile the copy"):
        copy.deepcopy(recurrence[1])


# Inputs.


def test_inputs_in_any_layout(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    equal(compiled, model, R(8, 3, 5).permute(2, 1, 0))
    equal(compiled, model, R(10, 3, 8)[::2])
    equal(compiled, model, R(1, 1, 8).expand(4, 3, 8))
    equal(compiled, model, torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8), np.float32)))


def test_inputs_without_elements(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    equal(compiled, model, R(4, 0, 8))
    assert compiled(R(0, 3, 8)).shape == (0, 3, 16)


def test_nan_and_infinity(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    x = R(5, 3, 8)
    x[1, 0, 2], x[2, 1, 3], x[2, 2, 4] = torch.nan, torch.inf, -torch.inf
    equal(compiled, model, x)


def test_calls_from_several_threads(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    failures: list[BaseException] = []

    def run(steps: int) -> None:
        try:
            for _ in range(20):
                equal(compiled, model, R(steps, 2, 8))
        except BaseException as e:  # noqa: BLE001
            failures.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_results_are_the_same_bits_on_any_number_of_threads(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    x = R(9, 5, 8)
    for threads in (1, 3):
        other = parc.compile(model, R(6, 3, 8), threads=threads)
        with torch.no_grad():
            assert torch.equal(compiled(x), other(x))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((R(4, 2, 9),), "dimension 2 of input 'x: float32[T, B, 8]' has size 9; expected 8"),
        ((R(4, 8),), "input 'x' has shape [4, 8]; expected float32[T, B, 8]"),
        ((R(4, 2, 8).double(),), "input 'x' has elements of type float64; expected float32[T, B, 8]"),
        ((R(4, 2, 8).to_sparse(),), "input 'x' is a torch.sparse_coo tensor on cpu; expected a dense CPU tensor"),
        ((R(4, 2, 8, device="meta"),), "input 'x' is a torch.strided tensor on meta; expected a dense CPU tensor"),
        ((), "missing a required argument: 'x'"),
        ((R(4, 2, 8), R(1)), "too many positional arguments"),
        (([R(4, 2, 8)],), "x is a list of 1; the program was compiled for a tensor"),
        ((None,), "x is None; the program was compiled for a tensor"),
    ],
)
def test_calls_that_do_not_fit(
    recurrence: tuple[Recurrence, parc.Module], inputs: tuple[object, ...], message: str
) -> None:
    with pytest.raises(parc.CallError, match=re.escape(message)):
        recurrence[1](*inputs)
    equal(recurrence[1], recurrence[0], R(2, 3, 8))


def test_sizes_that_do_not_agree_are_told() -> None:
    compiled = parc.compile(nn.GRU(8, 16), (R(6, 3, 8), R(1, 3, 16)))
    message = (
        "dimension 1 of input 'hx: float32[1, B, 16]' has size 5; expected 3 "
        "(B, from dimension 1 of input 'input: float32[T, B, 8]')"
    )
    with pytest.raises(parc.CallError, match=re.escape(message)):
        compiled(R(6, 3, 8), R(1, 5, 16))
    with pytest.raises(parc.CallError, match=re.escape("T is 0; the program runs from T = 1 on")):
        compiled(R(0, 3, 8), R(1, 3, 16))
    with pytest.raises(parc.CallError, match=re.escape("hx is None; the program was compiled for a tensor")):
        compiled(R(6, 3, 8))


def test_another_structure_is_told() -> None:
    compiled = parc.compile(Step(), (R(3, 4), {"h": R(3, 6)}))
    with pytest.raises(parc.CallError, match=re.escape("states is None; the program was compiled for a dict")):
        compiled(R(3, 4))
    with pytest.raises(parc.CallError, match=re.escape("states is a dict with the keys 'c'")):
        compiled(R(3, 4), {"c": R(3, 6)})
    with pytest.raises(parc.CallError, match=re.escape("flip is True; the program was compiled for False")):
        compiled(R(3, 4), {"h": R(3, 6)}, flip=True)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="there is no strategy 'fast'; choose from auto"):
        parc.compile(torch.tanh, strategy="fast")
    with pytest.raises(ValueError, match="threads is at least 1, not 0"):
        parc.compile(torch.tanh, threads=0)


def test_explain_counts_waves() -> None:
    model = nn.LSTM(8, 16, num_layers=3)
    report = parc.explain(model, R(6, 2, 8), strategy="wavefront", sizes={"T": 100})
    assert (int(report.work), int(report.span)) == (300, 102)
    compiled = parc.compile(model, R(6, 2, 8), strategy="wavefront")
    assert int(compiled.explain({"T": 100}).waves) == 102
    assert int(parc.explain(compiled, sizes={"T": 10}).span) == 12


# Files.


def test_exported_programs(tmp_path: Path) -> None:
    model = Recurrence()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (R(6, 3, 8),), dynamic_shapes={"x": {1: batch}})
    torch.export.save(exported, tmp_path / "model.pt2")
    for compiled in (parc.compile(exported), parc.compile(tmp_path / "model.pt2")):
        equal(compiled, model, R(6, 3, 8))
        equal(compiled, model, R(6, 9, 8))
        with pytest.raises(parc.CallError, match="has size 7; expected 6"):
            compiled(R(7, 3, 8))
    assert "U" in dict(compiled.named_parameters())


def test_a_function_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\ndef make():\n    return torch.nn.Linear(4, 2), torch.randn(3, 4)\n")
    assert parc.compile(f"{path}:make")(R(5, 4)).shape == (5, 2)
    for source, message in [
        (f"{path}:made", "has no function 'made'"),
        (str(path), "cannot tell what"),
        (tmp_path / "none.onnx", "there is no file"),
    ]:
        with pytest.raises(parc.CompileError, match=message):
            parc.compile(source)


@pytest.mark.parametrize("content", [b"", b"not a program", b"PK\x03\x04 cut off"])
def test_broken_exported_programs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(parc.CompileError, match="model.pt2: cannot be read as an exported program"):
        parc.compile(path)
