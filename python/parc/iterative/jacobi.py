"""Jacobi's method and its two hybrids with Gauss and Seidel's, for a recurrent system (arXiv 2002.03629, section 3).

    jacobi      all instances at once, each from the last iterate
    jacobi-gs   blocks of S depths at once, from the last iterate of other blocks, step by step inside
    gs-jacobi   windows of W depths one after another, Jacobi's method inside each until it has converged

Gauss and Seidel's method alone is the evaluation in the order of the dependences, which every schedule is.
"""

from collections.abc import Mapping, Sequence
from math import ceil, inf

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, tensor

from parc.errors import CompileError
from parc.iterative.emit import Iteration, build_iterate, capped, largest_change
from parc.iterative.precision import check_tolerance
from parc.iterative.solution import Settings, Solution
from parc.iterative.sweeps import Arrays, Recurrence, Window
from parc.poly.affine import evaluate, with_names
from parc.poly.model import System

JACOBI = ("jacobi", "jacobi-gs", "gs-jacobi")
BLOCKS = ("jacobi-gs", "gs-jacobi")
"""Those that take a block size."""
_DONE = "done"
"""The iterate that says how many depths are done."""


def solve_by_sweeps(system: System, name: str, settings: Settings, sizes: Mapping[str, int]) -> None:
    """Replace a recurrent system by an iteration called `name`, and what else it computes; blocks are for these sizes.

    CompileError where the block is larger than the recurrence, the tolerance smaller than what its numbers can tell
    apart, or there is no affine depth.  Needs a current MLIR context.
    """
    recurrence = Recurrence(system)
    block = _block(recurrence, settings, sizes) if settings.solver in BLOCKS else 1
    if settings.solver == "jacobi-gs":
        recurrence = Recurrence(system, block)
    types = {array: recurrence.array_type(array) for array in recurrence.iterates}
    check_tolerance(settings.tolerance, types, system.op.location)
    with ir.InsertionPoint(system.op), system.op.location:
        _Sweeps(recurrence, name, settings, block).write()
    system.op.erase()


def _block(recurrence: Recurrence, settings: Settings, sizes: Mapping[str, int]) -> int:
    """So many depths: as asked for, or such that there are as many blocks as threads."""
    system, deepest = recurrence.system, recurrence.depth.deepest.maybe_downcast()
    if not settings.block:
        steps = evaluate(deepest, [sizes[symbol] for symbol in system.symbols])
        return max(1, ceil(steps / settings.threads))
    steps = deepest.value if isinstance(deepest, ir.AffineConstantExpr) else settings.block
    if not 1 <= settings.block <= steps:
        raise CompileError(
            f"a block of {settings.block} steps: {settings.solver} takes blocks of 1 to {steps} here, or 0 to choose",
            system.equations[0].op.location,
        )
    return settings.block


class _Sweeps(Solution):
    """Emits the iteration."""

    def __init__(self, recurrence: Recurrence, name: str, settings: Settings, block: int) -> None:
        super().__init__(recurrence, name, settings)
        self.block = block
        self.symbol = _unused("k", self.system.symbols)
        self.end = _unused("end", self.system.symbols)

    def write(self) -> None:
        symbols, settings = len(self.system.symbols), self.settings
        bound = ir.AffineMap.get(0, symbols, [self.recurrence.bound])
        is_window = settings.solver == "gs-jacobi"
        about = Iteration(
            name=self.name,
            solver=settings.solver,
            tolerance=settings.tolerance,
            arrays=[*self.iterates, *([_DONE] if is_window else [])],
            bound=bound,
            symbols=self.system.symbols,
            why=self._why(),
            start=settings.start,
        )
        starts, keep = self.starts()
        limit = capped(bound, self.values, settings.limit)
        is_cut = bool(settings.limit) and not _is_at_most(self.recurrence.bound, settings.limit)
        first = [starts[name] for name in self.iterates]
        if is_window:
            first.append(_counter(arith.constant(ir.IndexType.get(), 0)))
        sweep = self._window if is_window else self._sweep

        def exact() -> list[ir.Value]:
            return [*self.otherwise(), *first[len(self.iterates) :]]

        last = build_iterate(about, first, limit, sweep, exact if is_cut else None)
        finals = dict(zip(self.iterates, last, strict=False))
        keep(finals)
        self.replace(finals)

    # -- sweeps ------------------------------------------------------------------------------------------------------

    def _sweep(self, number: ir.Value, olds: Sequence[ir.Value]) -> tuple[list[ir.Value], ir.Value]:
        """A sweep over all that is not final."""
        first = ir.AffineExpr.get_symbol(len(self.values)) * self.recurrence.block
        news = self._swept({self.symbol: number}, olds, Window(first))
        return news, largest_change(news, olds)

    def _window(self, _: ir.Value, olds: Sequence[ir.Value]) -> tuple[list[ir.Value], ir.Value]:
        """A sweep over the window behind the depths that are done; then its first depth is done, or all of it."""
        *arrays, state = olds
        index, size = ir.IndexType.get(), self.block
        done = arith.index_cast(index, tensor.extract(state, [arith.constant(index, 0)]))
        expr = ir.AffineExpr.get_symbol(0)
        end = _apply(ir.AffineExpr.get_floor_div(expr, size) * size + size, [done])
        first, last = (ir.AffineExpr.get_symbol(len(self.values) + i) for i in range(2))
        # The first window is like all others.
        sizes = {self.symbol: 0, self.end: size}
        news = self._swept({self.symbol: done, self.end: end}, arrays, Window(first, last), sizes)
        change = largest_change(news, arrays)
        number = change.type
        tolerance = arith.constant(number, self.settings.tolerance)
        has_converged = arith.cmpf(arith.CmpFPredicate.OLE, change, tolerance)
        after = arith.select(has_converged, end, arith.addi(done, arith.constant(index, 1)))
        is_last = arith.cmpi(arith.CmpIPredicate.sge, after, _apply(self.recurrence.depth.deepest, self.values))
        # At the last depth all is exact: there is no more change.
        rest = arith.select(has_converged, change, arith.constant(number, 0.0))
        goes_on = arith.select(is_last, rest, arith.constant(number, inf))
        return [*news, _counter(after)], goes_on

    def _swept(
        self, more: Arrays, olds: Sequence[ir.Value], window: Window, sizes: Mapping[str, int] | None = None
    ) -> list[ir.Value]:
        """The new iterates; `sizes` of the symbols `more` are those to choose a schedule for."""
        copy, news = self.recurrence.sweep(dict(zip(self.iterates, olds, strict=True)), more, window)
        index = ir.IndexType.get()
        if sizes:
            named = {symbol: ir.IntegerAttr.get(index, size) for symbol, size in sizes.items()}
            copy.op.attributes["sizes"] = ir.DictAttr.get(named)
        if self.recurrence.block > 1:
            described = {"strategy": self.settings.solver, "distribute": "points", "why": self._why()}
            for key, text in described.items():
                copy.op.attributes[key] = ir.StringAttr.get(text)
        return [news[name] for name in self.iterates]

    # -- words -------------------------------------------------------------------------------------------------------

    def _why(self) -> str:
        settings, symbols = self.settings, self.system.symbols
        bound, deepest = (
            with_names(str(e.maybe_downcast()), (), symbols)
            for e in (self.recurrence.bound, self.recurrence.depth.deepest)
        )
        ways = {
            "jacobi": "a sweep takes all steps at once",
            "jacobi-gs": f"a sweep takes blocks of {self.block} steps at once, step by step inside",
            "gs-jacobi": f"a sweep takes a window of {self.block} steps at once, one window after another",
        }
        final = f"depth {self.block} k" if settings.solver == "jacobi-gs" and self.block > 1 else "depth k"
        skipped = "windows that have converged are" if settings.solver == "gs-jacobi" else f"up to {final} all is"
        return (
            f"{settings.why}; {ways[settings.solver]}; the dependences are {deepest} deep: exact after {bound} sweeps, "
            f"proved; after k sweeps {skipped} final and skipped"
        )


def _apply(expr: ir.AffineExpr, symbols: Sequence[ir.Value]) -> ir.Value:
    return affine.AffineApplyOp(ir.AffineMap.get(0, len(symbols), [expr]), list(symbols)).result


def _is_at_most(expr: ir.AffineExpr, limit: int) -> bool:
    """Is an expression a constant that is no larger?"""
    expr = expr.maybe_downcast()
    return isinstance(expr, ir.AffineConstantExpr) and expr.value <= limit


def _unused(name: str, symbols: Sequence[str]) -> str:
    while name in symbols:
        name += "_"
    return name


def _counter(value: ir.Value) -> ir.Value:
    """An index as a tensor of one number."""
    i64 = ir.IntegerType.get_signless(64)
    return tensor.from_elements(ir.RankedTensorType.get([1], i64), [arith.index_cast(i64, value)])
