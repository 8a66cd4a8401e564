"""The adjoint of a `parc.system`: the transposed system, which runs the other way.

Each equation has an adjoint equation on the same domain.  Its body is the forward body, recomputed, followed by
its vector-Jacobian product; what it writes are *cotangents* at its points.  The cotangent of an element of an unknown
array is the sum of what its readers contribute: the accesses of the forward system, turned around (Naumov,
arXiv 1712.06577, section 2: the block matrix transposed).

A contribution that ends in a product with known weights, `d * W^T`, is kept as `d` and multiplied by its reader, so
that the adjoint of a cell is a cell.  What arrays and parameters outside of the system receive is summed behind it,
over all points at once.
"""

from collections.abc import Callable, Container, Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import tensor

from parc.autodiff.emit import empty_of, filled, total
from parc.autodiff.equations import EquationAdjoint, uses_of
from parc.autodiff.extents import Sizes
from parc.autodiff.irtools import body_of, hoist_invariants, is_outside, named, read, take_out
from parc.autodiff.keep import Keep
from parc.autodiff.outside import Outside, Part
from parc.autodiff.reverse import Reverse
from parc.autodiff.sets import affine_map
from parc.autodiff.stores import Stores
from parc.autodiff.transpose import Link, Transposed
from parc.codegen.irtools import captured_values, clone_with
from parc.poly.model import Equation, System, build


class SystemAdjoint:
    """Emits, at the current insertion point, the adjoint of a solved system.

    `wanted` tells of which captured values the cotangents are asked for.  `run` takes the cotangents of the system's
    arrays, by name, and returns those of the captured values, each in parts that add up.  CompileError
    where an equation cannot be differentiated, or where its accesses cannot be turned around.
    """

    def __init__(self, system: ir.Operation, wanted: Callable[[ir.Value], bool]) -> None:
        self.system = system
        self._model: System = build(system)
        self._wanted = wanted
        self._symbols = list(system.operands)
        self._unknowns = {u.op.results[0]: u.name for u in self._model.unknowns}
        self._arrays: dict[ir.Value, ir.Value] = {}
        self.active = self._active_arrays()
        """The unknown arrays that depend differentiably on a wanted value, by name."""
        self.recomputed: dict[str, list[str]] = {}
        """What `run` leaves to be computed again, by equation."""

    def run(self, cotangents: Mapping[str, ir.Value]) -> list[Part]:
        """Emit everything; pairs of a captured value and a part of its cotangent."""
        live = self._live_arrays(cotangents)
        given = {a: cotangents[n] for a, n in self._unknowns.items() if n in cotangents}
        attributes = {"symbols": self.system.attributes["symbols"]}
        type_, location = self.system.results[0].type, self.system.location
        new = ir.Operation.create("parc.system", [type_], self._symbols, attributes, regions=1, loc=location)
        new.regions[0].blocks.append()
        adjoints = [
            self._differentiate(equation, live, new)
            for equation in self._model.equations
            if any(w.array in live for w in equation.writes)
        ]
        stores = Stores(self._model.context, self._symbols)
        transposed = Transposed(adjoints, set(given), stores)
        outside = Outside(transposed, stores, self._symbols, self._model.context)
        uses = [u for a in adjoints for u in a.uses if u.access is None or u.array not in self._unknowns]
        plans = [outside.plan(use) for use in uses]
        boundary_plans = [
            outside.boundary_plan(b, given.get(b.op.operands[0]))
            for b in self._model.boundaries
            if self._unknowns[b.op.operands[0]] in live and self._wanted(b.op.operands[1])
        ]
        links = {
            write: transposed.links(
                write.operands[1],
                adjoint.forward.domain,
                ir.AffineMapAttr(write.attributes["at"]).value,
                write.location,
            )
            for adjoint in adjoints
            for write in adjoint.seeds
        }
        with stores.emit(new):
            parts = [plan() for plan in plans] + [part for plan in boundary_plans for part in plan()]
        for adjoint in adjoints:
            self._fill(adjoint, links, given)
        for adjoint in adjoints:
            for seed in adjoint.seeds.values():
                seed.owner.erase()
        keep = Keep(self.system, self._array, outside.kept, self._symbols)
        for adjoint in adjoints:
            keep.cut(adjoint)
            if adjoint.recomputed:
                self.recomputed[adjoint.name] = adjoint.recomputed
            hoist_invariants(body_of(adjoint.op), new)
            if not named(body_of(adjoint.op), "parc.write"):
                adjoint.op.erase()
        stores.tidy()
        if not named(body_of(new), "parc.equation"):
            new.erase()
        return parts

    def _array(self, unknown: ir.Value) -> ir.Value:
        """The solved array of an unknown of the forward system."""
        if unknown not in self._arrays:
            name = unknown.owner.attributes["name"]
            uses = (u.owner.operation for u in self.system.results[0].uses)
            found = next((o.results[0] for o in uses if o.attributes["name"] == name), None)
            if found is None:
                with ir.InsertionPoint.after(self.system), self.system.location:
                    found = take_out(self.system, ir.StringAttr(name).value, unknown.type)
            self._arrays[unknown] = found
        return self._arrays[unknown]

    # What depends on what.

    def _active_arrays(self) -> set[str]:
        """The unknown arrays that depend differentiably on a wanted value."""
        active = {self._unknowns[b.op.operands[0]] for b in self._model.boundaries if self._wanted(b.op.operands[1])}
        grew = True
        while grew:
            grew = False
            for equation in self._model.equations:
                written = {w.array for w in equation.writes}
                if written <= active:
                    continue
                moved = self._reverse(equation.op, self._wanted_in(equation.op, active)).active
                now = {self._unknowns[w.op.operands[1]] for w in equation.writes if w.op.operands[0] in moved}
                grew = grew or not now <= active
                active |= now
        return active

    def _live_arrays(self, cotangents: Container[str]) -> set[str]:
        """The active arrays whose elements something with a cotangent depends on."""
        live = {name for name in self.active if name in cotangents}
        grew = True
        while grew:
            grew = False
            for equation in self._model.equations:
                if any(w.array in live for w in equation.writes):
                    read = {r.array for r in equation.reads if r.array in self.active}
                    grew = grew or not read <= live
                    live |= read
        return live

    def _wanted_in(self, equation: ir.Operation, active: set[str]) -> list[ir.Value]:
        """The reads and captured values of an equation that are to be differentiated for."""
        block = body_of(equation)
        found = []
        for op in block.operations:
            operation = op.operation
            if operation.name == "parc.read":
                source = operation.operands[0]
                if self._unknowns[source] in active if source in self._unknowns else self._wanted(source):
                    found.append(operation.results[0])
            elif operation.name != "parc.write":
                found += [v for v in captured_values(operation) if is_outside(v, block) and self._wanted(v)]
        return list(dict.fromkeys(found))

    def _reverse(self, equation: ir.Operation, wanted: Sequence[ir.Value]) -> Reverse:
        skipped = ("parc.read", "parc.write")
        ops = [o.operation for o in body_of(equation).operations if o.operation.name not in skipped]
        return Reverse(ops, wanted, Sizes())

    # One equation.

    def _differentiate(self, equation: Equation, live: set[str], new: ir.Operation) -> EquationAdjoint:
        """The adjoint equation, with stand-ins for the cotangents of what the equation writes."""
        forward = body_of(equation.op)
        with ir.InsertionPoint(body_of(new)), equation.op.location:
            op = ir.Operation.create(
                "parc.equation",
                attributes={
                    "name": ir.StringAttr.get(f"{equation.name}_adjoint"),
                    "domain": equation.op.attributes["domain"],
                },
                regions=1,
            )
        types = [a.type for a in forward.arguments]
        block = op.regions[0].blocks.append(*types, arg_locs=[op.location] * len(types))
        adjoint = EquationAdjoint(equation, op, dict(zip(forward.arguments, block.arguments, strict=True)))
        wanted = self._wanted_in(equation.op, self.active)
        with ir.InsertionPoint(block):
            for inner in forward.operations:
                self._copy(inner.operation, adjoint)
            copied = [adjoint.copies.get(v, v) for v in wanted]
            reverse = self._reverse(op, copied)
            for write in named(forward, "parc.write"):
                tile, array = write.operands
                value = adjoint.copies.get(tile, tile)
                if self._unknowns[array] in live and value in reverse.active:
                    with write.location:
                        # A stand-in that has the extents of what it stands for.
                        name = "builtin.unrealized_conversion_cast"
                        seed = ir.Operation.create(name, results=[tile.type], operands=[value]).results[0]
                    adjoint.seeds[write] = seed
                    reverse.seed(value, seed)
            reverse.run()
            hoist_invariants(block, new)
            for original, value in zip(wanted, copied, strict=True):
                adjoint.uses += uses_of(adjoint, original, reverse.contributions(value), self._unknowns)
        return adjoint

    def _copy(self, op: ir.Operation, adjoint: EquationAdjoint) -> None:
        """Copy an operation of the forward body; reads take solved arrays."""
        if op.name == "parc.write":
            return
        copy = clone_with(op, adjoint.copies)
        if op.name == "parc.read" and op.operands[0] in self._unknowns:
            copy.operands[0] = self._array(op.operands[0])

    # The body of the adjoint equations.

    def _fill(
        self, adjoint: EquationAdjoint, links: Mapping[ir.Operation, Sequence[Link]], given: Mapping[ir.Value, ir.Value]
    ) -> None:
        """Put the cotangents of what the forward equation writes in the place of the stand-ins."""
        for write, seed in adjoint.seeds.items():
            with ir.InsertionPoint.at_block_begin(body_of(adjoint.op)), write.location:
                cotangent = self._cotangent(write, links[write], given.get(write.operands[1]))
                seed.replace_all_uses_with(cotangent)

    def _cotangent(self, write: ir.Operation, links: Sequence[Link], given: ir.Value | None) -> ir.Value:
        """The sum of what its readers contribute, and of its own cotangent outside of the system."""
        tile = write.operands[0]
        parts = []
        if given is not None:
            parts.append(read(given, ir.AffineMapAttr(write.attributes["at"]).value, tile.type))
        for link in links:
            at = affine_map(link.stored.moved(link.at))
            if link.product is None:
                value = read(link.stored.array, at, link.stored.value.type)
            else:
                varying = link.product.operands[link.operand]
                value = clone_with(link.product, {varying: read(link.stored.array, at, varying.type)}).results[0]
            parts.append(value if value.type == tile.type else tensor.CastOp(tile.type, value).result)
        if not parts:
            return filled(empty_of(Sizes().of(tile), tile.type.element_type))
        return total(parts, Sizes())
