"""The user's side of iterative solvers: what is asked for, starts and numbers of sweeps, reports."""

import inspect
from pathlib import Path

import pytest
import torch
from random_systems import stack
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc import dialect
from parc.codegen.irtools import find_function
from parc.comparison import compare_results
from parc.errors import UsageError
from parc.importers.imported import Original
from parc.iteration import Iterations
from parc.iteration_state import IterationState
from parc.parameters import Parameters
from parc.passes.iterate import Iterate
from parc.passes.schedule import ScheduleSystem
from parc.pipelines import run_pipeline, stage_steps
from parc.poly.schedules import ITERATIVE
from parc.read_module import read_signature
from parc.report import explain_module, schedule_comment
from parc.signature import Iterated, Signature, TensorType
from parc.tools.opt import main

# h[t + 1] = tanh(x[t] + h[t] U) by Jacobi sweeps; those of sweep k leave out the first k steps, which are final.
SWEEPS = """
module attributes {parc.symbols = ["T", "B"]} {
func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, %B: index {parc.kind = "symbol", parc.name = "B"},
    %x: tensor<?x?x8xf32> {parc.name = "x", parc.shape = affine_map<()[T, B] -> (T, B, 8)>},
    %start: tensor<?x?x8xf32> {parc.kind = "start", parc.name = "cell.H",
        parc.shape = affine_map<()[T, B] -> (T + 1, B, 8)>},
    %U: tensor<8x8xf32> {parc.kind = "parameter", parc.name = "U"})
    -> (tensor<?x?x8xf32> {parc.name = "y", parc.shape = affine_map<()[T, B] -> (T + 1, B, 8)>},
        tensor<?x?x8xf32> {parc.kind = "solution", parc.name = "cell.H",
        parc.shape = affine_map<()[T, B] -> (T + 1, B, 8)>}) {
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty(%B) : tensor<?x8xf32>
  %h0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<?x8xf32>) -> tensor<?x8xf32>
  %e1 = tensor.empty() : tensor<f32>
  %none = linalg.fill ins(%zero : f32) outs(%e1 : tensor<f32>) -> tensor<f32>
  %bound = arith.addi %T, %c1 : index
  %c200 = arith.constant 200 : index
  %limit = arith.minsi %bound, %c200 : index
  %s = "parc.iterate"(%limit) ({
  ^bb0(%k: index):
    %old = "parc.previous"(%start) {name = "H"} : (tensor<?x?x8xf32>) -> tensor<?x?x8xf32>
    %sys = "parc.system"(%T, %B, %k) ({
      %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B, k] -> (T + 1, B, 8)>} : () -> tensor<?x?x8xf32>
      "parc.boundary"(%h, %h0) {domain = affine_set<()[T, B, k] : (0 == 0)>, to = affine_map<()[T, B, k] -> (0)>,
          of = affine_map<()[T, B, k] -> ()>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
      "parc.equation"() ({
      ^bb0(%t: index):
        %final = "parc.read"(%old) {at = affine_map<(t)[T, B, k] -> (t + 1)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        "parc.write"(%final, %h) {at = affine_map<(t)[T, B, k] -> (t + 1)>}
          : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      }) {name = "kept", domain = affine_set<(t)[T, B, k] : (t >= 0, T - 1 - t >= 0, k - 2 - t >= 0)>} : () -> ()
      "parc.equation"() ({
      ^bb0(%t: index):
        %xt = "parc.read"(%x) {at = affine_map<(t)[T, B, k] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %ht = "parc.read"(%old) {at = affine_map<(t)[T, B, k] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %e = tensor.empty(%B) : tensor<?x8xf32>
        %p = linalg.matmul ins(%ht, %U : tensor<?x8xf32>, tensor<8x8xf32>)
          outs(%xt : tensor<?x8xf32>) -> tensor<?x8xf32>
        %n = linalg.tanh ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
        "parc.write"(%n, %h) {at = affine_map<(t)[T, B, k] -> (t + 1)>} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      }) {name = "cell", domain = affine_set<(t)[T, B, k] : (t >= 0, T - 1 - t >= 0, t - k + 1 >= 0)>} : () -> ()
    }) {symbols = ["T", "B", "k"]} : (index, index, index) -> !parc.solution
    %new = "parc.array"(%sys) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
    %largest = linalg.generic {indexing_maps = [affine_map<(a, b, c) -> (a, b, c)>, affine_map<(a, b, c) -> (a, b, c)>,
        affine_map<(a, b, c) -> ()>], iterator_types = ["reduction", "reduction", "reduction"]}
        ins(%new, %old : tensor<?x?x8xf32>, tensor<?x?x8xf32>) outs(%none : tensor<f32>) {
    ^bb0(%a: f32, %b: f32, %m: f32):
      %d = arith.subf %a, %b : f32
      %f = math.absf %d : f32
      %g = arith.maximumf %m, %f : f32
      linalg.yield %g : f32
    } -> tensor<f32>
    %change = tensor.extract %largest[] : tensor<f32>
    "parc.next"(%new) {name = "H"} : (tensor<?x?x8xf32>) -> ()
    "parc.change"(%change) : (f32) -> ()
  }, {
    %exact = "parc.system"(%T, %B) ({
      %h = "parc.unknown"() {name = "H", shape = affine_map<()[T, B] -> (T + 1, B, 8)>} : () -> tensor<?x?x8xf32>
      "parc.boundary"(%h, %h0) {domain = affine_set<()[T, B] : (0 == 0)>, to = affine_map<()[T, B] -> (0)>,
          of = affine_map<()[T, B] -> ()>} : (tensor<?x?x8xf32>, tensor<?x8xf32>) -> ()
      "parc.equation"() ({
      ^bb0(%t: index):
        %xt = "parc.read"(%x) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %ht = "parc.read"(%h) {at = affine_map<(t)[T, B] -> (t)>} : (tensor<?x?x8xf32>) -> tensor<?x8xf32>
        %e = tensor.empty(%B) : tensor<?x8xf32>
        %p = linalg.matmul ins(%ht, %U : tensor<?x8xf32>, tensor<8x8xf32>)
          outs(%xt : tensor<?x8xf32>) -> tensor<?x8xf32>
        %n = linalg.tanh ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
        "parc.write"(%n, %h) {at = affine_map<(t)[T, B] -> (t + 1)>} : (tensor<?x8xf32>, tensor<?x?x8xf32>) -> ()
      }) {name = "step", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
    }) {symbols = ["T", "B"]} : (index, index) -> !parc.solution
    %all = "parc.array"(%exact) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
    "parc.next"(%all) {name = "H"} : (tensor<?x?x8xf32>) -> ()
  }) {name = "cell", solver = "jacobi", tolerance = 1.0e-6 : f64, symbols = ["T", "B"],
      bound = affine_map<()[T, B] -> (T + 1)>, arrays = ["H"], start = "previous", why = "it was asked for"}
      : (index) -> !parc.solution
  %H = "parc.iterated"(%s) {name = "H"} : (!parc.solution) -> tensor<?x?x8xf32>
  return %H, %H : tensor<?x?x8xf32>, tensor<?x?x8xf32>
}
}
"""


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def scheduled() -> ir.Module:
    module = parse(SWEEPS)
    run_pipeline(module, stage_steps("schedule", threads=1))
    return module


# -- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": -1e-6}, "tolerance, the largest change that counts as none, is not negative"),
        ({"tolerance": float("nan")}, "tolerance is a finite number"),
        ({"tolerance": "small"}, "tolerance is a finite number, not 'small'"),
        ({"block": -1}, "block is a whole number, 0 to have it chosen"),
        ({"limit": 1.5}, "limit is a whole number"),
        ({"start": "ones"}, "start is 'zeros' or 'previous', not 'ones'"),
        ({"damping": 1.0}, "damping is from 0 to below 1"),
        ({"damping": float("inf")}, "damping is a finite number"),
    ],
)
def test_an_iteration_that_makes_no_sense_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parc.Iteration(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["layers", "scan"])
def test_direct_strategies_take_no_iteration(strategy: str) -> None:
    for function in (parc.compile, parc.explain):
        with pytest.raises(ValueError, match=f"the strategy '{strategy}' makes no sweeps"):
            function(nn.Linear(2, 2), torch.zeros(1, 2), strategy=strategy, iteration=parc.Iteration())


def test_compile_and_explain_take_the_same_choices() -> None:
    compiled, explained = (inspect.signature(f).parameters for f in (parc.compile, parc.explain))
    assert set(explained) - set(compiled) == {"sizes"}
    assert set(compiled) - set(explained) == {"memory", "launches"}


def asked(strategy: str, iteration: parc.Iteration | None = None) -> Iterate:
    step = stage_steps("schedule", strategy=strategy, iteration=iteration, threads=3, sizes={"T": 7})[0]
    assert isinstance(step, Iterate)
    return step


def test_the_pass_gets_what_was_asked_for() -> None:
    step = asked("jacobi-gs", parc.Iteration(tolerance=1e-3, block=4, limit=9, start="previous", damping=0.25))
    assert (step.solver, step.tolerance, step.block, step.limit) == ("jacobi-gs", 1e-3, 4, 9)
    assert (step.start, step.damping, step.threads, step.sizes) == ("previous", 0.25, 3, "T=7")
    assert asked("newton").tolerance == parc.Iteration().tolerance


def test_auto_is_exact_unless_an_iteration_is_given() -> None:
    assert asked("auto").tolerance == 0
    assert asked("auto", parc.Iteration()).tolerance == parc.Iteration().tolerance


@pytest.mark.parametrize("strategy", ITERATIVE)
def test_what_sweeps_is_scheduled_as_any_other_system(strategy: str) -> None:
    modules = parse(stack(2).text()), parse(stack(2).text())
    ScheduleSystem(strategy=strategy, threads=2).run(modules[0])
    ScheduleSystem(threads=2).run(modules[1])
    assert str(modules[0]) == str(modules[1])


# -- the command line ------------------------------------------------------------------------------------------------


def test_flags_of_iterations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.mlir"
    path.write_text("module {}")
    flags = ["--tolerance=1e-3", "--block=2", "--limit=5", "--start=previous", "--damping=0.5"]
    assert main([str(path), "--emit=schedule", "--strategy=jacobi", *flags]) == 0
    assert main([str(path), "--emit=schedule", *flags]) == 0
    for wrong, message in (
        (["--strategy=layers", "--limit=5"], "--limit: the strategy 'layers' makes no sweeps"),
        (["--strategy=jacobi", "--tolerance=-1"], "--tolerance, the largest change that counts as none"),
        (["--damping=1"], "--damping is from 0 to below 1"),
    ):
        assert main([str(path), *wrong]) == 2
        assert message in capsys.readouterr().err


def test_an_option_of_a_pass_may_be_a_number() -> None:
    assert Iterate.from_text("tolerance=1e-4") == Iterate(tolerance=1e-4)
    with pytest.raises(UsageError, match="option tolerance takes a number, not 'small'"):
        Iterate.from_text("tolerance=small")


# -- starts and numbers of sweeps ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> parc.Module:
    path = tmp_path_factory.mktemp("iteration") / "sweeps.mlir"
    path.write_text(str(scheduled()))
    compiled = parc.compile(path, threads=1)
    torch.manual_seed(1)
    compiled.load_state_dict({"U": torch.randn(8, 8) / 6})
    return compiled


def recurrence(x: Tensor, weights: Tensor) -> Tensor:
    states = [torch.zeros(x.shape[1], 8)]
    for xt in x:
        states.append(torch.tanh(xt + states[-1] @ weights))
    return torch.stack(states)


def sweeps(module: parc.Module | parc.LoadedModule) -> int:
    (found,) = module.iterations.values()
    return found.sweeps


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (1, 1), (3, 0), (40, 3)])
def test_sweeps_end_with_the_states(swept: parc.Module, steps: int, batch: int) -> None:
    swept.start_from(None)
    x = torch.randn(steps, batch, 8)
    y = swept(x)
    torch.testing.assert_close(y, recurrence(x, swept.state_dict()["U"]), rtol=1e-5, atol=1e-5)
    assert swept.iterations.keys() == {"cell"}
    last = swept.iterations["cell"]
    assert last.sweeps <= steps + 1 and last.solver == "jacobi" and last.tolerance == 1e-6 and last.converged


def test_a_call_starts_from_the_last_one_of_its_sizes(swept: parc.Module) -> None:
    swept.start_from(None)
    x, other = torch.randn(40, 2, 8), torch.randn(30, 2, 8)
    y, first = swept(x), sweeps(swept)
    swept(x)
    assert 1 == sweeps(swept) < first
    near = x + 1e-4 * torch.randn_like(x)
    torch.testing.assert_close(swept(near), recurrence(near, swept.state_dict()["U"]), rtol=1e-5, atol=1e-5)
    assert 1 < sweeps(swept) < first
    swept(other)
    assert sweeps(swept) > 1
    swept.start_from(None)
    torch.testing.assert_close(swept(x), y, rtol=0, atol=0)
    assert sweeps(swept) == first


def test_a_call_starts_from_a_guess_once(swept: parc.Module) -> None:
    swept.start_from(None)
    x = torch.randn(40, 2, 8)
    guess = recurrence(x, swept.state_dict()["U"]).requires_grad_()
    before = guess.detach().clone()
    swept.start_from({"cell.H": guess})
    y = swept(x)
    assert sweeps(swept) <= 2
    swept.start_from({"cell.H": torch.randn(2, 41, 8).transpose(0, 1)})
    torch.testing.assert_close(swept(x), y, rtol=1e-5, atol=1e-5)
    assert sweeps(swept) > 2
    swept(x)
    assert sweeps(swept) == 1
    assert torch.equal(guess, before)


def test_numbers_that_are_not_finite_do_not_stay(swept: parc.Module) -> None:
    x = torch.randn(20, 2, 8)
    expected = recurrence(x, swept.state_dict()["U"])
    swept.start_from({"cell.H": torch.full((21, 2, 8), torch.nan)})
    torch.testing.assert_close(swept(x), expected, rtol=1e-5, atol=1e-5)
    broken = x.clone()
    broken[3] = torch.nan
    assert swept(broken).isnan().any()
    torch.testing.assert_close(swept(x), expected, rtol=1e-5, atol=1e-5)
    assert swept.iterations["cell"].sweeps < 21


@pytest.mark.parametrize(
    ("guesses", "message"),
    [
        (
            {"cell.h": torch.zeros(6, 2, 8)},
            r"no iteration starts from an array 'cell.h'; those that do are cell.H: float",
        ),
        (
            {"cell.H": torch.zeros(5, 2, 8)},
            r"starting guess 'cell.H' has shape \[5, 2, 8\]; this call takes \[6, 2, 8\]",
        ),
        (
            {"cell.H": torch.zeros(6, 2)},
            r"starting guess 'cell.H' has shape \[6, 2\]; expected float32\[T \+ 1, B, 8\]",
        ),
        ({"cell.H": torch.zeros(6, 2, 8).double()}, "starting guess 'cell.H' has elements of type float64"),
        ({"cell.H": 0}, "starting guess 'cell.H' is int"),
    ],
)
def test_a_guess_that_does_not_fit_is_refused(swept: parc.Module, guesses: dict[str, Tensor], message: str) -> None:
    swept.start_from(guesses)
    with pytest.raises(parc.CallError, match=message):
        swept(torch.zeros(5, 2, 8))
    swept.start_from(None)
    swept(torch.zeros(5, 2, 8))


def test_a_saved_program_iterates(swept: parc.Module, tmp_path: Path) -> None:
    swept.save(tmp_path / "model.parc")
    loaded = parc.load(tmp_path / "model.parc", threads=1)
    assert loaded.iterations == {}
    x = torch.randn(40, 2, 8)
    swept.start_from(None)
    with torch.no_grad():
        assert torch.equal(loaded(x), swept(x))
        assert loaded.iterations == swept.iterations
        loaded(x)
        assert sweeps(loaded) == 1
        loaded.start_from({"other": x})
        with pytest.raises(parc.CallError, match="no iteration starts from an array 'other'"):
            loaded(x)


def test_memory_counts_starts_and_solutions(swept: parc.Module) -> None:
    memory = swept.memory(torch.zeros(5, 2, 8))
    states, x = 6 * 2 * 8 * 4, 5 * 2 * 8 * 4
    assert (memory.inputs, memory.results) == (x + states, 2 * states)


def test_programs_of_a_training_step_iterate() -> None:
    torch.manual_seed(2)
    model, x = nn.RNN(8, 8), torch.randn(30, 2, 8, requires_grad=True)
    compiled = parc.compile(model, x, strategy="jacobi", iteration=parc.Iteration(start="previous"), training=True)
    assert compiled.iterations == {}
    (expected,) = torch.autograd.grad(model(x)[0].sum(), x)
    numbers = []
    for _ in range(2):
        (gradient,) = torch.autograd.grad(compiled(x)[0].sum(), x)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        numbers.append({name: found.sweeps for name, found in compiled.iterations.items()})
    cold, warm = numbers
    assert len(cold) == 2 and cold.keys() == warm.keys()
    assert all(warm[name] == 1 < cold[name] for name in cold)
    report = compiled.explain()
    assert str(report).count("Last call  1 sweep of jacobi") == 2
    assert len(report.iterations) == 1 and report.backward is not None and len(report.backward.iterations) == 1


def test_only_programs_that_start_from_the_last_call_take_guesses() -> None:
    state = IterationState()
    state.guess({"cell.H": torch.zeros(2)})
    with pytest.raises(parc.CallError, match="compiled with parc.Iteration"):
        state.starts(Signature((), (), (), (), ()), (), torch.device("cpu"))


def test_solutions_of_integers_are_kept_as_they_are() -> None:
    type_ = TensorType("cell.H", torch.int64, ())
    signature = Signature((), (), (), (), (), (type_,), (type_,), (Iterated("cell"),))
    state = IterationState()
    state.add(signature)
    state.keep(signature, [torch.tensor(7)], [torch.tensor(3), torch.tensor(0.0, dtype=torch.float64)])
    assert state.starts(signature, (), torch.device("cpu")) == [torch.tensor(7)]
    assert state.last == {"cell": Iterations(3, 0.0)}


def test_numbers_of_sweeps_in_words() -> None:
    assert str(Iterations(12, 3e-7, "jacobi", 1e-6)) == (
        "12 sweeps of jacobi, last change 3e-07 (within the tolerance of 1e-06)"
    )
    text = str(Iterations(1, float("nan"), "newton", 1e-6))
    assert text.endswith("exact: it ended at its bound, or was computed step by step)")
    assert Iterations(3, 1.0).converged is None


def test_results_that_are_kept_come_last() -> None:
    module = parse("""
    func.func @main() -> (tensor<i64> {parc.kind = "statistic", parc.name = "cell.sweeps"}, tensor<f32>) {
      %n = arith.constant dense<1> : tensor<i64>
      %y = arith.constant dense<1.0> : tensor<f32>
      return %n, %y : tensor<i64>, tensor<f32>
    }""")
    main_function = find_function(module, "main")
    assert main_function is not None
    with module.context, pytest.raises(parc.CompileError, match="statistics behind solutions"):
        read_signature(main_function, {}, frozenset())


# -- reports ---------------------------------------------------------------------------------------------------------


def test_a_report_says_what_is_solved_by_sweeps() -> None:
    report = explain_module(scheduled(), {"T": 500, "B": 4})
    (iteration,) = report.iterations
    assert (iteration.name, iteration.solver, iteration.arrays) == ("cell", "jacobi", ("cell.H",))
    assert (iteration.bound, iteration.limit, iteration.start) == (501, 200, "previous")
    assert (iteration.waves, iteration.tolerance, iteration.has_exact) == (1, 1e-6, True)
    assert iteration.why == "it was asked for"
    sweep, exact = report.systems
    assert "a sweep of cell" in str(sweep) and "where its sweeps do not converge" in str(exact)
    assert (sweep.sizes["k"], sweep.waves, exact.waves) == (0, 1, 500)
    assert report.multiply_adds == 500 * 4 * 64, "one sweep, and not what comes where it does not converge"
    text = str(report)
    assert "Iteration cell: jacobi, over cell.H" in text
    assert "Bound      T + 1 = 501 sweeps" in text
    assert "Limit      200 sweeps, where that is less; what has not converged by then is computed step by step" in text
    assert "it was asked for" in text


def test_a_report_on_a_later_sweep() -> None:
    report = explain_module(scheduled(), {"T": 500, "B": 4, "k": 101})
    assert report.multiply_adds == 400 * 4 * 64
    assert report.to_html()


def test_a_scheduled_module_is_listed_with_its_iterations() -> None:
    assert "// Iteration cell: jacobi, over cell.H\n" in schedule_comment(scheduled())


# -- the comparison with the original --------------------------------------------------------------------------------


class Given:
    """A program that gives one number, with an iteration of this tolerance."""

    def __init__(self, value: float, tolerance: float) -> None:
        self.signature = Signature((), (), (), (), (), (), (), (Iterated("cell", "jacobi", tolerance),))
        self._value = value

    def sizes(self, _: object) -> tuple[int, ...]:
        return ()

    def __call__(self, *_: object) -> list[Tensor]:
        return [torch.tensor(self._value)]


def test_results_within_a_tolerance_are_compared_with_room_for_it() -> None:
    original = Original(run=lambda _: [torch.tensor(1.0)], inputs=lambda _: [], sizes=({},))
    compare_results(Given(1.01, 1e-3), Parameters((), {}, None), original)  # type: ignore[arg-type]
    for value, tolerance in ((1.01, 1e-6), (2.0, 1e-3)):
        with pytest.raises(parc.CompileError, match=f"its iterations need a smaller tolerance than {tolerance:g}"):
            compare_results(Given(value, tolerance), Parameters((), {}, None), original)  # type: ignore[arg-type]
