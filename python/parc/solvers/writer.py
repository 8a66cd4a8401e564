"""Writes equations into a `parc.system`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import affine

from parc.recurrence.extents import extents_of

Point = Sequence[ir.AffineExpr]


@dataclass(frozen=True)
class Schedule:
    """When and by which worker a point of an equation is computed."""

    time: Point
    owner: ir.AffineExpr


class Writer:
    """Adds unknowns and equations to a system; equations come in front of `before`."""

    def __init__(self, system: ir.Operation, before: ir.Operation) -> None:
        self.system = system
        self.before = before
        self.symbols = len(system.operands)
        self._names = {
            ir.StringAttr(op.attributes["name"]).value
            for op in system.regions[0].blocks[0].operations
            if "name" in op.attributes
        }

    def unknown(self, name: str, extents: Sequence[ir.AffineExpr], element: ir.Type) -> ir.Value:
        """A new unknown array."""
        dynamic = ir.ShapedType.get_dynamic_size()
        static = [e.value if isinstance(e, ir.AffineConstantExpr) else dynamic for e in map(_plain, extents)]
        with ir.InsertionPoint(self.system.regions[0].blocks[0].operations[0]), self.before.location:
            return ir.Operation.create(
                "parc.unknown",
                results=[ir.RankedTensorType.get(static, element)],
                attributes={
                    "name": ir.StringAttr.get(self._unique(name)),
                    "shape": ir.AffineMapAttr.get(ir.AffineMap.get(0, self.symbols, list(extents))),
                },
            ).results[0]

    def tiles(
        self, name: str, leading: Sequence[ir.AffineExpr | int], like: ir.Value, columns: Sequence[int] = ()
    ) -> ir.Value:
        """A new unknown array `[leading, columns, tile]` of tiles like a value of the system."""
        counts = [e if isinstance(e, ir.AffineExpr) else ir.AffineExpr.get_constant(e) for e in (*leading, *columns)]
        return self.unknown(name, [*counts, *extents_of(like, self.system)], like.type.element_type)

    def equation(
        self,
        name: str,
        dims: int,
        constraints: Sequence[ir.AffineExpr],
        schedule: Schedule,
        body: Callable[["Body"], None],
    ) -> ir.Operation:
        """A new equation at the points where no constraint is negative."""
        domain = ir.IntegerSet.get(dims, self.symbols, list(constraints), [False] * len(constraints))
        with ir.InsertionPoint(self.before), self.before.location:
            op = ir.Operation.create(
                "parc.equation",
                attributes={
                    "name": ir.StringAttr.get(self._unique(name)),
                    "domain": ir.IntegerSetAttr.get(domain),
                    "schedule": ir.AffineMapAttr.get(ir.AffineMap.get(dims, self.symbols, list(schedule.time))),
                    "owner": ir.AffineMapAttr.get(ir.AffineMap.get(dims, self.symbols, [schedule.owner])),
                },
                regions=1,
            )
            block = op.regions[0].blocks.append(*[ir.IndexType.get()] * dims, arg_locs=[self.before.location] * dims)
            with ir.InsertionPoint(block):
                body(Body(self, block))
        return op

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        return unique


class Body:
    """The body of a new equation, at the insertion point."""

    def __init__(self, writer: Writer, block: ir.Block) -> None:
        self._writer = writer
        self._block = block

    def read(self, array: ir.Value, at: Point) -> ir.Value:
        """The tile at some leading indices."""
        type_ = ir.RankedTensorType(array.type)
        tile = ir.RankedTensorType.get(type_.shape[len(at) :], type_.element_type)
        return ir.Operation.create(
            "parc.read", results=[tile], operands=[array], attributes={"at": self._map(at)}
        ).results[0]

    def read_at(self, old: ir.Operation, point: Point) -> ir.Value:
        """What a `parc.read` of another equation reads at a point of that one."""
        return self.read(old.operands[0], self.access(old, point))

    def access(self, old: ir.Operation, point: Point) -> list[ir.AffineExpr]:
        """The leading indices that an access of another equation has at a point of that one."""
        coordinates = ir.AffineMap.get(len(self._block.arguments), self._writer.symbols, list(point))
        return [e.compose(coordinates) for e in ir.AffineMapAttr(old.attributes["at"]).value.results]

    def write(self, tile: ir.Value, array: ir.Value, at: Point) -> None:
        """Define the tile at some leading indices."""
        ir.Operation.create("parc.write", operands=[tile, array], attributes={"at": self._map(at)})

    def index(self, expr: ir.AffineExpr) -> ir.Value:
        """The value of an expression."""
        map_ = ir.AffineMap.get(len(self._block.arguments), self._writer.symbols, [expr])
        return affine.AffineApplyOp(map_, [*self._block.arguments, *self._writer.system.operands]).result

    def _map(self, at: Point) -> ir.AffineMapAttr:
        return ir.AffineMapAttr.get(ir.AffineMap.get(len(self._block.arguments), self._writer.symbols, list(at)))


def _plain(expr: ir.AffineExpr) -> ir.AffineExpr:
    return expr.maybe_downcast()
