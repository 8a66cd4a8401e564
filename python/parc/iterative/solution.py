"""What all iterations over a recurrent system share: where they start, what takes their place, who gets the results."""

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import func, tensor

from parc.autodiff.emit import filled
from parc.autodiff.extents import Sizes, split
from parc.iterative.starts import add_solutions, add_starts, shapes
from parc.iterative.sweeps import Arrays, Recurrence
from parc.poly.affine import SET


@dataclass(frozen=True)
class Settings:
    """How to sweep; the fields of `parc.Iteration`, with the solver's name."""

    solver: str
    tolerance: float
    block: int = 0
    limit: int = 0
    start: str = "zeros"
    threads: int = 1
    """Blocks are as many as these where no size of them is given."""
    why: str = "it was asked for"


class Solution:
    """Emits an iteration in front of a system, and lets what used the system use its results."""

    def __init__(self, recurrence: Recurrence, name: str, settings: Settings) -> None:
        self.recurrence = recurrence
        self.system = recurrence.system
        self.name = name
        self.settings = settings
        self.iterates = list(recurrence.iterates)

    @property
    def values(self) -> list[ir.Value]:
        """Of the system's symbols; others once there are starts, since a function makes all of its arguments anew."""
        return list(self.system.op.operands)

    def starts(self) -> tuple[dict[str, ir.Value], Callable[[Arrays], None]]:
        """The first iterates, and what is to be done with the last ones."""
        if self.settings.start != "previous":
            return self.recurrence.start({}, {name: self._zero_tile(name) for name in self.iterates}), lambda _: None
        function = _function_of(self.system.op)
        types = {name: self.recurrence.array_type(name) for name in self.iterates}
        extents = shapes(self.system, self.iterates, function)
        given = add_starts(function, self.name, types, extents)

        def keep(finals: Arrays) -> None:
            add_solutions(function, self.name, finals, extents)

        return self.recurrence.start(given, {}), keep

    def _zero_tile(self, name: str) -> ir.Value:
        """A tile of zeros like those of an array."""
        unknown = self.system.unknown(name)
        map_ = ir.AffineMapAttr(unknown.op.attributes["shape"]).value
        extents = list(map_.results)[unknown.elements.dim(SET) :]
        sizes = Sizes().apply(ir.AffineMap.get(0, map_.n_symbols, extents), self.values)
        type_ = self.recurrence.array_type(name)
        dynamic, static = split(sizes)
        tile = ir.RankedTensorType.get(static, type_.element_type)
        empty = ir.Operation.create("tensor.empty", [tile], dynamic).results[0]
        return filled(empty)

    def otherwise(self) -> list[ir.Value]:
        """The system as it is, step by step."""
        exact = self.system.op.clone()
        return [
            ir.Operation.create(
                "parc.array", [self.recurrence.array_type(name)], [exact.results[0]], {"name": ir.StringAttr.get(name)}
            ).results[0]
            for name in self.iterates
        ]

    def replace(self, finals: Arrays) -> None:
        """Let what takes arrays out of the system take the last iterates, and the rest from a system behind them."""
        others = self.recurrence.finish(finals).op if self.recurrence.others else None
        for use in list(self.system.op.results[0].uses):
            taker = use.owner.operation
            name = ir.StringAttr(taker.attributes["name"]).value
            if name not in finals:
                assert others is not None
                taker.operands[0] = others.results[0]
                taker.move_after(others)
                continue
            value = finals[name]
            if "at" in taker.attributes:
                value = self._tile(name, value, ir.AffineMapAttr(taker.attributes["at"]).value)
            taker.results[0].replace_all_uses_with(value)
            taker.erase()

    def _tile(self, name: str, array: ir.Value, at: ir.AffineMap) -> ir.Value:
        """One tile of an array."""
        shape = ir.AffineMapAttr(self.system.unknown(name).op.attributes["shape"]).value
        rest = list(shape.results)[len(at.results) :]
        offsets, sizes = (
            Sizes().apply(ir.AffineMap.get(0, at.n_symbols, exprs), self.values) for exprs in (list(at.results), rest)
        )
        (dynamic, static), (sizes_dynamic, sizes_static) = split(offsets), split(sizes)
        type_ = ir.RankedTensorType.get(list(array.type.shape)[len(at.results) :], array.type.element_type)
        ones = [1] * len(at.results)
        return tensor.ExtractSliceOp(
            type_,
            array,
            dynamic,
            sizes_dynamic,
            [],
            [*static, *[0] * len(rest)],
            [*ones, *sizes_static],
            [1] * array.type.rank,
        ).result


def _function_of(op: ir.Operation) -> func.FuncOp:
    """The function that an operation is in."""
    while op.name != "func.func":
        op = op.parent.operation
    return op.opview
