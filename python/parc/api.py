"""`parc.compile` and `parc.explain`: from a model to something that can be called, or to a report about it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch_mlir import ir

from parc.compiler import Compiler, Options
from parc.iteration import Iteration
from parc.memory import parse_bytes
from parc.memory_report import MemoryReport, sizes_of, step_memory
from parc.module import Model, Module, Source
from parc.pipelines import stage_of
from parc.poly.schedules import ITERATIVE, STRATEGIES
from parc.report import Report, explain_module, explain_training
from parc.target import Target

Example = Sequence[object] | Tensor | None


def compile(
    model: Model | Module,
    example_inputs: Example = None,
    *,
    example_kwargs: Mapping[str, object] | None = None,
    target: str = "cpu",
    threads: int | None = None,
    strategy: str = "auto",
    iteration: Iteration | None = None,
    dynamic_shapes: object = None,
    training: bool = False,
    memory: int | str | None = None,
    launches: str = "once",
) -> Module:
    """Compile a model; the result is called as the model is.

    model: an nn.Module, a function of tensors, an ExportedProgram, or the path of an `.onnx`, `.pt2`, `.mlir` or
        `.mlirbc` file, or `file.py:function`.
    example_inputs, example_kwargs: the arguments of one call (a tensor alone is the only argument).  What matters are
        structure, element types, shapes, and the range of integers.  None compiles at the first call, from its
        arguments; model files need none.
    target: "cpu"; "cuda" for the GPU that torch uses, whose tensors the program then takes; "cuda:sm_90" for any GPU
        of that architecture, to be saved where there is none; "cuda-emulated" runs a GPU's program step by step on the
        CPU, on CPU tensors, and checks each memory access (docs/gpu.md).
    threads: None for as many as this process may use; of GPUs thread blocks, None for one to a multiprocessor.
    strategy: "auto" lets the cost model choose; or one of `parc.poly.schedules.STRATEGIES`.
    iteration: how strategies that iterate sweep, and how far their results may be from exact ones; it permits "auto" to
        choose one of these.  None is `Iteration()` for an iterative strategy, and exact results for "auto".
    dynamic_shapes: as for torch.export, where a string also names a dimension; None finds by trial which dimensions
        may vary from call to call.
    training: compile at once what a training step needs, for the parameters and example inputs that require a
        gradient; otherwise the first backward pass does.
    memory: what a training step may take, such as "256MB" or a number of bytes; a step that needs more goes through
        the sequence in chunks, whose states are kept or, in reversible cells, computed backwards; or it is refused
        with the least number that would do.
    launches: of a program for a GPU: "once" is one kernel, whose thread blocks wait for each other and keep weights;
        "waves" is one for all that is between two waits, for GPUs that cannot hold all blocks at once.

    The schedule is chosen for the sizes of the example, and right for all.  Raises `CompileError` for what cannot be
    compiled, `DeviceError` for a GPU that is not there; calls raise `CallError` for arguments that do not fit.
    """
    limit = None if memory is None else parse_bytes(memory)
    options = _options(strategy, iteration, threads, target, launches)
    module = Module(Source.of(model, dynamic_shapes), options, limit)
    arguments = _arguments(example_inputs)
    if example_inputs is not None or example_kwargs is not None or isinstance(model, str | os.PathLike):
        module.build(arguments, example_kwargs or {}, training=training)
    elif training:
        raise ValueError("training=True takes example inputs: without them, the first call and backward pass compile")
    return module


def explain(
    model: Model | Module,
    example_inputs: Example = None,
    *,
    example_kwargs: Mapping[str, object] | None = None,
    target: str = "cpu",
    threads: int | None = None,
    strategy: str = "auto",
    iteration: Iteration | None = None,
    dynamic_shapes: object = None,
    training: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> Report:
    """Report on a model's equations, dependences and schedule, without making code; arguments as for `compile`.

    training: report on the two programs of a training step for every floating-point argument.  A compiled module's
        report has them, whatever is asked for here, once a step has been compiled.
    sizes: values of the symbols that the report's numbers are for, such as `{"T": 128}`.
    """
    if isinstance(model, Module):
        return model.explain(sizes)
    source = Source.of(model, dynamic_shapes)
    imported = source.load(_arguments(example_inputs), example_kwargs or {}, ir.Context())
    compiler = Compiler(imported, _options(strategy, iteration, threads, target), source.name)
    if training:
        forward, backward = (compiler.schedule(program) for program in compiler.adjoint())
        return _with_step(explain_training(forward, backward, sizes), (forward, backward), compiler, sizes)
    module = compiler.schedule()
    report = explain_module(module, sizes)
    if stage_of(module) in ("loops", "llvm"):
        return report
    program = compiler.planned(module)
    at = sizes_of(program.signature, sizes or {}, report.sizes, compiler.sizes)
    return replace(report, memory=MemoryReport(at, program.memory(tuple(at.values()))))


def _with_step(
    report: Report, modules: tuple[ir.Module, ir.Module], compiler: Compiler, sizes: Mapping[str, int] | None
) -> Report:
    """The report with what a training step takes."""
    forward, backward = compiler.planned(modules[0]), compiler.planned(modules[1], sizes_given=True)
    at = sizes_of(forward.signature, sizes or {}, report.sizes, compiler.sizes)
    symbols = tuple(at.values())
    step = step_memory(forward, backward, modules, symbols, "there is no limit")
    return replace(report, memory=MemoryReport(at, forward.memory(symbols), step))


def _arguments(example: Example) -> tuple[object, ...]:
    """The example's positional arguments: a tensor, or anything else that is no tuple or list, is the only one."""
    if example is None:
        return ()
    return tuple(example) if isinstance(example, tuple | list) else (example,)


def _options(
    strategy: str, iteration: Iteration | None, threads: int | None, target: str, launches: str = "once"
) -> Options:
    if strategy not in ("auto", *STRATEGIES):
        raise ValueError(f"there is no strategy '{strategy}'; choose from auto, {', '.join(STRATEGIES)}")
    if iteration is not None and strategy not in ("auto", *ITERATIVE):
        raise ValueError(f"iteration= is for auto, {', '.join(ITERATIVE)}: the strategy '{strategy}' makes no sweeps")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is at least 1, not {threads}")
    if launches not in ("once", "waves"):
        raise ValueError(f"launches is 'once' or 'waves', not '{launches}'")
    if launches == "waves" and target == "cpu":
        raise ValueError("launches='waves' is for programs of GPUs: the target is cpu")
    return Options(strategy, iteration, threads or 0, Target.parse(target), launches)
