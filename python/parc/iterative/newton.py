"""Newton's method for a recurrence (DEER, arXiv 2309.12252): each sweep solves it linearised around the last iterate.

    new[t + 1] = f(old[t]) + J[t] (new[t] - old[t]),    J[t] = the derivative of f at old[t]

f and J are computed for all steps at once; what is left is an affine recurrence, which a scan solves.  It is written
in what the sweep adds to the last iterate, so that what rounding adds vanishes with it (`linearised.py`):

    d[t + 1] = J[t] d[t] + r[t],   r[t] = f(old[t]) - old[t + 1],   new[t + 1] = f(old[t]) + (d[t + 1] - r[t])

Where the states up to k are exact r and d are 0 before step k, so that the one after it becomes f of an exact one: T
sweeps are enough for T steps, also in floating-point arithmetic and whatever J is.  Far fewer are the rule, and the
limit: a sequence on which the method fails is solved step by step.

* `newton`: J is the derivative (`autodiff/tangent.py`), diagonal where it is known to be, else a matrix for each row.
* `quasi-newton`: of J the diagonal, products with weights included: each unit by itself one step before.  It needs more
  sweeps of far less work.  The diagonal is exact where nothing between two products with weights mixes units.

Several states (h and c of an LSTM) are one state of all their units.

No sweep hands on what is not a number: where d is none, f(old[t]) is taken, as Jacobi's method does.  J is multiplied
by a factor, 1 - damping at first, that falls when a change is larger than the one before, to 0 in the end (Jacobi's
method), and rises again with smaller ones, in the style of ELK (arXiv 2407.19115).
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from parc.errors import CompileError
from parc.iterative.emit import Iteration, build_iterate, capped, largest_change
from parc.iterative.linearised import Linearised
from parc.iterative.precision import check_tolerance
from parc.iterative.solution import Settings, Solution
from parc.iterative.sweeps import Recurrence
from parc.poly.affine import with_names
from parc.poly.dependences import dependences
from parc.poly.linearity import is_affine, jacobians, unknown_reads
from parc.poly.model import System
from parc.solvers.recurrence import cycles, recognise

NEWTON = ("newton", "quasi-newton")
LIMIT = 64
"""Sweeps at most where no limit is given: what takes more is solved faster step by step."""
_LEAST_FACTOR = 1 / 16
"""A smaller factor of J is 0."""
_MOST_WORKERS = 64
_FACTOR, _CHANGE = "factor", "change"


def solve(system: System, name: str, settings: Settings, damping: float = 0.0) -> None:
    """Replace a system of one recurrence by an iteration called `name`, and what else it computes.

    One that is affine, such as an adjoint, is one linear system and left to `solve-affine`.

    damping: from 0, plain Newton, to below 1, at first.  CompileError where the recurrence has no derivative, needs
    more than its last step, or has no number of units; the system is then as it was.  Needs a current MLIR context.
    """
    if _is_affine(system):
        system.op.attributes["solver"] = ir.StringAttr.get(_linear_solver(system))
        return
    recurrence = Recurrence(system)
    types = {array: recurrence.array_type(array) for array in recurrence.iterates}
    check_tolerance(settings.tolerance, types, system.op.location)
    linearised = Linearised(system, recurrence.depth, is_dense=settings.solver == "newton")
    settings = replace(settings, limit=settings.limit or LIMIT)
    with ir.InsertionPoint(system.op), system.op.location:
        _Newton(recurrence, linearised, name, settings, damping).write()
    linearised.erase()
    system.op.erase()


def _is_affine(system: System) -> bool:
    """Are all equations affine in all unknowns together?"""
    return all(is_affine(jacobians(e.op), unknown_reads(e.op)) for e in system.equations)


def _linear_solver(system: System) -> str:
    """A scan, where the recurrence is one that it can solve."""
    flow = dependences(system)
    (names,) = cycles(system, flow)
    try:
        recognise(system, flow, names[0])
    except CompileError:
        return "auto"
    return "scan" if len(names) == 1 else "auto"


class _Newton(Solution):
    """Emits the iteration: the states, the factor of J, and the change of the last sweep."""

    def __init__(
        self, recurrence: Recurrence, linearised: Linearised, name: str, settings: Settings, damping: float
    ) -> None:
        super().__init__(recurrence, name, settings)
        self._linearised = linearised
        self._damping = damping
        # A schedule deals out points to so many workers at most: there are more of them on a GPU.
        self._workers = settings.threads if settings.threads <= _MOST_WORKERS else 1

    def write(self) -> None:
        bound = ir.AffineMap.get(0, len(self.system.symbols), [self.recurrence.bound])
        about = Iteration(
            name=self.name,
            solver=self.settings.solver,
            tolerance=self.settings.tolerance,
            arrays=[*self.iterates, _FACTOR, _CHANGE],
            bound=bound,
            symbols=self.system.symbols,
            why=self._why(),
            start=self.settings.start,
        )
        starts, keep = self.starts()
        number = self.recurrence.array_type(self.iterates[0]).element_type
        first = [starts[name] for name in self.iterates]
        first += [_scalar(arith.constant(number, 1.0 - self._damping)), _scalar(arith.constant(number, inf))]
        limit = capped(bound, self.values, self.settings.limit)
        last = build_iterate(about, first, limit, self._sweep, lambda: [*self.otherwise(), *first[-2:]])
        finals = dict(zip(self.iterates, last, strict=False))
        keep(finals)
        self.replace(finals)

    def _sweep(self, _: ir.Value, olds: Sequence[ir.Value]) -> tuple[list[ir.Value], ir.Value]:
        *states, factor, before = olds
        news = self._linearised.sweep(dict(zip(self.iterates, states, strict=True)), factor, self._workers)
        change = largest_change([news[name] for name in self.iterates], states)
        after = _adapted(tensor.extract(factor, []), change, tensor.extract(before, []))
        last = change if change.type == before.type.element_type else arith.truncf(before.type.element_type, change)
        return [*(news[name] for name in self.iterates), _scalar(after), _scalar(last)], change

    def _why(self) -> str:
        bound = with_names(str(self.recurrence.bound.maybe_downcast()), (), self.system.symbols)
        form = "the diagonal of its derivative" if self.settings.solver == "quasi-newton" else "its derivative"
        if self._linearised.is_diagonal and self.settings.solver == "newton":
            form += ", which is diagonal"
        return (
            f"{self.settings.why}; a sweep takes all steps at once and solves for the states with {form}; exact after "
            f"{bound} sweeps, proved; after {self.settings.limit} sweeps without convergence it goes step by step"
        )


def _adapted(factor: ir.Value, change: ir.Value, before: ir.Value) -> ir.Value:
    """The factor of J for the next sweep: half of it after a change that is no smaller than the one before.

    Else twice as much, up to 1.
    """
    number = factor.type

    def constant(value: float) -> ir.Value:
        return arith.constant(number, value)

    wide = before if change.type == number else arith.extf(change.type, before)
    shrinks = arith.cmpf(arith.CmpFPredicate.OLT, change, wide)
    grown = arith.minimumf(arith.maximumf(arith.addf(factor, factor), constant(_LEAST_FACTOR)), constant(1.0))
    half = arith.mulf(factor, constant(0.5))
    is_none = arith.cmpf(arith.CmpFPredicate.OLT, half, constant(_LEAST_FACTOR))
    return arith.select(shrinks, grown, arith.select(is_none, constant(0.0), half))


def _scalar(value: ir.Value) -> ir.Value:
    """A tensor of one number."""
    return tensor.from_elements(ir.RankedTensorType.get([], value.type), [value])
