"""Which dimensions of a program's inputs are found to be dynamic, and what a declaration of them may say."""

import re

import pytest
import torch
from models import LayerOuterLstm, Tagger, TimeOuterLstm, TwoBack
from torch import Tensor, nn

from parc.errors import CompileError
from parc.importers.shapes import declared, inferred
from parc.importers.torch_model import Program

R = torch.randn


def found(model: nn.Module, *inputs: object) -> list[str]:
    """The inferred shapes of the inputs, as text."""
    shapes = inferred(Program.of(model.eval(), inputs, {}))
    return [", ".join(map(str, extents)) for extents in shapes.extents]


class Frames(nn.Module):
    """Cuts a signal into frames of 32 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 8)

    def forward(self, signal: Tensor) -> Tensor:
        return self.lstm(signal.view(-1, 1, 32))[0]


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (nn.LSTM(8, 16, 2), (R(6, 3, 8),), ["T, B, 8"]),
        (nn.LSTM(8, 16, 2, batch_first=True), (R(3, 6, 8),), ["B, T, 8"]),
        (nn.LSTM(8, 16, 2), (R(6, 3, 8), (R(2, 3, 16), R(2, 3, 16))), ["T, B, 8", "2, B, 16", "2, B, 16"]),
        (nn.LSTM(8, 16, 2), (R(6, 8), (R(2, 16), R(2, 16))), ["T, 8", "2, 16", "2, 16"]),
        (TimeOuterLstm(), (R(6, 3, 8),), ["T, B, 8"]),
        (Tagger(), (torch.randint(0, 20, (3, 6)),), ["B, T"]),
        (TwoBack(), (R(6, 3, 8),), ["T, B, 8"]),
    ],
)
def test_time_and_batch_are_found(model: nn.Module, inputs: tuple[object, ...], expected: list[str]) -> None:
    assert found(model, *inputs) == expected


def test_sizes_that_are_equal_by_chance_are_told_apart() -> None:
    x, state = R(16, 16, 16), R(2, 16, 16)
    assert found(nn.LSTM(16, 16, 2), x, (state, state)) == ["T, B, 16", "2, B, 16", "2, B, 16"]


@pytest.mark.parametrize("size", [3, 4])
def test_dimensions_that_move_in_pairs(size: int) -> None:
    class Add(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    assert found(Add(), R(4, size), R(4, size)) == ["B, D0", "B, D0"]


@pytest.mark.parametrize("steps", [1, 50])
def test_sizes_of_one_are_dynamic_and_have_to_agree(steps: int) -> None:
    state = R(2, 1, 16)
    assert found(LayerOuterLstm(), R(steps, 1, 8), state, state) == ["T, B, 8", "2, B, 16", "2, B, 16"]


def test_a_size_that_grows_in_steps_is_a_multiple() -> None:
    assert found(Frames(), R(3200)) == ["32*T"]
    assert found(nn.Conv1d(1, 8, 16, stride=8), R(2, 1, 16000)) == ["B, 1, 8*D0"]


def test_a_recurrence_behind_a_convolution_with_a_stride() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 8, 16, stride=8)
            self.lstm = nn.LSTM(8, 16, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(self.conv(x.unsqueeze(1)).transpose(1, 2))[0]

    assert found(Strided(), R(2, 800)) == ["B, 8*T"]


def test_a_long_example_is_never_run_as_long() -> None:
    runs = []

    class Counted(TimeOuterLstm):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(x.shape[0])
            return super().forward(x)

    assert found(Counted(4), R(4096, 3, 8)) == ["T, B, 8"]
    assert sum(steps for steps in runs if steps < 4096) < 100
    assert runs.count(4096) <= 1, "and that one run stops at a limit of operations"


def test_a_program_that_takes_its_sizes_literally_is_static() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(6, 3, 2, 4).sum(2)

    assert found(Fixed(), R(6, 3, 8)) == ["6, 3, 8"]


@pytest.mark.parametrize(
    "dynamic_shapes",
    [
        {"input": {0: "T", 1: "B"}},
        ({0: "T", 1: "B"},),
        {"input": {0: torch.export.Dim("T"), 1: torch.export.Dim("B", min=1, max=64)}},
        {"input": ["T", "B", None]},
    ],
)
def test_declared_dimensions(dynamic_shapes: object) -> None:
    shapes = declared(Program.of(nn.LSTM(8, 16).eval(), (R(6, 3, 8),), {}), dynamic_shapes)
    assert [s.name for s in shapes.symbols] == ["T", "B"]
    assert [str(e) for e in shapes.extents[0]] == ["T", "B", "8"]


def test_declared_multiples() -> None:
    frames = torch.export.Dim("F")
    shapes = declared(Program.of(Frames().eval(), (R(3200),), {}), {"signal": {0: 32 * frames}})
    assert [str(e) for e in shapes.extents[0]] == ["32*F"]


@pytest.mark.parametrize(
    ("dynamic_shapes", "message"),
    [
        ({"x": {0: "T"}}, "dynamic_shapes names 'x', which is no input; inputs: input, hx"),
        ({"input": {3: "T"}}, "names dimension 3 of input 'input', which has 3 dimensions"),
        ({"input": {0: 1.5}}, "has 1.5 for input 'input'; expected a name or a torch.export.Dim"),
        ({"input": "T"}, "has 'T' for input 'input'; expected {dimension: name}"),
        ({"hx": [None]}, "has [None] for an argument that is a structure of 2 values"),
        (7, "dynamic_shapes is a dict of argument names or a sequence"),
    ],
)
def test_declarations_that_do_not_fit(dynamic_shapes: object, message: str) -> None:
    state = R(1, 3, 16)
    program = Program.of(nn.LSTM(8, 16).eval(), (R(6, 3, 8), (state, state)), {})
    with pytest.raises(CompileError, match=re.escape(message)):
        declared(program, dynamic_shapes)


def test_a_declaration_that_the_program_does_not_take() -> None:
    with pytest.raises(CompileError, match="the model runs at H = 8 but not at 9"):
        declared(Program.of(nn.LSTM(8, 16).eval(), (R(6, 3, 8),), {}), {"input": {2: "H"}})
