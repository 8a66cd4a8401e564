"""Errors planted into compiled programs are caught on the emulator, which names the operation and where it is."""

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from interpreter import evaluate
from test_executable import stack
from torch_mlir import ir
from torch_mlir.dialects import arith, gpu, scf

from parc import dialect
from parc.codegen.blocks.target import is_workgroup
from parc.codegen.irtools import walk
from parc.codegen.loops import index
from parc.errors import EmulationError, source_line
from parc.jit import JitCode
from parc.pipelines import run_pipeline, stage_steps
from parc.read_module import read_facts
from parc.runtime.emulated import EmulatedExecutable
from parc.runtime.emulator import Emulator
from parc.runtime.executable import Buffer

FEATURES, UNITS, BLOCKS = 3, 40, 3
"""So many units that more than one block has some."""
STEPS, BATCH = 6, 3
SEEDS = (0, 1, 2, 3)
OPTIONS = {"target": "emulated", "threads": BLOCKS}
RELAXED = 2
"""LLVM's number of the ordering "monotonic"."""

Array = np.ndarray
Plant = Callable[[ir.Module], ir.OpView | None]
"""Changes a program; returns the operation that is to be named, where it is known which one that is."""


@cache
def outlined(distribute: str, form: str = "persistent") -> str:
    """The program of `stack` at the stage "gpu": all blocks meet after a step ("units"), or crews wait ("points")."""
    module = _parse(stack("wavefront", distribute, FEATURES, UNITS))
    run_pipeline(module, [step for stage in ("loops", "gpu") for step in stage_steps(stage, form=form, **OPTIONS)])
    return str(module)


def _parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


class Emulated:
    """An outlined program, after `plant` has changed it; `named` is the operation that a report has to name."""

    def __init__(self, text: str, plant: Plant | None = None) -> None:
        module = _parse(text)
        self.named = ""
        if plant is not None:
            with module.context, ir.Location.unknown():
                op = plant(module)
                # Locations are lines of the text.
                self.named = f"{op.operation.name} at {source_line(op.location)}" if op is not None else ""
                assert module.operation.verify()
        run_pipeline(module, stage_steps("emulation", **OPTIONS))
        self._code, self._facts = JitCode(module), read_facts(module)

    def run(self, arrays: Sequence[Array], seed: int) -> Array:
        """The result for inputs and parameters; the threads take turns in the order that `seed` stands for."""
        kernels = [(name, self._code.address(name)) for name in self._facts.kernels]
        program = EmulatedExecutable(self._code, self._facts, launcher=Emulator(kernels, self._facts.sites, seed=seed))
        inputs, parameters = ([Buffer.of(a) for a in part] for part in (arrays[:2], arrays[2:]))
        prepared = program.prepare(parameters, 2)
        result = np.full((STEPS + 1, BATCH, UNITS), np.nan, np.float32)
        program.run((STEPS, BATCH), [*inputs, *parameters, *map(Buffer.of, prepared), Buffer.of(result)])
        return result


def _arrays() -> list[Array]:
    random = np.random.default_rng(0)
    shapes = [(STEPS, BATCH, FEATURES), (2, BATCH, UNITS), (FEATURES, UNITS), *[(UNITS, UNITS)] * 3]
    return [random.normal(size=shape).astype(np.float32) / 6 for shape in shapes]


@pytest.mark.parametrize(
    ("distribute", "form"), [("units", "persistent"), ("points", "persistent"), ("units", "waves")]
)
def test_programs_are_right_in_any_order_of_the_threads(distribute: str, form: str) -> None:
    program, arrays = Emulated(outlined(distribute, form)), _arrays()
    (expected,) = evaluate(_parse(stack("wavefront", distribute, FEATURES, UNITS)), [STEPS, BATCH], arrays)
    results = [program.run(arrays, seed) for seed in SEEDS]
    np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=1e-5)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


# -- what is planted -------------------------------------------------------------------------------------------------


def _function(module: ir.Module, name: str) -> ir.OpView:
    """A function of the kernel of @main."""
    (kernels,) = [op for op in walk(module.operation, "gpu.module") if _name(op) == "main_kernel"]
    (found,) = [op for op in walk(kernels, "func.func", "gpu.func") if _name(op) == name]
    return found


def _name(op: ir.OpView) -> str:
    return str(ir.StringAttr(op.operation.attributes["sym_name"]).value)


def _calls(module: ir.Module, callee: str) -> list[ir.OpView]:
    calls = walk(_function(module, "main_kernel"), "func.call")
    return [op for op in calls if ir.FlatSymbolRefAttr(op.operation.attributes["callee"]).value == callee]


def no_grid_barrier(module: ir.Module) -> None:
    """Blocks go on to the next step before the others have done this one."""
    _calls(module, "grid_barrier")[-1].operation.erase()


def no_wait_for_crews(module: ir.Module) -> None:
    """A layer does not wait for the one below."""
    for call in _calls(module, "await"):
        call.operation.erase()


def relaxed_flags(module: ir.Module) -> None:
    """Blocks see that others have come, and nothing of what those have written."""
    relaxed = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), RELAXED)
    for op, ordering in (("llvm.load", "ordering"), ("llvm.atomicrmw", "ordering")):
        (found,) = walk(_function(module, "grid_barrier"), op)
        found.operation.attributes[ordering] = relaxed


def no_barrier(module: ir.Module) -> None:
    """Threads read a block's left factors before all of them are in shared memory."""
    # Two around the copies of the weight, three for a single row; then those for several rows.
    walk(_function(module, "cell0_kernel"), "gpu.barrier")[5].operation.erase()


def store_out_of_bounds(module: ir.Module) -> ir.OpView:
    """The new state goes behind the last element of its array."""
    stores = walk(_function(module, "cell0_kernel"), "memref.store", "vector.store")
    # For a single row, and for several.
    _, store = (op for op in stores if not is_workgroup(op.operation.operands[1].type))
    with ir.InsertionPoint(store):
        store.operation.operands[2] = arith.addi(store.operation.operands[2], index(1 << 20))
    return store


def divergent_barrier(module: ir.Module) -> ir.OpView:
    """One thread of a block waits where the others do not come to."""
    barrier = walk(_function(module, "cell0_kernel"), "gpu.barrier")[0]
    with ir.InsertionPoint(barrier):
        first = scf.IfOp(arith.cmpi(arith.CmpIPredicate.eq, gpu.thread_id(gpu.Dimension.x), index(0)))
        with ir.InsertionPoint(first.then_block):
            gpu.barrier()
            scf.YieldOp([])
    return barrier


PLACE = r"(memref|vector)\.(load|store) (in|at) \S+ by thread \d+ of block \d"
PLANTED = [
    (no_grid_barrier, "units", f"data race in main_kernel: {PLACE} and {PLACE} .* a release and an acquire"),
    (relaxed_flags, "units", f"data race in main_kernel: {PLACE} and {PLACE} .* a release and an acquire"),
    (no_wait_for_crews, "points", f"data race in main_kernel: {PLACE} and {PLACE} .* a release and an acquire"),
    (
        no_barrier,
        "units",
        f"data race in main_kernel: {PLACE} and {PLACE} .* a gpu.barrier between them .* shared memory",
    ),
    (
        store_out_of_bounds,
        "units",
        f"out of bounds in main_kernel: {PLACE}: ind.* whose extent is {(STEPS + 1) * BATCH * UNITS}",
    ),
    (
        divergent_barrier,
        "units",
        r"divergence in main_kernel: gpu.barrier (in|at) \S+ by thread .* waits in another place",
    ),
]


@pytest.mark.parametrize(("plant", "distribute", "message"), PLANTED, ids=lambda p: getattr(p, "__name__", ""))
def test_planted_errors_are_caught_and_named(plant: Plant, distribute: str, message: str) -> None:
    program, arrays = Emulated(outlined(distribute), plant), _arrays()
    for seed in SEEDS[:2]:
        with pytest.raises(EmulationError) as error:
            program.run(arrays, seed)
        assert re.search(message, str(error.value)), str(error.value)
        assert program.named in str(error.value)
