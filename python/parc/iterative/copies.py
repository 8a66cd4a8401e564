"""Systems made of the equations of another one, with more symbols, some reads of known arrays, other coordinates."""

from collections.abc import Callable, Mapping, Sequence

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import affine

from parc.codegen.irtools import clone_with
from parc.poly.affine import PARAM, SET, constraints, domain_rank, from_set, to_aff
from parc.poly.model import Equation, System


class SystemCopy:
    """A new system at the insertion point; its methods add members, those of `system` or new ones."""

    def __init__(self, system: System, more: Mapping[str, ir.Value]) -> None:
        """more: names and values of symbols behind those of `system`."""
        old = system.op
        self.symbols = (*system.symbols, *more)
        attributes = {"symbols": ir.ArrayAttr.get([ir.StringAttr.get(s) for s in self.symbols])}
        if "assume" in old.attributes:
            attributes["assume"] = self._set(old.attributes["assume"])
        self.op = ir.Operation.create(
            "parc.system",
            results=[old.results[0].type],
            operands=[*old.operands, *more.values()],
            attributes=attributes,
            regions=1,
            loc=old.location,
        )
        self._body = self.op.regions[0].blocks.append()
        self._system = system
        self._names: set[str] = set()
        self.arrays: dict[str, ir.Value] = {}
        """The unknowns so far, by name."""
        self.context = with_symbols(system.context, self.symbols)

    def unknown(self, name: str) -> None:
        """An unknown of the other system, without its boundaries."""
        op = self._system.unknown(name).op
        with ir.InsertionPoint(self._body):
            copy = op.clone()
        copy.attributes["shape"] = self._map(op.attributes["shape"])
        self._names.add(name)
        self.arrays[name] = copy.results[0]

    def boundaries(self, array: str) -> None:
        """The given values of an array, as in the other system."""
        for boundary in self._system.boundaries:
            if boundary.target.array == array:
                with ir.InsertionPoint(self._body):
                    copy = boundary.op.clone()
                copy.operands[0] = self.arrays[array]
                copy.attributes["domain"] = self._set(boundary.op.attributes["domain"])
                for key in ("to", "of"):
                    copy.attributes[key] = self._map(boundary.op.attributes[key])

    def equation(
        self,
        equation: Equation,
        points: isl.Set,
        known: Callable[[ir.Operation, str], ir.Value | None],
        written: Sequence[str],
        coordinates: ir.AffineMap | None = None,
    ) -> list[ir.Operation]:
        """The equation at some points, as one new equation for each convex part of them.

        known: what a `parc.read` of an unknown reads where that is not the copy's own.  written: the arrays whose
        writes are kept.
        coordinates: of an instance of the other system, in terms of those of `points`; None where they are the same.
        """
        return [self._equation(equation, d, known, written, coordinates) for d in self._domains(points)]

    def keep(self, array: str, points: isl.Set, source: ir.Value) -> list[ir.Operation]:
        """Equations that define elements of an array by the same ones of a known array."""
        made = self._elements(array, points)
        for op, at in made:
            type_ = ir.RankedTensorType(source.type)
            tile = ir.RankedTensorType.get(type_.shape[len(at.value.results) :], type_.element_type)
            with ir.InsertionPoint(op.regions[0].blocks[0]), op.location:
                read = ir.Operation.create("parc.read", results=[tile], operands=[source], attributes={"at": at})
                ir.Operation.create("parc.write", operands=[read.results[0], self.arrays[array]], attributes={"at": at})
        return [op for op, _ in made]

    def fill(self, array: str, points: isl.Set, tile: ir.Value) -> None:
        """Equations that define elements of an array by one tile."""
        for op, at in self._elements(array, points):
            with ir.InsertionPoint(op.regions[0].blocks[0]), op.location:
                ir.Operation.create("parc.write", operands=[tile, self.arrays[array]], attributes={"at": at})

    def take(self, name: str) -> ir.Value:
        """An array out of the solution, behind the system."""
        type_ = self.arrays[name].type
        attributes = {"name": ir.StringAttr.get(name)}
        return ir.Operation.create("parc.array", [type_], [self.op.results[0]], attributes).results[0]

    # -- parts -------------------------------------------------------------------------------------------------------

    def _elements(self, array: str, points: isl.Set) -> list[tuple[ir.Operation, ir.AffineMapAttr]]:
        """Empty equations over elements of an array, and the map to them."""
        rank = points.dim(SET)
        dims = [ir.AffineExpr.get_dim(i) for i in range(rank)]
        at = ir.AffineMapAttr.get(ir.AffineMap.get(rank, len(self.symbols), dims))
        return [(self._new(f"{array}_kept", domain, rank), at) for domain in self._domains(points)]

    def _domains(self, points: isl.Set) -> list[ir.IntegerSetAttr]:
        return from_set(points.gist_params(self.context).coalesce())

    def _equation(
        self,
        equation: Equation,
        domain: ir.IntegerSetAttr,
        known: Callable[[ir.Operation, str], ir.Value | None],
        written: Sequence[str],
        coordinates: ir.AffineMap | None,
    ) -> ir.Operation:
        old = equation.op.regions[0].blocks[0]
        rank = len(old.arguments) if coordinates is None else coordinates.n_dims
        op = self._new(equation.name, domain, rank)
        block = op.regions[0].blocks[0]
        with ir.InsertionPoint(block), equation.op.location:
            here = [*block.arguments, *self.op.operands]
            values: dict[ir.Value, ir.Value] = dict(zip(old.arguments, block.arguments, strict=False))
            if coordinates is not None:
                for argument, expr in zip(old.arguments, coordinates.results, strict=True):
                    map_ = ir.AffineMap.get(rank, len(self.symbols), [expr])
                    values[argument] = affine.AffineApplyOp(map_, here).result
            unknowns = {u.op.results[0]: u.name for u in self._system.unknowns}
            for member in (o.operation for o in old.operations):
                if member.name == "parc.write" and unknowns[member.operands[1]] not in written:
                    continue
                copy = clone_with(member, values)
                if member.name == "parc.read" and member.operands[0] in unknowns:
                    name = unknowns[member.operands[0]]
                    copy.operands[0] = known(member, name) or self.arrays[name]
                if member.name == "parc.write":
                    copy.operands[1] = self.arrays[unknowns[member.operands[1]]]
                if member.name in ("parc.read", "parc.write"):
                    copy.attributes["at"] = self._map(member.attributes["at"], coordinates)
        return op

    def _new(self, name: str, domain: ir.IntegerSetAttr, rank: int) -> ir.Operation:
        """An equation without operations."""
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        attributes = {"name": ir.StringAttr.get(unique), "domain": domain}
        with ir.InsertionPoint(self._body):
            op = ir.Operation.create("parc.equation", attributes=attributes, regions=1)
        op.regions[0].blocks.append(*[ir.IndexType.get()] * rank, arg_locs=[op.location] * rank)
        return op

    def _map(self, attribute: ir.Attribute, coordinates: ir.AffineMap | None = None) -> ir.AffineMapAttr:
        """An affine map with this system's symbols, and its coordinates."""
        map_ = ir.AffineMapAttr(attribute).value
        results = list(map_.results) if coordinates is None else [e.compose(coordinates) for e in map_.results]
        dims = map_.n_dims if coordinates is None else coordinates.n_dims
        return ir.AffineMapAttr.get(ir.AffineMap.get(dims, len(self.symbols), results))

    def _set(self, attribute: ir.Attribute) -> ir.IntegerSetAttr:
        """An affine set with this system's symbols."""
        found = constraints(attribute)
        dims = domain_rank(attribute)
        exprs, equal = [e for e, _ in found], [is_equal for _, is_equal in found]
        return ir.IntegerSetAttr.get(ir.IntegerSet.get(dims, len(self.symbols), exprs, equal))


def with_symbols(points: isl.Set, symbols: Sequence[str]) -> isl.Set:
    """The same points, with these symbols, of which the first are its own; those behind them are not negative."""
    first = points.dim(PARAM)
    points = points.add_dims(PARAM, len(symbols) - first)
    for i, symbol in enumerate(symbols):
        points = points.set_dim_name(PARAM, i, symbol)
        if i >= first:
            points = points.lower_bound_val(PARAM, i, isl.Val(0))
    return points


def require(points: isl.Set, *exprs: ir.AffineExpr) -> isl.Set:
    """Those points at which no expression is negative."""
    for expr in exprs:
        space = points.get_space()
        zero = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(space))
        points = points.intersect(to_aff(expr, space).ge_set(zero))
    return points
