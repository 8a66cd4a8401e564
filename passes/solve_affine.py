"""`solve-affine`: affine recurrences are rewritten so that they take fewer dependent steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

from torch_mlir import ir

from parc.codegen.arrays import move_known_arrays_out
from parc.errors import CompileError
from parc.passbase import Pass
from parc.passes.schedule import parse_sizes
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.legality import verify
from parc.poly.machine import Machine
from parc.poly.model import System, build, systems
from parc.poly.plan import default_sizes
from parc.poly.schedules import ITERATIVE, SOLVERS, STRATEGIES
from parc.solvers.blocks import blocks_of
from parc.solvers.choice import Extent, doublings, measure, reduction_levels, scan_levels
from parc.solvers.chunks import solve_by_chunks
from parc.solvers.cut import cut
from parc.solvers.doubling import solve_by_doubling
from parc.solvers.nested import solve_nested
from parc.solvers.predict import Prediction, predict
from parc.solvers.recurrence import Recurrence, cycles, recognise
from parc.solvers.stack import fold, layers, stacks
from parc.solvers.writer import Writer

_GAIN = 1.5
"""How many times faster a scan has to be predicted: it adds in another order, and predictions are rough."""
_GROUPS = 4  # of steps, for each thread


@dataclass
class SolveAffine(Pass):
    """Affine recurrences are rewritten so that they take fewer dependent steps.

    An equation that needs itself one step back, x[t + 1] = A[t] x[t] + b[t], becomes a system with its own schedule
    (solver=scan chunk=4, where a step is `cell`):

        "parc.equation"() ({...}) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>}

        "parc.equation"() ({...}) {name = "cell_start0", ..., schedule = affine_map<()[T] -> (0, 0)>}
        "parc.equation"() ({...}) {name = "cell_pair0", ..., schedule = affine_map<(c)[T] -> (0, 0)>}
        "parc.equation"() ({...}) {name = "cell_head0", ..., schedule = affine_map<(j)[T] -> (1, j)>}
        "parc.equation"() ({...}) {name = "cell_chunk0", ..., schedule = affine_map<(c, j)[T] -> (1, j)>}
        "parc.equation"() ({...}) {name = "cell_second0", ..., schedule = affine_map<()[T] -> (2, 0)>}
        "parc.equation"() ({...}) {name = "cell_ends0", ..., schedule = affine_map<(c)[T] -> (2, c + 1)>}
        "parc.equation"() ({...}) {name = "cell_tail0", ..., schedule = affine_map<(c, j)[T] -> (3, j)>}
      }) {symbols = ["T"], strategy = "scan", distribute = "points"}

    solver: auto (a scan where the cost model predicts a gain; also what iterative strategies leave is solved so), scan,
    cyclic-reduction or recursive-doubling; any other strategy leaves everything as it is.  A system's own attribute
    `solver` takes the place of this option.  over: the dimension that recurrences have to run along.  chunk, levels:
    the tree's form (`solvers/choice.py`); 0 chooses by threads and sizes, which are those of `schedule`.
    """

    name: ClassVar[str] = "solve-affine"

    solver: str = "auto"
    over: str = ""
    chunk: int = 0
    levels: int = 0
    target: str = "cpu"
    threads: int = 0
    sizes: str = ""

    def run(self, module: ir.Module) -> None:
        if self.solver not in ("auto", *STRATEGIES):
            raise CompileError(f'there is no solver "{self.solver}" (known: {", ".join(SOLVERS)})')
        if min(self.chunk, self.levels, self.threads) < 0 or self.chunk == 1:
            raise CompileError("a chunk has at least two steps, and no option is negative")
        with module.context, ir.Location.unknown():
            found = [(op, solver) for op in systems(module) if (solver := self._solver_of(op))]
            for op, _ in found:
                # The equations that read them may go.
                move_known_arrays_out(op)
            built = [build(op) for op, _ in found]
            sizes = default_sizes(built) | parse_sizes(self.sizes)
            for system, (_, solver) in zip(built, found, strict=True):
                replace(self, solver=solver)._solve_all(system, sizes)

    def _solver_of(self, op: ir.Operation) -> str | None:
        """How the recurrences of a system are solved; None where they stay as they are."""
        if "strategy" in op.attributes:  # it has its schedule already
            return None
        solver = ir.StringAttr(op.attributes["solver"]).value if "solver" in op.attributes else self.solver
        if solver in ITERATIVE:
            solver = "auto"
        return solver if solver in ("auto", *SOLVERS) else None

    def _solve_all(self, system: System, sizes: Mapping[str, int]) -> None:
        """Solve the recurrences of a system, in the order in which they need each other."""
        flow = dependences(system)
        found = cycles(system, flow)
        if not found:
            return
        check_system(system)
        solvable = [name for names in found if (name := self._solvable(system, flow, names, sizes)) is not None]
        together: list[tuple[str, ...]] = [(name,) for name in solvable]
        if self.solver == "nested-scan":
            system = fold(system, solvable)
            flow = dependences(system)
            together = stacks(system, flow, solvable, self.over)
        for number, names in enumerate(together):
            part, rest = cut(system, flow, names)
            if self.solver == "nested-scan":
                self._solve_stack(build(part), names, sizes)
            else:
                self._solve(build(part), names[0], sizes)
            if number + 1 < len(together):
                assert rest is not None, "a later recurrence is not needed by an earlier one"
                system = build(rest)
                flow = dependences(system)

    def _solvable(
        self, system: System, flow: Sequence[Dependence], names: Sequence[str], sizes: Mapping[str, int]
    ) -> str | None:
        """The equation of a recurrence that is to be solved; None for one that stays as it is."""
        try:
            if len(names) > 1:
                where = system.equation(names[0]).op.location
                raise CompileError(f"{', '.join(names)} need each other, and only one equation can be solved", where)
            recurrence = recognise(system, flow, names[0], self.over)
        except CompileError:
            # What was asked for has to be done; of a model that is trained, it may be meant for the gradients alone.
            if self.solver == "auto" or _is_trained(system):
                return None
            raise
        if self.solver == "auto":
            prediction = self._predict(system, flow, recurrence, sizes)
            if prediction is None or prediction.gain < _GAIN:
                return None
        return names[0]

    def _solve(self, system: System, name: str, sizes: Mapping[str, int]) -> None:
        flow = dependences(system)
        recurrence = recognise(system, flow, name)
        writer = Writer(system.op, recurrence.equation.op)
        extent = measure(system, recurrence, sizes)
        blocks = blocks_of(recurrence.body)
        prediction = self._predict(system, flow, recurrence, sizes)
        solver = "scan" if self.solver == "auto" else self.solver
        if solver == "scan":
            solve_by_chunks(recurrence, blocks, writer, self._levels(extent))
        elif solver == "cyclic-reduction":
            solve_by_chunks(recurrence, blocks, writer, reduction_levels(extent, self.levels))
        else:
            group = self.chunk or max(1, ceil(extent.steps / (self._machine().threads * _GROUPS)))
            solve_by_doubling(recurrence, blocks, writer, self.levels or doublings(extent), group)
        recurrence.equation.op.erase()
        asked = [] if self.solver == "auto" else ["it was asked for"]
        _describe(system, solver, "; ".join([*asked, *([str(prediction)] if prediction else [])]), sizes)
        verify(build(system.op))

    def _solve_stack(self, system: System, names: Sequence[str], sizes: Mapping[str, int]) -> None:
        found = layers(system, dependences(system), names)
        writer = Writer(system.op, found[0].recurrence.equation.op)
        solve_nested(found, writer, self.levels or doublings(measure(system, found[0].recurrence, sizes)))
        for layer in found:
            layer.recurrence.equation.op.erase()
        _describe(system, self.solver, f"it was asked for; layers in the stack: {len(found)}", sizes)
        verify(build(system.op))

    def _levels(self, extent: Extent) -> list[int]:
        return scan_levels(extent, self._machine().threads, self.chunk, self.levels)

    def _machine(self) -> Machine:
        return Machine.of(self.target, self.threads)

    def _predict(
        self, system: System, flow: Sequence[Dependence], recurrence: Recurrence, sizes: Mapping[str, int]
    ) -> Prediction | None:
        extent = measure(system, recurrence, sizes)
        chunk = self._levels(extent)[0]
        return predict(system, flow, recurrence, extent, chunk, sizes, self._machine())


def _describe(system: System, solver: str, why: str, sizes: Mapping[str, int]) -> None:
    """Set the attributes of a scheduled system."""
    index = ir.IndexType.get()
    own = {symbol: ir.IntegerAttr.get(index, sizes[symbol]) for symbol in system.symbols}
    system.op.attributes["strategy"] = ir.StringAttr.get(solver)
    system.op.attributes["distribute"] = ir.StringAttr.get("points")
    system.op.attributes["why"] = ir.StringAttr.get(why)
    system.op.attributes["sizes"] = ir.DictAttr.get(own)


def _is_trained(system: System) -> bool:
    """Is this a system of a program that training goes forward with?"""
    function = system.op.parent.operation
    arguments = [ir.DictAttr(a) for a in function.attributes["arg_attrs"]] if "arg_attrs" in function.attributes else []
    names = [ir.StringAttr(a["parc.name"]).value for a in arguments if "parc.name" in a]
    return "parc.trained" in function.parent.operation.attributes and "gradient0" not in names
