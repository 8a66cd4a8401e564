"""Training through `torch.autograd`: gradients against eager PyTorch, and all that a training loop does with them."""

import copy
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from models import LayerOuterLstm, Recurrence, ResetGru
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch_mlir import ir

import parc
from parc.autodiff import scalar
from parc.codegen.irtools import walk
from parc.compiler import Compiler, Options
from parc.errors import source_line
from parc.memory import bytes_text, parse_bytes
from parc.module import Source
from parc.tools.opt import main

R = torch.randn
# A failing size is as good as a smaller one, and each example takes long enough.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
THIS = Path(__file__).name


def leaves(value: object) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def gradients(model: Callable[..., object], inputs: Sequence[Tensor], *, seed: int = 0) -> list[Tensor | None]:
    """The gradients of everything that requires one, for random cotangents of all results."""
    generator = torch.Generator().manual_seed(seed)
    results = [t for t in leaves(model(*inputs)) if t.requires_grad]
    cotangents = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in results]
    sources = [*inputs, *(model.parameters() if isinstance(model, nn.Module) else [])]
    sources = [t for t in sources if t.requires_grad]
    return list(torch.autograd.grad(results, sources, cotangents, allow_unused=True))


def same_gradients(
    compiled: parc.Module, model: Callable[..., object], *inputs: Tensor, tolerance: float = 1e-4
) -> None:
    assert_close(gradients(compiled, inputs), gradients(model, inputs), rtol=tolerance, atol=tolerance)


def wanting(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return R(*shape, dtype=dtype, requires_grad=True)


class Pointwise(nn.Module):
    """A model that compiles at once: three results, of which each needs something else."""

    def __init__(self, features: int = 5) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(R(features)), nn.Parameter(R(features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.tanh(x * self.scale), x + self.shift, (x > 0).sum(0)


@pytest.fixture
def pointwise() -> tuple[Pointwise, parc.Module]:
    torch.manual_seed(0)
    model = Pointwise()
    return model, parc.compile(model, R(3, 5))


@pytest.fixture(scope="module")
def recurrence() -> Iterator[tuple[Recurrence, parc.Module]]:
    torch.manual_seed(0)
    model = Recurrence()
    yield model, parc.compile(model, R(6, 3, 8), threads=2, training=True)


# Gradients equal eager's.


@pytest.fixture(scope="module")
def lstm() -> tuple[nn.Module, parc.Module]:
    torch.manual_seed(0)
    model = LayerOuterLstm(layers=2, features=5, hidden=7)
    return model, parc.compile(model, (R(6, 3, 5), R(2, 3, 7), R(2, 3, 7)), threads=2)


@settings(max_examples=8, phases=NO_SHRINKING, deadline=None)
@given(st.integers(1, 24), st.integers(1, 9))
def test_an_lstm_of_any_size(lstm: tuple[nn.Module, parc.Module], steps: int, batch: int) -> None:
    model, compiled = lstm
    same_gradients(compiled, model, wanting(steps, batch, 5), wanting(2, batch, 7), wanting(2, batch, 7))


@pytest.fixture(scope="module")
def gru() -> tuple[nn.Module, parc.Module]:
    torch.manual_seed(0)
    model = ResetGru(features=5, hidden=7).double()
    return model, parc.compile(model, (R(6, 3, 5).double(), R(3, 7).double()), threads=2)


@settings(max_examples=8, phases=NO_SHRINKING, deadline=None)
@given(st.integers(1, 24), st.integers(1, 9))
def test_a_gru_in_double_precision(gru: tuple[nn.Module, parc.Module], steps: int, batch: int) -> None:
    model, compiled = gru
    x, h = wanting(steps, batch, 5, dtype=torch.float64), wanting(batch, 7, dtype=torch.float64)
    same_gradients(compiled, model, x, h, tolerance=1e-11)


def test_gradcheck(gru: tuple[nn.Module, parc.Module]) -> None:
    model, compiled = gru
    x, h = wanting(3, 2, 5, dtype=torch.float64), wanting(2, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, h, *_: compiled(x, h), (x, h, *model.parameters()))


def test_layers_of_torch() -> None:
    for model, shape in ((nn.RNN(5, 7), (4, 2, 5)), (nn.Sequential(nn.Linear(5, 6), nn.ReLU()), (4, 5))):
        same_gradients(parc.compile(model, R(shape)), model, wanting(*shape))


def test_functions_of_tensors() -> None:
    weight = wanting(4, 4)

    def program(x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x @ weight) * y

    compiled = parc.compile(program, (R(3, 4), R(3, 4)))
    x, y = wanting(5, 4), wanting(5, 4)
    for function in (compiled, program):
        function(x, y).square().sum().backward()
    assert_close(weight.grad, 2 * _halved(weight, x, y), rtol=1e-4, atol=1e-4)


def _halved(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the program above, once."""
    again = weight.detach().requires_grad_()
    (torch.tanh(x.detach() @ again) * y.detach()).square().sum().backward()
    assert again.grad is not None
    return again.grad


# Training loops.


def losses(model: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], data: Sequence[Tensor]) -> list[float]:
    """A loop with everything in it: two batches a step, clipped gradients, Adam with weight decay."""
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    found = []
    for first, second in zip(data[::2], data[1::2], strict=True):
        optimizer.zero_grad()
        for x in (first, second):
            loss = (model(x) - 0.5).square().mean()
            loss.backward()
            found.append(loss.item())
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
    return found


def test_a_training_loop(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    copied, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    data = [R(5, 2, 8) for _ in range(20)]
    compiled_losses = losses(compiled, list(compiled.parameters()), data)
    assert_close(compiled_losses, losses(copied, list(copied.parameters()), data), rtol=1e-4, atol=1e-5)
    assert compiled_losses[-1] < compiled_losses[0]
    assert_close(dict(model.named_parameters()), dict(copied.named_parameters()), rtol=1e-3, atol=1e-4)
    model.load_state_dict(before)
    model.zero_grad()


def test_truncated_backpropagation(gru: tuple[nn.Module, parc.Module]) -> None:
    model, compiled = gru
    x = R(12, 2, 5).double()
    found = []
    for program in (compiled, model):
        h = torch.ones(2, 7).double()
        model.zero_grad()
        for chunk in x.split(4):
            y, h = program(chunk, h)
            y.square().sum().backward()
            h = h.detach()
        found.append([p.grad for p in model.parameters()])
    assert_close(*found, rtol=1e-10, atol=1e-10)
    model.zero_grad()


def test_chunks_that_are_not_detached(gru: tuple[nn.Module, parc.Module]) -> None:
    model, compiled = gru

    def twice(program: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, h: program(x, program(x, h)[1])[0]

    x, h = wanting(3, 2, 5, dtype=torch.float64), wanting(2, 7, dtype=torch.float64)
    sources = [x, h, *model.parameters()]
    found = [torch.autograd.grad(twice(program)(x, h).sum(), sources) for program in (compiled, model)]
    assert_close(*found, rtol=1e-10, atol=1e-10)


def test_gradients_accumulate_and_hooks_run(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    seen: list[Tensor] = []
    model.scale.register_hook(lambda g: seen.append(g) or 2 * g)  # type: ignore[func-returns-value]
    x = R(4, 5)
    for _ in range(2):
        compiled(x)[0].sum().backward()
    expected = 2 * 2 * (x * (1 - torch.tanh(x * model.scale) ** 2)).sum(0)
    # The comparison of a compile shows its gradients to no one.
    assert len(seen) == 2
    assert_close(model.scale.grad, expected)


def test_frozen_parameters(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    same_gradients(compiled, model, R(4, 5))
    model.scale.requires_grad_(False)
    same_gradients(compiled, model, R(4, 5))
    same_gradients(compiled, model, wanting(4, 5))
    model.shift.requires_grad_(False)
    assert not any(t.requires_grad for t in compiled(R(4, 5)))
    same_gradients(compiled, model, wanting(4, 5))


def test_optimizers_may_write_to_data(gru: tuple[nn.Module, parc.Module]) -> None:
    model, compiled = gru
    x, h = R(3, 2, 5).double(), R(2, 7).double()
    for _ in range(3):
        same_gradients(compiled, model, x, h, tolerance=1e-10)
        for p in model.parameters():
            p.data.mul_(0.9)
    with torch.no_grad():
        assert_close(compiled(x, h), model(x, h), rtol=1e-10, atol=1e-10)


def test_weights_that_are_replaced_keep_their_gradients(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    x, old = R(4, 5), model.scale
    y = compiled(x)[0]
    model.scale = nn.Parameter(R(5))
    y.sum().backward()
    assert model.scale.grad is None
    assert_close(old.grad, (x * (1 - torch.tanh(x * old) ** 2)).sum(0))
    same_gradients(compiled, model, wanting(2, 5))


# What torch.autograd asks for besides.


def test_results_that_are_not_used(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    x = wanting(4, 5)
    first, second, count = compiled(x)
    assert first.requires_grad and second.requires_grad and not count.requires_grad
    second.sum().backward()
    assert model.scale.grad is None, "eager knows that the second result does not depend on it"
    assert_close(model.shift.grad, torch.full((5,), 4.0))
    assert_close(x.grad, torch.ones(4, 5))


def test_results_that_are_inputs_or_each_other() -> None:
    weight = wanting(3)

    def program(x: Tensor) -> tuple[Tensor, ...]:
        y = x * weight
        return x, y, y, y.t(), y[0]

    same_gradients(parc.compile(program, R(4, 3)), program, wanting(4, 3))


def test_without_gradients_the_program_for_inference_runs(pointwise: tuple[Pointwise, parc.Module]) -> None:
    _, compiled = pointwise
    with torch.no_grad():
        assert not compiled(wanting(4, 5))[0].requires_grad
    with torch.inference_mode():
        assert compiled(R(4, 5))[0].is_inference()
    assert compiled(wanting(4, 5))[0].requires_grad


def test_integer_results_alone_need_no_training() -> None:
    model = nn.Sequential(nn.Linear(4, 6))
    compiled = parc.compile(lambda x: model(x).argmax(-1), R(3, 4))
    assert not compiled(wanting(3, 4)).requires_grad


def test_retained_graphs(pointwise: tuple[Pointwise, parc.Module]) -> None:
    _, compiled = pointwise
    x = wanting(4, 5)
    y = compiled(x)[0].sum()
    once = torch.autograd.grad(y, x, retain_graph=True)
    assert_close(torch.autograd.grad(y, x), once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y, x)


def test_a_saved_tensor_that_changes_is_told(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    x = R(4, 2, 8)
    y = compiled(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = compiled(x)
    with torch.no_grad():
        model.U.mul_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_results_may_be_written_to(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    same_gradients(compiled, model, wanting(4, 2, 8))
    x = wanting(4, 2, 8)
    found = [torch.autograd.grad(program(x).mul_(2).sum(), x) for program in (compiled, model)]
    assert_close(*found, rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_refused(pointwise: tuple[Pointwise, parc.Module]) -> None:
    _, compiled = pointwise
    x = wanting(4, 5)
    (gradient,) = torch.autograd.grad(compiled(x)[0].sum(), x, create_graph=True)
    assert gradient.requires_grad
    with pytest.raises(parc.CallError, match="second derivatives through a compiled module are not supported"):
        gradient.sum().backward()


def test_other_kinds_of_differentiation_are_refused(pointwise: tuple[Pointwise, parc.Module]) -> None:
    _, compiled = pointwise
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(R(4, 5), R(4, 5))
        with pytest.raises(parc.CallError, match="forward-mode differentiation"):
            compiled(dual)
    for transform in (torch.func.grad, torch.func.vmap):
        with pytest.raises(parc.CallError, match=r"transforms of torch.func .* are not supported"):
            transform(lambda x: compiled(x)[0].sum())(R(4, 5))


def test_checkpoints_and_saved_tensor_hooks(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    x = wanting(4, 5)

    def checkpointed(x: Tensor) -> object:
        return checkpoint(compiled, x, use_reentrant=False)

    expected = torch.autograd.grad(model(x)[0].sum(), x)
    for _ in range(2):
        assert_close(torch.autograd.grad(leaves(checkpointed(x))[0].sum(), x), expected)
        with torch.autograd.graph.save_on_cpu():
            y = compiled(x)[0]
        assert_close(torch.autograd.grad(y.sum(), x), expected)


def test_functional_calls(pointwise: tuple[Pointwise, parc.Module]) -> None:
    model, compiled = pointwise
    weights = {"scale": wanting(5), "shift": wanting(5)}
    x = R(4, 5)
    found = []
    for program in (compiled, model):
        y = torch.func.functional_call(program, {k: 2 * w for k, w in weights.items()}, (x,))
        found.append(torch.autograd.grad(y[0].sum() + y[1].sum(), list(weights.values())))
    assert_close(*found)


def test_saved_tensors_are_freed(pointwise: tuple[Pointwise, parc.Module]) -> None:
    _, compiled = pointwise
    compiled(wanting(4, 5))[0].sum().backward()
    y = compiled(wanting(4, 5))[0]
    node = y.grad_fn
    assert node is not None and node.saved_tensors
    y.sum().backward()
    with pytest.raises(RuntimeError, match="already been freed"):
        _ = node.saved_tensors


def test_training_in_several_threads(recurrence: tuple[Recurrence, parc.Module]) -> None:
    model, compiled = recurrence
    failures: list[BaseException] = []

    def run(steps: int) -> None:
        try:
            for _ in range(10):
                same_gradients(compiled, model, wanting(steps, 2, 8))
        except BaseException as e:  # noqa: BLE001
            failures.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Precision and modes.


def test_low_precision_inputs_beside_float32_weights() -> None:
    model = nn.Sequential(Cast(), nn.Linear(5, 6), nn.Tanh())
    for dtype in (torch.bfloat16, torch.float16):
        x = wanting(4, 5, dtype=dtype)
        compiled = parc.compile(model, x.detach())
        same_gradients(compiled, model, x, tolerance=1e-2)


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def test_autocast() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
    x = R(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        compiled = parc.compile(model, x)
        found = [program(x) for program in (compiled, model)]
    assert [y.dtype for y in found] == [torch.bfloat16] * 2
    weights = list(model.parameters())
    assert_close(*[torch.autograd.grad(y.float().square().sum(), weights) for y in found], rtol=5e-2, atol=5e-2)
    message = "compiled under torch.autocast to bfloat16 and is called without torch.autocast"
    with pytest.raises(parc.CallError, match=message):
        compiled(x)


def test_evaluation_mode_has_gradients_too() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(), nn.Tanh()).eval()
    compiled = parc.compile(model, R(4, 5))
    same_gradients(compiled, model, wanting(4, 5))
    model.train()
    with pytest.raises(parc.CallError, match="compiled in evaluation mode"):
        compiled(R(4, 5))


# Compiling for training.


def test_nothing_is_compiled_for_training_before_a_backward_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("parc.compiler._QUIET_SECONDS", -1.0)
    compiled = parc.compile(Pointwise(), R(3, 5))
    y = compiled(R(3, 5))[0]
    assert "for training" not in capsys.readouterr().err
    y.sum().backward()
    assert "compiling Pointwise for training: adjoint" in capsys.readouterr().err
    compiled(R(8, 5))[0].sum().backward()
    assert not capsys.readouterr().err
    parc.compile(Pointwise(), R(3, 5), training=True)
    assert "compiling Pointwise for training: adjoint" in capsys.readouterr().err


def test_reports_have_both_programs(recurrence: tuple[Recurrence, parc.Module]) -> None:
    report = recurrence[1].explain({"T": 50})
    assert "=== Forward ===" in str(report) and "=== Backward ===" in str(report)
    assert report.backward is not None
    assert int(report.backward.work) >= 50
    assert parc.explain(Recurrence(), R(6, 3, 8), training=True).backward is not None
    assert parc.explain(Recurrence(), R(6, 3, 8)).backward is None


def test_errors_in_the_backward_program_can_name_the_line_of_the_model() -> None:
    imported = Source(Recurrence()).load((R(6, 3, 8),), {}, ir.Context())
    _, backward = Compiler(imported, Options(), "model").adjoint()
    equations = walk(backward.operation, "parc.equation")
    places = [source_line(op.location) for equation in equations for op in (equation, *walk(equation, "arith.mulf"))]
    assert len(places) > len(equations) > 0
    assert all(re.search(r"models\.py:\d+", place) for place in places)


def test_an_operator_without_derivative_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(scalar._PARTIALS, "math.tanh")
    compiled = parc.compile(Pointwise(), R(3, 5))
    with torch.no_grad():
        compiled(R(3, 5))
    y = compiled(R(3, 5))[0]
    with pytest.raises(parc.CompileError, match=rf"{THIS}:\d+.*'math.tanh' has no derivative"):
        y.sum().backward()


def test_complex_numbers_are_refused() -> None:
    weight = torch.randn(3, dtype=torch.complex64, requires_grad=True)
    compiled = parc.compile(lambda x: torch.view_as_real(x * weight), R(3))
    with pytest.raises(parc.CompileError, match="complex numbers have no derivative"):
        compiled(R(3)).sum().backward()


def test_wrong_gradients_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scalar._PARTIALS, "math.tanh", scalar._PARTIALS["math.sin"])
    message = "does not differentiate as the model does: at .*, the gradient of 'scale' is off by"
    with pytest.raises(parc.CompileError, match=message):
        parc.compile(Pointwise(), R(3, 5), training=True)


def test_training_has_to_be_of_something() -> None:
    with pytest.raises(ValueError, match="neither a parameter nor an example input requires a gradient"):
        parc.compile(torch.tanh, R(3), training=True)
    with pytest.raises(ValueError, match="training=True takes example inputs"):
        parc.compile(Pointwise(), training=True)


# Memory.


def test_amounts_of_memory() -> None:
    amounts = {"256MB": 256_000_000, "1.5GiB": 3 << 29, "1 kB": 1000, "64KiB": 1 << 16, "12": 12, "7B": 7}
    assert {text: parse_bytes(text) for text in amounts} == amounts
    assert parse_bytes(123) == 123
    for wrong in ("", "MB", "-1MB", "0", 0, -5, "1e3", "256 mega", "nan", 1.5, True, None):
        with pytest.raises(ValueError, match="an amount of memory"):
            parse_bytes(wrong)  # type: ignore[arg-type]
    assert [bytes_text(n) for n in (999, 1000, 1_234_567, 5 * 10**12)] == ["999 B", "1.0 kB", "1.3 MB", "5.0 TB"]


def test_a_memory_limit_is_obeyed_or_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="an amount of memory is written like 256MB"):
        parc.compile(model, memory="lots")
    compiled = parc.compile(model, R(3, 5), training=True, memory="8kB")
    same_gradients(compiled, model, R(10, 5))
    with pytest.raises(parc.CallError, match=r"a training step at B=4000 takes at least \S+ kB") as error:
        compiled(R(4000, 5))
    with torch.no_grad():
        compiled(R(4000, 5))
    least = re.search(r"at least (\S+ kB)", str(error.value))
    assert least is not None
    with pytest.raises(parc.CompileError, match="a training step at B=4000"):
        parc.compile(model, R(4000, 5), training=True, memory="8kB")
    same_gradients(parc.compile(model, R(4000, 5), training=True, memory=least[1]), model, R(4000, 5))


def test_reports_tell_the_memory_of_a_step() -> None:
    # A module of its own: its report is on the step that was compiled last.
    model = Recurrence()
    compiled = parc.compile(model, R(6, 3, 8), threads=2, training=True)
    x = R(50, 3, 8)
    call, step = compiled.memory(x), compiled.explain({"T": 50, "B": 3}).memory.step
    assert (step.plan, step.why) == ("full save", "there is no limit")
    assert (step.need.saved, step.need.working, step.gradients) == (call.saved, call.arena, call.gradients)
    assert sum(array.bytes for array in step.saved) == call.saved
    assert any(array.type.startswith("float32[T") for array in step.saved)
    uncompiled = parc.explain(model, x, threads=2, training=True).memory.step
    assert (uncompiled.saved, uncompiled.recomputed, uncompiled.need) == (step.saved, step.recomputed, step.need)
    text = str(compiled.explain({"T": 50, "B": 3}))
    assert "=== Memory of a training step, numbers at T=50, B=3 ===" in text
    assert "Computed again" in text and "Plan      full save: there is no limit" in text
    (line,) = (line for line in str(parc.explain(model, x)).splitlines() if line.startswith("Memory"))
    assert "of results" in line


def test_reports_tell_the_plan_and_why() -> None:
    model, x = nn.GRU(4, 6), R(200, 2, 4)
    whole = parc.compile(model, x, training=True, threads=1).explain().memory.step
    limited = parc.compile(model, x, training=True, threads=1, memory=whole.need.total * 2 // 3)
    step = limited.explain().memory.step
    assert re.fullmatch(r"chunks of \d+ steps", step.plan)
    assert step.why.startswith(f"a full save takes {bytes_text(whole.need.total)}, the limit is")
    assert "states cannot be computed backwards" in step.why
    assert step.need.total == limited.memory(x).saved + limited.memory(x).arena
    assert (step.results, step.gradients) == (whole.results, whole.gradients)
    assert any(array.name == "between chunks" for array in step.saved)
    assert "the forward pass of each chunk" in step.recomputed
    refused = limited.explain({"T": 10**7}).memory.step
    assert refused.plan == "refused" and "takes at least" in refused.why


# Files.

SCALED = """
#vector = affine_map<(d) -> (d)>
module attributes {parc.symbols = ["N"]} {
  func.func @main(%x: tensor<?xf32> {parc.name = "x", parc.shape = affine_map<()[N] -> (N)>},
                  %i: tensor<?xi64> {parc.name = "i", parc.shape = affine_map<()[N] -> (N)>},
                  %w: tensor<1xf32> {parc.kind = "parameter", parc.name = "w"}) -> tensor<?xf32> {
    %c0 = arith.constant 0 : index
    %n = tensor.dim %x, %c0 : tensor<?xf32>
    %e = tensor.empty(%n) : tensor<?xf32>
    %y = linalg.generic {
        indexing_maps = [#vector, #vector, affine_map<(d) -> (0)>, #vector], iterator_types = ["parallel"]
    } ins(%x, %i, %w : tensor<?xf32>, tensor<?xi64>, tensor<1xf32>) outs(%e : tensor<?xf32>) {
    ^bb0(%a: f32, %b: i64, %c: f32, %d: f32):
      %f = arith.sitofp %b : i64 to f32
      %p = arith.mulf %a, %c : f32
      %q = arith.mulf %p, %f : f32
      linalg.yield %q : f32
    } -> tensor<?xf32>
    return %y : tensor<?xf32>
  }
}
"""


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    path = tmp_path / "scaled.mlir"
    path.write_text(SCALED)
    return path


def test_parameters_of_files_train(scaled: Path) -> None:
    compiled = parc.compile(scaled)
    compiled.load_state_dict({"w": torch.tensor([3.0])})
    (weight,) = compiled.buffers()
    weight.requires_grad_()
    x, i = wanting(4), torch.arange(4)
    compiled(x, i).sum().backward()
    assert_close(x.grad, 3.0 * i)
    assert_close(weight.grad, (x.detach() * i).sum()[None])


def test_both_programs_are_printed(scaled: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(scaled), "--emit=adjoint", "--wrt=x"]) == 0
    text = capsys.readouterr().out
    backward = text[text.index("func.func @backward") :]
    assert '-> (tensor<?xf32> {parc.name = "x"' in backward
    (tmp_path / "adjoint.mlir").write_text(text)
    assert main([str(tmp_path / "adjoint.mlir"), "--emit=schedule"]) == 0
    assert main([str(tmp_path / "adjoint.mlir"), "--emit=adjoint"]) == 0
    assert "func.func @backward" in capsys.readouterr().out
    with pytest.raises(parc.CompileError, match="holds both programs of a training step"):
        parc.compile(tmp_path / "adjoint.mlir")


def test_integers_have_no_gradient(scaled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(scaled), "--emit=adjoint", "--wrt=i"]) == 1
    assert "'i' is of type tensor<?xi64>, which has no gradient" in capsys.readouterr().err
    assert main([str(scaled), "--emit=adjoint", "--wrt=y"]) == 1
    assert "there is no argument 'y' to differentiate for" in capsys.readouterr().err


def test_names_that_are_taken(tmp_path: Path) -> None:
    for name, key in (("training", "training_"), ("a.b", "a.b"), ("forward.x", "forward_.x"), ("a..b", "a._.b")):
        path = tmp_path / "named.mlir"
        path.write_text(SCALED.replace('"w"', f'"{name}"'))
        compiled = parc.compile(path)
        assert list(compiled.state_dict()) == [key]
        compiled.load_state_dict({key: torch.tensor([2.0])})
        assert_close(compiled(torch.ones(3), torch.arange(3)), 2.0 * torch.arange(3))
