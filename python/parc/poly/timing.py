"""The smallest affine time of a group of equations: Feautrier's one-dimensional scheduling, solved exactly by isl.

Each equation gets `time(x) = dims . x + symbols . n + constant` for its instance x and the system's symbols n.  That
a dependence is kept at every instance and size is, by Farkas' lemma, a set of linear constraints on the coefficients
(P. Feautrier, Some efficient solutions to the affine scheduling problem, part I, 1992); isl gives them as the
`coefficients` of the dependence.  Of all solutions the one is taken that ends first, then keeps producers close to
their consumers (U. Bondhugula et al., PLDI 2008, section 3.2), then has the smallest coefficients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import IN, PARAM, SET, affine_expr
from parc.poly.dependences import Dependence
from parc.poly.model import Equation, System


@dataclass(frozen=True)
class AffineTime:
    """`dims . x + symbols . n + constant`."""

    dims: tuple[int, ...]
    symbols: tuple[int, ...]
    constant: int

    def shifted(self, by: int) -> "AffineTime":
        return AffineTime(self.dims, self.symbols, self.constant + by)

    def expr(self) -> ir.AffineExpr:
        """The MLIR form; needs a current MLIR context."""
        return affine_expr(self.dims, self.symbols, self.constant)

    def aff(self, domain: isl.Set) -> isl.Aff:
        """The isl form over the space of `domain`."""
        result = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(domain.get_space()))
        for kind, coefficients in ((PARAM, self.symbols), (IN, self.dims)):
            for i, coefficient in enumerate(coefficients):
                result = result.set_coefficient_val(kind, i, isl.Val(coefficient))
        return result.set_constant_val(isl.Val(self.constant))


_Form = dict[str, int]
"""A linear form over the unknowns of the integer program: coefficients by name; the constant's name is empty."""

_END, _END_CONSTANT, _REUSE, _REUSE_CONSTANT, _SYMBOLS, _DIMS = _OBJECTIVES = (
    "end", "end constant", "reuse", "reuse constant", "sum of |symbols|", "sum of |dims|"
)  # fmt: skip
"""What is minimised, the first first: every time ends by `end . n + end constant`, and so on."""


def solve(
    system: System,
    group: Sequence[Equation],
    least: Mapping[Dependence, int],
    fixed: Mapping[str, AffineTime],
) -> dict[str, AffineTime] | None:
    """The smallest times of the equations of `group`, or None when no affine time exists.

    Each dependence in `least`, from an equation of the group or of `fixed` (whose times are given) to one of the group,
    spans at least that much time.  No time is negative.
    """
    constant = _constant_times(system, group, least, fixed)
    if constant is not None:
        return constant
    problem = _Problem(system, group, fixed, list(least))
    for dependence, distance in least.items():
        problem.add_dependence(dependence, distance)
    return problem.solve()


def _constant_times(
    system: System, group: Sequence[Equation], least: Mapping[Dependence, int], fixed: Mapping[str, AffineTime]
) -> dict[str, AffineTime] | None:
    """The times of equations that no recurrence is part of or comes before, which are constants; None for others.

    They are those that the integer program finds, which takes long where there are many symbols.
    """
    times = dict.fromkeys((e.name for e in group), 0)
    for _ in range(len(group) + 1):
        before = dict(times)
        for dependence, distance in least.items():
            source = fixed.get(dependence.source)
            if source is not None and any((*source.dims, *source.symbols)):
                return None
            start = times[dependence.source] if source is None else source.constant
            times[dependence.sink] = max(times[dependence.sink], start + distance)
        if times == before:
            symbols = (0,) * len(system.symbols)
            return {e.name: AffineTime((0,) * e.domain.dim(SET), symbols, times[e.name]) for e in group}
    return None


class _Problem:
    """The integer program for one group."""

    def __init__(
        self,
        system: System,
        group: Sequence[Equation],
        fixed: Mapping[str, AffineTime],
        dependences: Iterable[Dependence],
    ) -> None:
        self.fixed = fixed
        self.ranks = {e.name: e.domain.dim(SET) for e in group}
        # A symbol that bounds nothing here (a batch size) would only make the program larger.
        involved = [e.domain for e in group] + [d.relation.wrap() for d in dependences]
        involved = [points.gist_params(system.context) for points in involved]
        self.symbol_count = len(system.symbols)
        self.symbols = [k for k in range(self.symbol_count) if any(p.involves_dims(PARAM, k, 1) for p in involved)]
        self.equalities: list[_Form] = []
        self.inequalities: list[_Form] = [{_REUSE_CONSTANT: 1}]
        self._define_sums()
        for equation in group:
            time = self._time(equation.name)
            self._require(equation.domain, time)
            self._require(equation.domain, _minus(self._bound(_END, _END_CONSTANT), time, self.ranks[equation.name]))

    def add_dependence(self, dependence: Dependence, least: int) -> None:
        """time(sink) - time(source) is at least `least`, and at most the reuse bound inside the group."""
        points = dependence.relation.wrap()
        source, sink = self._time(dependence.source), self._time(dependence.sink)
        constants = 1 + len(self.symbols)
        distance = [_sum([(1, b), (-1, a)]) for a, b in zip(source[:constants], sink[:constants], strict=True)]
        distance += [_sum([(-1, a)]) for a in source[constants:]] + sink[constants:]
        self._require(points, [_sum([(1, distance[0]), (1, {"": -least})]), *distance[1:]])
        if dependence.source in self.ranks:
            bound = self._bound(_REUSE, _REUSE_CONSTANT)
            self._require(points, _minus(bound, distance, len(distance) - constants))

    def solve(self) -> dict[str, AffineTime] | None:
        """The lexicographically smallest solution, in the order of the objectives."""
        names = dict.fromkeys([*_OBJECTIVES, *chain(*self.equalities, *self.inequalities)])
        names.pop("", None)
        columns = [*names, ""]
        solutions = isl.BasicSet.from_constraint_matrices(
            isl.Space.set_alloc(isl.DEFAULT_CONTEXT, 0, len(names)),
            _matrix(self.equalities, columns),
            _matrix(self.inequalities, columns),
            SET,
            isl.dim_type.div,
            PARAM,
            isl.dim_type.cst,
        ).lexmin()
        if solutions.is_empty():
            return None
        point = solutions.sample_point()
        values = {name: point.get_coordinate_val(SET, i).to_python() for i, name in enumerate(names)}
        return {name: self._value(name, values) for name in self.ranks}

    def _value(self, name: str, values: Mapping[str, int]) -> AffineTime:
        constant, *rest = (sum(c * values.get(v, 0) for v, c in form.items()) for form in self._time(name))
        symbols = dict(zip(self.symbols, rest, strict=False))
        return AffineTime(
            dims=tuple(rest[len(self.symbols) :]),
            symbols=tuple(symbols.get(k, 0) for k in range(self.symbol_count)),
            constant=constant,
        )

    def _time(self, name: str) -> list[_Form]:
        """The coefficients of an equation's time: the constant, the symbols, the dimensions."""
        if name in self.fixed:
            time = self.fixed[name]
            return [{"": c} for c in (time.constant, *(time.symbols[k] for k in self.symbols), *time.dims)]
        return [{f"{name} constant": 1}, *(_signed(v) for v in self._coefficients(name))]

    def _coefficients(self, name: str) -> list[str]:
        symbols = [f"{name} symbol {k}" for k in self.symbols]
        return symbols + [f"{name} dim {i}" for i in range(self.ranks[name])]

    def _bound(self, name: str, constant: str) -> list[_Form]:
        return [{constant: 1}, *({f"{name} {k}": 1} for k in self.symbols)]

    def _define_sums(self) -> None:
        """The objectives that are sums are equal to them, and what is summed is not negative."""
        sums: dict[str, list[str]] = {name: [f"{name} {k}" for k in self.symbols] for name in (_END, _REUSE)}
        sums |= {_SYMBOLS: [], _DIMS: []}
        for name in self.ranks:
            for i, coefficient in enumerate(self._coefficients(name)):
                sums[_SYMBOLS if i < len(self.symbols) else _DIMS] += _signed(coefficient)
        for total, terms in sums.items():
            self.equalities.append({total: -1} | dict.fromkeys(terms, 1))
            self.inequalities += [{term: 1} for term in terms]

    def _require(self, points: isl.Set, form: list[_Form]) -> None:
        """`form` is not negative at any of the `points` (Farkas' lemma); its order is that of `_time`."""
        for k in reversed(range(self.symbol_count)):
            if k not in self.symbols:
                points = points.project_out(PARAM, k, 1)
        for basic in points.remove_divs().get_basic_sets():
            for constraint in basic.coefficients().get_constraints():
                weights = [constraint.get_coefficient_val(SET, i).to_python() for i in range(len(form))]
                rows = self.equalities if constraint.is_equality() else self.inequalities
                rows.append(_sum(zip(weights, form, strict=True)))


def _signed(name: str) -> _Form:
    """A coefficient of either sign as the difference of two that are not negative."""
    return {f"{name} +": 1, f"{name} -": -1}


def _sum(terms: Iterable[tuple[int, _Form]]) -> _Form:
    total: _Form = {}
    for weight, form in terms:
        for name, coefficient in form.items():
            total[name] = total.get(name, 0) + weight * coefficient
    return total


def _minus(bound: list[_Form], form: list[_Form], dims: int) -> list[_Form]:
    """`bound`, which has no dimensions, minus `form`, which has `dims` of them."""
    return [_sum([(1, b), (-1, f)]) for b, f in zip(bound + [{}] * dims, form, strict=True)]


def _matrix(rows: list[_Form], columns: list[str]) -> isl.Mat:
    """The different rows as a matrix."""
    different = list({frozenset((n, c) for n, c in row.items() if c): None for row in rows})
    position = {name: j for j, name in enumerate(columns)}
    matrix = isl.Mat.alloc(isl.DEFAULT_CONTEXT, 0, len(columns)).add_zero_rows(len(different))
    for i, row in enumerate(different):
        for name, coefficient in row:
            matrix = matrix.set_element_val(i, position[name], isl.Val(coefficient))
    return matrix
