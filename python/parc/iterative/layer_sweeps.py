"""Writes the iterations that solve for the layers of a network."""

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.autodiff.emit import zeros
from parc.autodiff.extents import Sizes
from parc.codegen.irtools import arguments_of_kind, captured_values, symbol_arguments, terminator, walk
from parc.iterative.emit import Iteration, build_iterate, capped, largest_change
from parc.iterative.layer_blocks import Blocks, described
from parc.iterative.layer_starts import start_from_previous
from parc.iterative.layers import Network, needed_at_the_end
from parc.iterative.merge import merge_systems
from parc.iterative.precision import check_tolerance
from parc.iterative.scope import Scope

# Operations that are erased when nothing uses their results.
_PURE = ("affine.", "arith.", "linalg.", "math.", "parc.array", "parc.system", "tensor.")


@dataclass(frozen=True)
class Settings:
    """How to sweep: see `parc.Iteration`."""

    solver: str
    tolerance: float
    limit: int
    start: str
    blocks: str
    """What is to be said of the blocks, in front of that word."""


def solve_layers(network: Network, groups: Sequence[Blocks], settings: Settings) -> None:
    """Rewrite the network's function so that the layers of each group are solved for, one group after the other.

    The iterations are at the end of the function. Layers of blocks of depth 0 stay as they are, and layers that no
    other block needs come after the iteration.
    """
    writer = _Writer(network, settings)
    # The programs of a training step share, by name, what the next call starts from.
    name = "gradients" if _is_backward(network.function) else "layers"
    found = []
    for number, blocks in enumerate(groups):
        iteration = writer.solve(name if len(groups) == 1 else f"{name}{number}", blocks)
        found += [iteration] if iteration is not None else []
    writer.finish()
    if settings.start == "previous":
        for iteration in found:
            start_from_previous(network.function, iteration)


def _is_backward(function: func.FuncOp) -> bool:
    """Does a function of a training step take the gradients of results?"""
    inputs = (ir.DictAttr(function.arg_attrs[a.arg_number]) for a in arguments_of_kind(function, "input"))
    names = [ir.StringAttr(a["parc.name"]).value for a in inputs if "parc.name" in a]
    return "parc.trained" in function.operation.parent.attributes and "gradient0" in names


class _Writer:
    def __init__(self, network: Network, settings: Settings) -> None:
        self._network = network
        self._settings = settings
        self._block = network.function.entry_block
        self._end = terminator(self._block)
        #: The program with what has been solved for.
        self._solved = Scope(network, before=self._end)

    def solve(self, name: str, blocks: Blocks) -> ir.Operation | None:
        """Solve for the layers of a group, those of earlier groups being solved for; returns the iteration if any."""
        known = [n for block in blocks.known for n in blocks.layers[block]]
        self._compute(known)
        swept = self._handed_on(blocks)
        iteration = self._iterate(name, blocks, swept) if swept else None
        every = [n for numbers in blocks.layers for n in numbers]
        self._compute(self._towards(self._needed_by_others(every), among={*every} - {*known, *swept}))
        return iteration

    def finish(self) -> None:
        """Give what the iterations end with, and erase what that leaves unused."""
        old = [op.operation for op in self._block.operations if op.operation.results]
        for op in [op.operation for op in self._block.operations if not op.operation.results]:
            values = {v: self._solved.value(v) for v in captured_values(op)}
            if op != self._end and any(new != v for v, new in values.items()):
                op.move_before(self._end)
            for inner in (op, *(nested.operation for nested in walk(op))):
                for i, operand in enumerate(inner.operands):
                    inner.operands[i] = values.get(operand, operand)
        for op in reversed(old):
            if op.name.startswith(_PURE) and not any(list(result.uses) for result in op.results):
                op.erase()

    def _compute(self, numbers: Iterable[int]) -> None:
        """Compute layers anew where others that they need have been solved for."""
        for n in numbers:
            if self._solved.is_changed(n):
                self._solved.compute(n)

    def _handed_on(self, blocks: Blocks) -> list[int]:
        """The layers of swept blocks that other blocks need."""
        found = []
        for block in blocks.swept:
            others = [n for b, numbers in enumerate(blocks.layers) if b != block for n in numbers]
            needed = {m for n in others for m in self._network.layers[n].needs}
            found += [n for n in blocks.layers[block] if n in needed]
        return found

    def _needed_by_others(self, numbers: Container[int]) -> set[int]:
        """The layers that the results of the function, and other layers than these, need."""
        others = [layer for n, layer in enumerate(self._network.layers) if n not in numbers]
        return {*needed_at_the_end(self._network), *(n for layer in others for n in layer.needs)}

    def _towards(self, wanted: Iterable[int], among: Container[int]) -> list[int]:
        """Those of some layers that have to be computed for the ones that are wanted, in order."""
        found: set[int] = set()
        pending = list(wanted)
        while pending:
            n = pending.pop()
            if n in among and n not in found:
                found.add(n)
                pending.extend(self._network.layers[n].needs)
        return sorted(found)

    def _iterate(self, name: str, blocks: Blocks, swept: Sequence[int]) -> ir.Operation:
        """Write the iteration that solves for the layers that swept blocks hand on.

        It has the known layers that those need as well: read like the others, what needs them stays in the sweep.
        """
        settings, network = self._settings, self._network
        fixed = self._read_as_arrays(blocks, swept)
        layers = [network.layers[n] for n in (*fixed, *swept)]
        symbols = symbol_arguments(network.function)
        bound = ir.AffineMap.get(0, len(symbols), [ir.AffineExpr.get_constant(blocks.bound)])
        limit = settings.limit if settings.limit < blocks.bound else 0
        about = Iteration(
            name=name,
            solver=settings.solver,
            tolerance=settings.tolerance,
            arrays=[array for layer in layers for array in layer.arrays],
            bound=bound,
            symbols=self._symbol_names(),
            why=self._why(blocks),
            start=settings.start,
        )
        for layer in layers:
            types = {array: v.type for array, v in zip(layer.arrays, layer.values, strict=True)}
            check_tolerance(settings.tolerance, types, layer.op.location)
        with ir.InsertionPoint(self._end), layers[0].op.location:
            exact = [self._solved.value(v) for n in fixed for v in network.layers[n].values]
            found = build_iterate(
                about,
                [*exact, *(zeros(v, Sizes()) for n in swept for v in network.layers[n].values)],
                capped(bound, symbols, limit),
                partial(self._sweep, blocks, fixed, swept, exact),
                partial(self._in_order, blocks, swept, exact) if limit else None,
            )
        iteration = found[0].owner.operation.operands[0].owner.operation
        lines = [ir.StringAttr.get(line) for line in described(network, blocks)]
        iteration.attributes["blocks"] = ir.ArrayAttr.get(lines)
        for value in found[: len(exact)]:
            value.owner.operation.erase()
        self._give(self._solved, swept, found[len(exact) :])
        return iteration

    def _read_as_arrays(self, blocks: Blocks, swept: Sequence[int]) -> list[int]:
        """The last known layers that swept blocks need."""
        first = {b for b in blocks.known if not blocks.needs[b]}
        read = {m for b in blocks.swept for n in blocks.layers[b] for m in self._network.layers[n].needs}
        return [n for b in blocks.known if b not in first for n in blocks.layers[b] if n in read]

    def _sweep(
        self,
        blocks: Blocks,
        fixed: Sequence[int],
        swept: Sequence[int],
        exact: Sequence[ir.Value],
        _sweeps: ir.Value,
        olds: Sequence[ir.Value],
    ) -> tuple[list[ir.Value], ir.Value]:
        """All swept blocks from what the last sweep gave: the layers handed on, and the largest change."""
        news: dict[int, Sequence[ir.Value]] = {}
        with self._known_in_front():
            previous = Scope(self._network, self._solved)
            self._give(previous, [*fixed, *swept], olds)
            for block in blocks.swept:
                own = Scope(self._network, previous)
                handed_on = [n for n in blocks.layers[block] if n in swept]
                for n in self._towards(handed_on, among=blocks.layers[block]):
                    news[n] = own.compute(n)
        merge_systems(ir.InsertionPoint.current.block)
        values = [v for n in swept for v in news[n]]
        return [*exact, *values], largest_change(values, olds[len(exact) :])

    def _in_order(self, blocks: Blocks, swept: Sequence[int], exact: Sequence[ir.Value]) -> list[ir.Value]:
        """The layers handed on, computed one after the other."""
        numbers = [n for b, layers in enumerate(blocks.layers) if b not in blocks.known for n in layers]
        with self._known_in_front():
            scope = Scope(self._network, self._solved)
            found = {n: scope.compute(n) for n in self._towards(swept, among=numbers)}
        return [*exact, *(v for n in swept for v in found[n])]

    @contextmanager
    def _known_in_front(self) -> Iterator[None]:
        """What is known is computed in front of the iteration whose region is being written."""
        self._solved.before = ir.InsertionPoint.current.block.owner.operation
        yield
        self._solved.before = self._end

    def _give(self, scope: Scope, numbers: Sequence[int], values: Sequence[ir.Value]) -> None:
        """Say what the values of some layers are, one after the other."""
        rest = iter(values)
        for n in numbers:
            scope.give(n, [next(rest) for _ in self._network.layers[n].values])

    def _symbol_names(self) -> list[str]:
        function = self._network.function
        attributes = [ir.DictAttr(function.arg_attrs[a.arg_number]) for a in arguments_of_kind(function, "symbol")]
        return [ir.StringAttr(a["parc.name"]).value for a in attributes]

    def _why(self, blocks: Blocks) -> str:
        solver, bound, count = self._settings.solver, blocks.bound, sum(map(len, blocks.layers))
        sizes = sorted({len(numbers) for numbers in blocks.layers})
        each = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
        many = f"{count} layers"
        if solver == "jacobi-gs":
            many += f" in {len(blocks.layers)} {self._settings.blocks}blocks of {each}"
        return (
            f"{solver} was asked for; {many}, {len(blocks.swept)} of them swept over; "
            f"all are final after {bound} sweep{'s' * (bound > 1)}"
        )
