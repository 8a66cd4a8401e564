"""`iterate`: recurrent systems become sweeps, parallel ones, until nothing changes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from parc.codegen.arrays import move_known_arrays_out
from parc.codegen.irtools import is_inside
from parc.errors import CompileError
from parc.iterative.core import cores, recurrences
from parc.iterative.jacobi import JACOBI, solve_by_sweeps
from parc.iterative.predict import predict
from parc.iterative.solution import Settings
from parc.passbase import Pass
from parc.passes.schedule import parse_sizes
from parc.passes.split_products import split_system
from parc.poly.dependences import check_system, dependences
from parc.poly.machine import Machine
from parc.poly.model import System, build, systems
from parc.poly.plan import default_sizes
from parc.poly.schedules import ITERATIVE, STRATEGIES
from parc.solvers.cut import cut
from parc.solvers.recurrence import cycles

_NEWTON = ("newton", "quasi-newton")
_GAIN = 1.5
"""How many times faster sweeps have to be predicted: they are right within a tolerance alone."""


@dataclass
class Iterate(Pass):
    """Recurrent systems become sweeps, parallel ones, until nothing changes.

    What an equation needs of another step it reads from the sweep before (solver=jacobi):

        %s = "parc.system"(%T) ({
          "parc.equation"() ({ ... "parc.read"(%h) {at = (t)} ... "parc.write"(%new, %h) {at = (t + 1)}
          }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>}

        %i = "parc.iterate"(%T) ({
        ^bb0(%k: index):
          %old = "parc.previous"(%start) {name = "H"}
          %s = "parc.system"(%T, %k) ({
            "parc.equation"() ({ ... "parc.read"(%old) {at = (t)} ... "parc.write"(%new, %h) {at = (t + 1)}
            }) {name = "cell", domain = affine_set<(t)[T, k] : (t - k >= 0, T - 1 - t >= 0)>}
            "parc.equation"() ({ ... "parc.read"(%old) ... }) {name = "H_kept", ...}   // final after k sweeps

    solver: one of `ITERATIVE` of `poly.schedules`; auto, which sweeps where a tolerance is given and the cost model
    predicts a gain; or any other strategy, which leaves all as it is.  tolerance, block, limit, start and damping are
    those of `parc.Iteration`; a block of 0 makes as many blocks as there are threads, at these sizes.
    """

    name: ClassVar[str] = "iterate"

    solver: str = "auto"
    tolerance: float = 0.0
    block: int = 0
    limit: int = 0
    start: str = "zeros"
    damping: float = 0.0
    target: str = "cpu"
    threads: int = 0
    sizes: str = ""

    def run(self, module: ir.Module) -> None:
        if self.solver not in ("auto", *STRATEGIES):
            raise CompileError(f'there is no solver "{self.solver}" (known: auto, {", ".join(STRATEGIES)})')
        if self.solver not in ITERATIVE and not (self.solver == "auto" and self.tolerance > 0):
            return
        if min(self.block, self.limit, self.threads) < 0 or not self.tolerance >= 0:
            raise CompileError("no option of an iteration is negative", _first(module))
        with module.context, ir.Location.unknown():
            found = [op for op in systems(module) if not is_inside(op, "parc.iterate")]
            built = [build(op) for op in found]
            sizes = default_sizes(built) | parse_sizes(self.sizes)
            if self.solver in _NEWTON and not any(cycles(s, dependences(s)) for s in built):
                _refuse(module, self.solver)
            names: set[str] = set()
            for op in found:
                solver, why = self._choice(op, sizes)
                if solver in (*JACOBI, *_NEWTON):
                    replace(self, solver=solver)._solve_all(op, sizes, names, why)
                elif why:
                    op.attributes["considered"] = ir.StringAttr.get(why)

    def _choice(self, op: ir.Operation, sizes: Mapping[str, int]) -> tuple[str, str]:
        """How a system is solved, and why."""
        if not cycles(system := build(op), dependences(system)):
            return "", ""
        if self.solver == "gauss-seidel":
            return "", "gauss-seidel was asked for: in the order of the dependences one sweep is exact"
        if self.solver != "auto":
            return self.solver, "it was asked for"
        with ir.InsertionPoint(op):
            copy = op.clone()
        move_known_arrays_out(copy)
        split_system(copy)
        prediction = predict(build(copy), sizes, self.block, Machine.of(self.target, self.threads))
        copy.erase()
        if prediction is None:
            return "", ""
        return prediction.solver if prediction.gain >= _GAIN else "", str(prediction)

    def _solve_all(self, op: ir.Operation, sizes: Mapping[str, int], names: set[str], why: str) -> None:
        """Sweep over the recurrences of a system, one iteration after another."""
        # Products of inputs do not change from sweep to sweep.
        move_known_arrays_out(op)
        split_system(op)
        system = build(op)
        check_system(system)
        flow = dependences(system)
        together = cores(system, flow, sizes) if self.solver in JACOBI else recurrences(system, flow)
        for number, core in enumerate(together):
            part, rest = cut(system, flow, core.equations)
            name = core.name
            while name in names:
                name += "_"
            names.add(name)
            self._solve(build(part), name, sizes, why)
            if number + 1 < len(together):
                assert rest is not None, "a later recurrence is not needed by an earlier one"
                system = build(rest)
                flow = dependences(system)

    def _solve(self, system: System, name: str, sizes: Mapping[str, int], why: str) -> None:
        threads = Machine.of(self.target, self.threads).threads
        settings = Settings(self.solver, self.tolerance, self.block, self.limit, self.start, threads, why)
        if self.solver in JACOBI:
            solve_by_sweeps(system, name, settings, sizes)
            return
        # Only this solver needs derivatives.
        from parc.iterative.newton import solve

        solve(system, name, settings, self.damping)


def _refuse(module: ir.Module, solver: str) -> None:
    """Of a model that is trained, another program may be meant."""
    if "parc.trained" not in module.operation.attributes:
        message = f"there is no recurrence to solve with {solver}: choose the strategy auto, or jacobi for many layers"
        raise CompileError(message, _first(module))


def _first(module: ir.Module) -> ir.Location | None:
    """Where the first system is."""
    return next((op.location for op in systems(module)), None)
