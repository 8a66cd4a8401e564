"""The one table of passes and pipelines; `parc.compile`, `parc-opt` and the documentation read it.

A pipeline is an ordered list of steps.  A step is written as in MLIR's textual pass pipelines:

    canonicalize                          an upstream pass
    func.func(canonicalize,cse)           upstream passes, nested
    schedule{strategy=wavefront}          one of parc's passes (`parc.passes`), with options
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from string import Template

from torch_mlir import ir
from torch_mlir.passmanager import ExternalPass, PassManager

import parc.passes
from parc.errors import CompileError, UsageError
from parc.iteration import Iteration
from parc.passbase import Pass

# Stage -> steps, in the order that data takes. `$strategy`, `$threads` and so on are the caller's choices.
PIPELINES: dict[str, tuple[str, ...]] = {
    "system": (
        "instantiate-sizes",
        "unroll-loops",
        "flatten-products",
        "canonicalize",
        "cse",
        "sink-slices",
        "canonicalize",
        "cse",
        "stack-slices",
        "linalg-fold-unit-extent-dims",
        "canonicalize",
        "cse",
        "raise-recurrence",
        "raise-pixels",
        "raise-products",
        "canonicalize",
        "cse",
        "close-iteration",
    ),
    "adjoint": (
        "split-products{inputs=$inputs}",
        "canonicalize",
        "cse",
        "adjoint{wrt=$wrt}",
        "canonicalize",
        "cse",
        "raise-products",
        "canonicalize",
        "cse",
    ),
    "schedule": (
        "iterate{solver=$strategy tolerance=$tolerance block=$block limit=$limit start=$start damping=$damping "
        "threads=$threads sizes=$sizes target=$target}",
        "iterate-layers{solver=$strategy tolerance=$tolerance block=$block limit=$limit start=$start}",
        "split-products{inputs=$inputs}",
        "fold-slices",
        "canonicalize",
        "cse",
        "solve-affine{solver=$strategy threads=$threads sizes=$sizes target=$target}",
        "canonicalize",
        "cse",
        "schedule{strategy=$strategy threads=$threads sizes=$sizes target=$target}",
        "contract-arrays",
    ),
    "loops": (
        "lower-to-loops{target=$target blocks=$blocks precision=$precision form=$form}",
        "lower-iterations",
        "name-sizes",
        "hoist-parameters",
    ),
    "llvm": (
        "name-contractions",
        "linalg-fuse-elementwise-ops",
        "bufferize",
        "lower-reductions",
        "plan-buffers",
        "lower-asserts",
        "lower-linalg",
        "distribute-team",
        "lower-to-llvm",
    ),
    "gpu": (
        "name-contractions",
        "linalg-fuse-elementwise-ops",
        "bufferize",
        "lower-reductions{target=$target}",
        "plan-buffers{target=$target blocks=$blocks}",
        "lower-asserts",
        "lower-linalg{target=$target}",
        "distribute-grid{target=$target blocks=$blocks form=$form}",
        "canonicalize",
        "cse",
    ),
    "host": (
        "lower-launches",
        "lower-to-llvm",
    ),
    "emulation": (
        "lower-launches{keep_kernels=true}",
        "emulate-gpu",
        "lower-to-llvm",
    ),
}

# The stage before each, where that is not the one in the line above.
_BEFORE = {"schedule": "system", "gpu": "loops", "emulation": "gpu"}

# Short names for passes, or for a pass with some of its options.
ALIASES: dict[str, str] = {
    "raise": "raise-recurrence",
    "wavefront": "schedule{strategy=wavefront}",
}

Step = Pass | str
"""One of parc's passes, or the text of upstream ones."""


@cache
def pass_names() -> tuple[str, ...]:
    """The command-line names of parc's passes: `lower-to-loops` lives in `passes/lower_to_loops.py`."""
    return tuple(sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(parc.passes.__path__)))


def pass_type(name: str) -> type[Pass]:
    """The pass of this name; its file is imported only now, so that a pipeline pays for what it uses."""
    module = importlib.import_module("parc.passes." + name.replace("-", "_"))
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Pass) and value.__module__ == module.__name__:
            return value
    raise ImportError(f"{module.__name__} defines no pass")


def is_ours(name: str) -> bool:
    """Whether this is the name of one of parc's passes, or a short name of one."""
    return name in ALIASES or name in pass_names()


def own_pass(name: str, options: str = "") -> Pass:
    """One of parc's passes, by its name or a short one; UsageError for an option that it does not have."""
    name, _, given = ALIASES.get(name, name).partition("{")
    return pass_type(name).from_text(f"{given.removesuffix('}')} {options}")


def stages_after(done: str | None, last: str) -> list[str]:
    """The stages of `PIPELINES` after `done` (None: from the first) up to and including `last`; none if it is done."""
    route = _route(last, done)
    if done is None:
        return route
    return route[route.index(done) + 1 :] if done in route else []


def _route(last: str, through: str | None = None) -> list[str]:
    """The stages to `last`; to those after "schedule" also by way of the adjoint programs."""
    if last not in PIPELINES:
        return []
    names = list(PIPELINES)
    before = names[names.index(last) - 1] if last != names[0] else None
    before = _BEFORE.get(last, before)
    if last == "schedule" and through == "adjoint":
        before = through
    return [last] if before is None else [*_route(before, through), last]


def is_past(done: str | None, stage: str) -> bool:
    """Whether what is at the stage `done` (None: before the first) has gone past `stage`."""
    names = list(PIPELINES)
    return done in names and stage in names and names.index(done) > names.index(stage) and not stages_after(done, stage)


def stage_of(module: ir.Module) -> str | None:
    """The stage whose form the module has, so that a compile can start from any stage's text; None before the first."""
    names, functions, scheduled = set(), set(), []

    def visit(op: ir.Operation) -> ir.WalkResult:
        names.add(op.name)
        if op.name == "func.func":
            functions.add(ir.StringAttr(op.attributes["sym_name"]).value)
        if op.name == "parc.equation":
            scheduled.append("schedule" in op.attributes)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if (scheduled or "parc.iterate" in names) and all(scheduled):
        return "schedule"
    if "parc.team" in names:
        return "loops"
    if "gpu.module" in names:
        return "gpu"
    if "backward" in functions:
        return "adjoint"
    if "parc.system" in names:
        return "system"
    return "llvm" if "llvm.func" in names and "func.func" not in names else None


def stage_steps(
    stage: str,
    *,
    strategy: str = "auto",
    iteration: Iteration | None = None,
    threads: int = 0,
    sizes: Mapping[str, int] | None = None,
    wrt: Sequence[str] = (),
    target: str = "cpu",
    precision: str = "f32",
    form: str = "persistent",
) -> list[Step]:
    """The steps of one stage.

    `iteration` is how iterative strategies sweep; without one, "auto" chooses none of them.  `threads` (of a GPU:
    blocks) 0 means as many as the machine has; `sizes` are those that a schedule is chosen for (it is right for all);
    `wrt` names the arguments to differentiate by, all of them when empty; `target`, `precision`
    and `form` are those of `codegen/blocks/target.py`.
    """
    text = ",".join(PIPELINES[stage])
    listed = ",".join(f"{name}={size}" for name, size in (sizes or {}).items())
    if iteration is None:
        # A tolerance of 0 allows "auto" no solution that is within a tolerance.
        iteration = Iteration(tolerance=0.0) if strategy == "auto" else Iteration()
    choices = {
        **asdict(iteration),
        "strategy": strategy,
        "threads": threads,
        "sizes": listed,
        "wrt": ",".join(wrt),
        "target": target,
        "blocks": 0 if target == "cpu" else threads,
        "precision": precision,
        "form": form,
        "inputs": str(target == "cpu").lower(),
    }
    text = Template(text).substitute(choices)
    return parse_pipeline(text)


def steps_until(steps: Sequence[Step], last: str) -> list[Step]:
    """The steps up to and including the pass of this name."""
    names = [step.name if isinstance(step, Pass) else step for step in steps]
    return list(steps[: names.index(last) + 1])


def parse_pipeline(text: str) -> list[Step]:
    """The steps of a textual pipeline, with or without `builtin.module(...)` around it; UsageError when malformed.

    Upstream steps are only cut out here; `run_pipeline` checks their names.
    """
    text = text.strip()
    anchor, inside = _split_anchor(text)
    if anchor == "builtin.module":
        text = inside
    return [_parse_step(item) for item in _split_commas(text)]


def run_pipeline(
    module: ir.Module, steps: Sequence[Step], *, print_after_all: bool = False, timing: bool = False
) -> None:
    """Run the steps on `module`, in place; CompileError from the first that fails.

    `print_after_all` prints the IR after every pass and `timing` the time of each, both to stderr.
    A step that names no pass or option is a UsageError, before any step has run.
    """
    failure: list[Exception] = []

    def add_python(manager: PassManager, step: Pass) -> None:
        def run(_op: ir.Operation, handle: ExternalPass) -> None:
            # An exception must not cross the pass manager's C++ frames.
            try:
                step.run(module)
            except Exception as error:  # noqa: BLE001
                failure.append(error)
                handle.signal_pass_failure()

        manager.add(run, name=type(step).__name__, argument=step.name, description=step.summary())

    with module.context:
        manager = PassManager("builtin.module")
        if timing:
            manager.enable_timing()
        if print_after_all:
            manager.enable_ir_printing(print_after_all=True)
        for step in steps:
            if isinstance(step, Pass):
                add_python(manager, step)
            else:
                _add_upstream(manager, step)
        try:
            manager.run(module.operation)
        except ir.MLIRError as error:
            if failure:
                raise failure[0] from None
            raise compile_error(error) from error


def compile_error(error: ir.MLIRError) -> CompileError:
    """MLIR's first diagnostic as a CompileError."""
    for diagnostic in error.error_diagnostics:
        return CompileError(diagnostic.message.strip(), diagnostic_location(diagnostic))
    return CompileError(error.message)


def diagnostic_location(diagnostic: ir.DiagnosticInfo) -> ir.Location:
    """Where a diagnostic points, as an object of the location's own class (the bindings give the base class)."""
    location = diagnostic.location
    return ir.Location.from_attr(location.attr, location.context)


def _add_upstream(manager: PassManager, step: str) -> None:
    try:
        manager.add(step)
    except ValueError as error:
        message = str(error).strip().split("\n", 1)[0].partition("error: ")
        name = step.partition("{")[0]
        near = difflib.get_close_matches(name, [*pass_names(), *ALIASES], n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UsageError(f"in the step '{step}': {message[2] or message[0]}{hint}") from None


def _parse_step(text: str) -> Step:
    name, braces, rest = text.partition("{")
    name = name.strip()
    if is_ours(name):
        if braces and not rest.rstrip().endswith("}"):
            raise UsageError(f"missing '}}' after the options in '{text}'")
        return own_pass(name, rest.rstrip().removesuffix("}"))
    nested = _split_anchor(text)[1]
    for inner in _split_commas(nested):
        if is_ours(inner.partition("{")[0].strip()):
            raise UsageError(f"'{inner}' works on the whole module: take it out of '{text}'")
    return text


def _split_anchor(text: str) -> tuple[str, str]:
    """`anchor(inside)` as its two parts; both empty when the text has another form."""
    name, parenthesis, rest = text.strip().partition("(")
    if not parenthesis or not rest.endswith(")") or not name.replace(".", "_").isidentifier():
        return "", ""
    return name, rest[:-1]


def _split_commas(text: str) -> Iterator[str]:
    """The comma-separated items of a pipeline; commas inside brackets belong to an item."""
    depth, start = 0, 0
    for i, char in enumerate(text):
        if char in "({[":
            depth += 1
        elif char in ")}]":
            depth -= 1
            if depth < 0:
                raise UsageError(f"unbalanced '{char}' in the pipeline '{text}'")
        elif char == "," and depth == 0:
            yield _item(text, start, i)
            start = i + 1
    if depth:
        raise UsageError(f"a bracket is left open in the pipeline '{text}'")
    if text.strip():
        yield _item(text, start, len(text))


def _item(text: str, start: int, end: int) -> str:
    item = text[start:end].strip()
    if not item:
        raise UsageError(f"an empty step in the pipeline '{text}'")
    return item
