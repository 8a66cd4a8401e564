"""The systems of a Newton sweep: a recurrence's step and its derivative at all points at once, then the affine rest.

    products[t], terms[t], jacobian[t]:  f(old[t]), r[t] = f(old[t]) - old[t + 1] and J[t]
    step[t]:                             d[t + 1] = J[t] d[t] + r[t], with 0 for d where the states are given
    next[t]:                             new[t + 1] = f(old[t]) + (d[t + 1] - r[t]), f(old[t]) where that is no number

Several states are one tile of all their units, in `d`, `r` and `f`.
"""

from collections.abc import Mapping, Sequence
from math import inf

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, math, tensor

from parc.autodiff import emit
from parc.autodiff.extents import Sizes
from parc.autodiff.irtools import read
from parc.autodiff.tangent import Forward, Tangent, is_bare, with_units
from parc.codegen.irtools import clone_with
from parc.errors import CompileError
from parc.iterative.copies import SystemCopy, require
from parc.iterative.coupled import State, Step, single_step
from parc.iterative.depth import Depth
from parc.iterative.strips import share_out
from parc.passes.split_products import gapless_index, input_products, split_into, split_system
from parc.poly.affine import SET, from_aff, from_set, to_aff, to_map
from parc.poly.boxes import Box, bounding_box, on_space
from parc.poly.model import System, build

_NARROW = 16
_BLOCK, _ADDED = "jacobian", "added"


class Linearised:
    """Emits sweeps over the recurrence of a system."""

    def __init__(self, system: System, depth: Depth, is_dense: bool) -> None:
        """`is_dense`: with all of J.  CompileError where there is no derivative, or no single step.

        Needs a current MLIR context; `erase` when all is emitted.
        """
        self._system = system
        self._depth = depth
        with ir.InsertionPoint(system.op):
            self._copy = system.op.clone()
        try:
            self._prepare(is_dense)
        except BaseException:
            self._copy.erase()
            raise

    def erase(self) -> None:
        """Erase what sweeps are made from."""
        self._copy.erase()

    def sweep(self, olds: Mapping[str, ir.Value], factor: ir.Value, workers: int) -> dict[str, ir.Value]:
        """The new iterates for old ones, with J times `factor`, a tensor of one number; at the insertion point.

        workers: threads that share the points which are computed at once, where tiles are narrow; 1 leaves that to
        `schedule`.
        """
        first = SystemCopy(self._system, {})
        terms = self._terms(first)
        self._linearise(first, olds, factor, terms)
        known = [self._take(first, array) for array in terms]
        linear = SystemCopy(self._system, {})
        added = self._take(linear, self._solve(linear, known))
        linear.op.attributes["solver"] = ir.StringAttr.get("scan")
        last = SystemCopy(self._system, {})
        for name in self._names:
            last.unknown(name)
            last.boundaries(name)
        self._add(last, known, added)
        # Wide tiles are shared by their units.
        is_narrow = workers > 1 and sum(self._units) <= _NARROW
        if is_narrow:
            # Equations that are cut later would lose their times.
            split_system(first.op)
            share_out(build(first.op), workers)
        if not self._go_on(last) and is_narrow:
            share_out(build(last.op), workers)
        return {name: last.take(name) for name in self._names}

    def _take(self, copy: SystemCopy, array: ir.Value) -> ir.Value:
        """An array of a system, behind it."""
        attributes = {"name": array.owner.attributes["name"]}
        return ir.Operation.create("parc.array", [array.type], [copy.op.results[0]], attributes).results[0]

    def _prepare(self, is_dense: bool) -> None:
        self._step: Step = single_step(build(self._copy))
        self.is_diagonal = not is_dense or self._is_diagonal()
        self._states = self._step.states
        first = self._states[0]
        self._names = [name for s in self._states for name in s.names]
        self._units = [s.units for s in self._states]
        is_row = is_bare(first.tile) and len(self._states) == 1
        self._width = [] if is_row else [sum(self._units)]
        self._behind = self._first_behind()
        self._added = self._box(first)
        self._write_at = self._inside(first.writes[0].attributes["at"].value)
        self._read_at = self._inside(first.reads[0].attributes["at"].value)
        self._at, self._extents = gapless_index(self._copy, self._step.equation)
        shape = list(first.arrays[0].owner.attributes["shape"].value.results)
        tile = shape[len(self._write_at.results) :]
        self._rows = tile if is_bare(first.tile) else tile[:-1]

    def _box(self, state: State) -> Box:
        """The elements of a state that the recurrence reads or writes."""
        at = state.writes[0].attributes["at"].value
        rank = len(at.results)
        found = to_map(at, self._step.points.reset_tuple_id(), "").range()
        for boundary in self._system.boundaries:
            if boundary.target.array == state.name:
                given = boundary.target.relation.range().reset_tuple_id()
                found = found.union(given.project_out(SET, rank, given.dim(SET) - rank))
        box = bounding_box(found.coalesce())
        if box is None:
            raise CompileError(f"what is given of {state.name} has no affine bounds", self._step.equation.location)
        self._unused = box.points(found.get_space()).subtract(found)
        return box

    def _inside(self, at: ir.AffineMap) -> ir.AffineMap:
        """An access to the first state as one to what is added to it, which starts at 0."""
        index = [expr - from_aff(lower) for expr, lower in zip(at.results, self._added.lower, strict=True)]
        return ir.AffineMap.get(at.n_dims, at.n_symbols, index)

    # -- unknowns ----------------------------------------------------------------------------------------------------

    def _terms(self, copy: SystemCopy) -> list[ir.Value]:
        """Unknowns for f(old), r and J, by each state; of a diagonal J, one array.

        They are indexed like the points that write them.
        """
        name, front, width = self._states[0].name, [*self._extents, *self._rows], self._width
        columns = [[]] if self.is_diagonal else [[ir.AffineExpr.get_constant(units)] for units in self._units]
        return [
            self._unknown(copy, f"{name}_value", [*front, *width]),
            self._unknown(copy, f"{name}_residual", [*front, *width]),
            *(self._unknown(copy, f"{name}_{_BLOCK}{i}", [*front, *c, *width]) for i, c in enumerate(columns)),
        ]

    def _unknown(self, copy: SystemCopy, name: str, extents: Sequence[ir.AffineExpr | int]) -> ir.Value:
        shape = [e if isinstance(e, ir.AffineExpr) else ir.AffineExpr.get_constant(e) for e in extents]
        mark = ir.ShapedType.get_dynamic_size()
        plain = [e.maybe_downcast() for e in shape]
        static = [e.value if isinstance(e, ir.AffineConstantExpr) else mark for e in plain]
        with ir.InsertionPoint.at_block_begin(self._body(copy)):
            return ir.Operation.create(
                "parc.unknown",
                results=[ir.RankedTensorType.get(static, self._states[0].tile.element_type)],
                attributes={
                    "name": ir.StringAttr.get(name),
                    "shape": ir.AffineMapAttr.get(ir.AffineMap.get(0, len(copy.symbols), shape)),
                },
            ).results[0]

    def _given(self, copy: SystemCopy, added: ir.Value) -> None:
        """Where the states are given, nothing is added."""
        element = ir.RankedTensorType(added.type).element_type
        with ir.InsertionPoint(copy.op):
            sizes = Sizes().apply(ir.AffineMap.get(0, len(copy.symbols), self._rows), list(self._system.op.operands))
            zero = emit.filled(emit.empty_of([*sizes, *self._width], element))
        rank, symbols = self._unused.dim(SET), len(copy.symbols)
        everywhere = ir.AffineMap.get(rank, symbols, [ir.AffineExpr.get_dim(i) for i in range(rank)])
        for domain in from_set(self._unused.gist_params(self._system.context).coalesce()):
            with ir.InsertionPoint(self._body(copy)):
                ir.Operation.create(
                    "parc.boundary",
                    operands=[added, zero],
                    attributes={
                        "domain": domain,
                        "to": ir.AffineMapAttr.get(everywhere),
                        "of": ir.AffineMapAttr.get(ir.AffineMap.get(rank, symbols, [])),
                    },
                )
        for boundary in self._system.boundaries:
            if boundary.target.array != self._states[0].name:
                continue
            with ir.InsertionPoint(self._body(copy)):
                given = boundary.op.clone()
            to = self._inside(given.attributes["to"].value)
            given.attributes["to"] = ir.AffineMapAttr.get(to)
            given.operands[0], given.operands[1] = added, zero
            given.attributes["of"] = ir.AffineMapAttr.get(ir.AffineMap.get(to.n_dims, to.n_symbols, []))

    # -- equations ---------------------------------------------------------------------------------------------------

    def _linearise(
        self, copy: SystemCopy, olds: Mapping[str, ir.Value], factor: ir.Value, terms: Sequence[ir.Value]
    ) -> None:
        """The step and its derivative at the old states, at all points."""
        equation = self._equation(copy, "linear")
        block = equation.regions[0].blocks[0]
        with ir.InsertionPoint(block), equation.location:
            values = self._evaluate(block, olds)
            results = [values[s.value] for s in self._states]
            before = [read(olds[s.name], s.writes[0].attributes["at"].value, s.tile) for s in self._states]
            differences = [
                emit.elementwise([new, old], arith.subf, Sizes()) for new, old in zip(results, before, strict=True)
            ]
            self._write(self._joined(results), terms[0])
            self._write(self._joined(differences), terms[1])
            plain = [op.operation for op in block.operations]
            tiles = [self._tangents(equation, values, state) for state in self._states]
            for tile, array in zip(self._blocks(tiles), terms[2:], strict=True):
                self._write(self._damped(tile, factor), array)
        derivative = [op.operation for op in block.operations if op.operation not in set(plain)]
        products = input_products(copy.op, equation)
        rest = [op for op in plain if op not in products]
        stages = [(f"products{i}", [op]) for i, op in enumerate(products)]
        stages += [("terms", rest), (_BLOCK, derivative)] if not self.is_diagonal else [("terms", rest + derivative)]
        split_into(copy.op, equation, stages)

    def _solve(self, copy: SystemCopy, terms: Sequence[ir.Value]) -> ir.Value:
        """The affine recurrence; its unknown."""
        name = f"{self._states[0].name}_{_ADDED}"
        added = self._unknown(copy, name, [*self._added.extents(), *self._rows, *self._width])
        self._given(copy, added)
        equation = self._equation(copy, "step")
        _, residual, *blocks = terms
        with ir.InsertionPoint(equation.regions[0].blocks[0]), equation.location:
            before = self._read(added, self._read_at)
            total = self._read(residual, self._at)
            if self.is_diagonal:
                product = emit.elementwise([self._read(blocks[0], self._at), before], arith.mulf, Sizes())
                total = emit.elementwise([product, total], arith.addf, Sizes())
            else:
                first = 0
                for array, state in zip(blocks, self._states, strict=True):
                    total = _times(self._of(state, before, first, has_units=True), self._read(array, self._at), total)
                    first += state.units
            self._write(total, added, self._write_at)
        return added

    def _add(self, copy: SystemCopy, terms: Sequence[ir.Value], added: ir.Value) -> None:
        """The new states."""
        equation = self._equation(copy, "next")
        with ir.InsertionPoint(equation.regions[0].blocks[0]), equation.location:
            tiles = [
                self._read(terms[0], self._at),
                self._read(added, self._write_at),
                self._read(terms[1], self._at),
            ]

            def corrected(value: ir.Value, change: ir.Value, residual: ir.Value) -> ir.Value:
                more = arith.subf(change, residual)
                return arith.select(_is_finite(more), arith.addf(value, more), value)

            joined = emit.elementwise(tiles, corrected, Sizes())
            first = 0
            for state in self._states:
                part = self._of(state, joined, first)
                for name, write in zip(state.names, state.writes, strict=True):
                    self._write(part, copy.arrays[name], write.attributes["at"].value)
                first += state.units

    def _go_on(self, copy: SystemCopy) -> bool:
        """What equations compute behind the points that all of them have, from the new states; is there any?"""
        goes_on = False
        for equation in self._system.equations:
            points = require(equation.domain, self._depth.of[equation.name].expr() - self._behind)
            if points.is_empty():
                continue
            goes_on = True
            written = [w.array for w in equation.writes]
            for array in {*written, *(r.array for r in equation.reads)} - set(copy.arrays):
                copy.unknown(array)
                copy.boundaries(array)
            copy.equation(equation, points, lambda _read, _name: None, written)
        return goes_on

    def _first_behind(self) -> ir.AffineExpr:
        """The first depth at which not all equations go on; CompileError where others follow."""
        points = self._step.points
        depths = isl.Map.from_aff(self._depth.of[self._step.name].aff(points)).intersect_domain(points).range()
        box = bounding_box(depths)
        if box is not None:
            behind = box.lower[0].add(box.extent[0])
            space = points.get_space()
            after = to_aff(self._depth.deepest, space).sub(on_space(space, behind))
            if after.is_cst() and after.get_constant_val().to_python() <= 0:
                return from_aff(behind)
        raise CompileError(
            f"the states of {self._step.name} do not all go on to the same step, or the one before the last",
            self._step.equation.location,
        )

    # -- the derivative ----------------------------------------------------------------------------------------------

    def _is_diagonal(self) -> bool:
        """Is J diagonal, as a whole?"""
        equation = self._step.equation
        block = equation.regions[0].blocks[0]
        known = list(block.operations)
        found = []
        with ir.InsertionPoint(block), equation.location:
            for by in self._step.states:
                forward = Forward(equation, [r.results[0] for r in by.reads], is_dense=True)
                tangents = [forward.of(s.value) for s in self._step.states]
                found += [
                    t.dense is None and (s is by or t.diagonal is None)
                    for s, t in zip(self._step.states, tangents, strict=True)
                ]
        for op in reversed([o for o in block.operations if o not in known]):
            op.operation.erase()
        return all(found)

    def _tangents(
        self, equation: ir.Operation, values: Mapping[ir.Value, ir.Value], by: State
    ) -> list[ir.Value | None]:
        """The derivatives of all states by one: diagonals, or dense parts."""
        forward = Forward(equation, [values[r.results[0]] for r in by.reads], is_dense=not self.is_diagonal)
        found: list[ir.Value | None] = []
        for state in self._states:
            tangent: Tangent = forward.of(values[state.value])
            if self.is_diagonal:
                found.append(tangent.diagonal if state is by else None)
            else:
                found.append(forward.as_dense(tangent))
        return found

    def _blocks(self, tiles: Sequence[Sequence[ir.Value | None]]) -> list[ir.Value]:
        """The tiles of J from the derivatives by each state."""
        if self.is_diagonal:
            own = [tiles[i][i] for i in range(len(tiles))]
            return [self._joined([self._or_zeros(t, s, []) for t, s in zip(own, self._states, strict=True)])]
        return [
            self._joined([self._or_zeros(t, s, [units]) for t, s in zip(by, self._states, strict=True)])
            for by, units in zip(tiles, self._units, strict=True)
        ]

    def _or_zeros(self, tile: ir.Value | None, state: State, columns: Sequence[int]) -> ir.Value:
        if tile is not None:
            return tile
        sizes = Sizes().apply(
            ir.AffineMap.get(0, len(self._system.symbols), self._rows), list(self._system.op.operands)
        )
        return emit.filled(emit.empty_of([*sizes, *columns, *self._columns_of(state)], state.tile.element_type))

    def _columns_of(self, state: State) -> list[int]:
        return [] if is_bare(state.tile) and not self._width else [state.units]

    def _damped(self, tile: ir.Value, factor: ir.Value) -> ir.Value:
        """J times a number; 0 for what is none."""
        rank = tile.type.rank
        whole, nowhere = ir.AffineMap.get_identity(rank), ir.AffineMap.get(rank, 0, [])
        op = emit.generic([tile, factor], [emit.empty(tile, Sizes())], [whole, nowhere, whole])
        block = op.regions[0].blocks[0]
        entry, by, _ = block.arguments
        with ir.InsertionPoint(block):
            product = arith.mulf(entry, by)
            linalg.YieldOp([arith.select(_is_finite(entry), product, emit.constant(entry.type, 0))])
        return op.results[0]

    # -- parts -------------------------------------------------------------------------------------------------------

    def _evaluate(self, block: ir.Block, olds: Mapping[str, ir.Value]) -> dict[ir.Value, ir.Value]:
        """Copy the step's body, with the old states in place of its own; the copies of its values."""
        old = self._step.equation.regions[0].blocks[0]
        values: dict[ir.Value, ir.Value] = dict(zip(old.arguments, block.arguments, strict=True))
        values |= {array: olds[name] for s in self._states for array, name in zip(s.arrays, s.names, strict=True)}
        for op in old.operations:
            if op.operation.name != "parc.write":
                clone_with(op, values)
        return values

    def _joined(self, tiles: Sequence[ir.Value]) -> ir.Value:
        """Tiles next to each other, as one."""
        if len(tiles) == 1:
            return tiles[0]
        tiles = [with_units(t) if is_bare(t.type) else t for t in tiles]
        type_ = tiles[0].type
        shape = [*type_.shape[:-1], sum(t.type.shape[-1] for t in tiles)]
        return tensor.ConcatOp(ir.RankedTensorType.get(shape, type_.element_type), type_.rank - 1, tiles).result

    def _of(self, state: State, tile: ir.Value, first: int, *, has_units: bool = False) -> ir.Value:
        """The columns of one state, from `first` on; `has_units`: with a dimension for them in any case."""
        if len(self._states) == 1:
            return tile
        *rows, _ = Sizes().of(tile)
        rank, type_ = tile.type.rank, state.tile
        if has_units and is_bare(type_):
            type_ = ir.RankedTensorType.get([*type_.shape, 1], type_.element_type)
        return emit.extract_slice(tile, [0] * (rank - 1) + [first], [*rows, state.units], [1] * rank, type_)

    def _equation(self, copy: SystemCopy, name: str) -> ir.Operation:
        """An equation at the points of the recurrence, without operations."""
        old = self._step.equation
        label = f"{ir.StringAttr(old.attributes['name']).value}_{name}"
        attributes = {"name": ir.StringAttr.get(label), "domain": old.attributes["domain"]}
        with ir.InsertionPoint(self._body(copy)), old.location:
            op = ir.Operation.create("parc.equation", attributes=attributes, regions=1)
        types = [a.type for a in old.regions[0].blocks[0].arguments]
        op.regions[0].blocks.append(*types, arg_locs=[old.location] * len(types))
        return op

    def _read(self, array: ir.Value, at: ir.AffineMap) -> ir.Value:
        type_ = ir.RankedTensorType(array.type)
        return read(array, at, ir.RankedTensorType.get(type_.shape[len(at.results) :], type_.element_type))

    def _write(self, tile: ir.Value, array: ir.Value, at: ir.AffineMap | None = None) -> None:
        attributes = {"at": ir.AffineMapAttr.get(at or self._at)}
        ir.Operation.create("parc.write", operands=[tile, array], attributes=attributes)

    def _body(self, copy: SystemCopy) -> ir.Block:
        return copy.op.regions[0].blocks[0]


def _times(state: ir.Value, block: ir.Value, start: ir.Value) -> ir.Value:
    """`start`, and the product of each row of a state with its block."""
    *rows, k, n = (ir.AffineExpr.get_dim(d) for d in range(block.type.rank))
    count = len(rows) + 2
    maps = [
        ir.AffineMap.get(count, 0, [*rows, k]),
        ir.AffineMap.get_identity(count),
        ir.AffineMap.get(count, 0, [*rows, n]),
    ]
    op = emit.generic([state, block], [start], maps)
    inner = op.regions[0].blocks[0]
    a, b, total = inner.arguments
    with ir.InsertionPoint(inner):
        linalg.YieldOp([arith.addf(total, arith.mulf(a, b))])
    return op.results[0]


def _is_finite(number: ir.Value) -> ir.Value:
    return arith.cmpf(arith.CmpFPredicate.OLT, math.absf(number), arith.constant(number.type, inf))
