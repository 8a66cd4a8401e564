"""Exact numbers of points of sets, as polynomials of the sizes where they have that form."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import islpy as isl

from parc.poly.affine import IN, OUT, PARAM, SET
from parc.poly.model import Equation, System
from parc.poly.wavefront import Layer


@dataclass(frozen=True, eq=False)
class Part:
    """Points of one set, each of which counts `weight` times."""

    points: isl.Set
    number: isl.PwQPolynomial | None
    """How many there are as a function of the symbols; None where the set is no box."""
    weight: isl.PwQPolynomial | None = None
    """A function of the symbols; None for 1."""

    def total(self) -> isl.PwQPolynomial | None:
        """The weights of all points as a function of the symbols."""
        return self.number if self.number is None or self.weight is None else self.number.mul(self.weight)


@dataclass(frozen=True, eq=False)
class Count:
    """A sum over the points of sets."""

    parts: tuple[Part, ...]

    def __add__(self, other: "Count") -> "Count":
        return Count(self.parts + other.parts)

    def weighted(self, weight: isl.PwQPolynomial) -> "Count":
        """The same with every point counted `weight` times, for a count that has no weights yet."""
        return Count(tuple(replace(part, weight=weight) for part in self.parts))

    def at(self, sizes: Mapping[str, int]) -> int:
        """The number at given sizes of all symbols."""
        return sum(
            points_at(part.points, sizes) * (1 if part.weight is None else _value(part.weight, sizes))
            for part in self.parts
        )

    def formula(self, sizes: Mapping[str, int] | None = None) -> str:
        """`T + 3`; by cases where no one formula holds, and only the one for `sizes` where they are given.

        A single case stands without its condition: it is that there is anything at all. `?` where none is known.
        """
        if not self.parts:
            return "0"
        products = [product for part in self.parts if (product := part.total()) is not None]
        if len(products) < len(self.parts):
            return "?"
        pieces = reduce(isl.PwQPolynomial.add, products).coalesce().get_pieces()
        if sizes is not None:
            pieces = [(where, q) for where, q in pieces if points_at(where, sizes)]
        if len(pieces) < 2:
            return _text(pieces[0][1]) if pieces else "0"
        return " or ".join(f"{_text(q)} (if {_inside(str(where))})" for where, q in pieces)

    def __str__(self) -> str:
        return self.formula()


def points_at(points: isl.Set, sizes: Mapping[str, int]) -> int:
    """The number of points of a set at given sizes of all symbols."""
    for i in range(points.dim(PARAM)):
        points = points.fix_val(PARAM, i, isl.Val(sizes[points.get_dim_name(PARAM, i)]))
    return int(points.count_val().to_python())


def instances(system: System) -> Count:
    """All instances of all equations."""
    return _count([e.domain for e in system.equations])


def points(system: System, layers: Sequence[Layer]) -> Count:
    """All points: instances of the recurrences, where those of one layer that share their indices are one point."""
    parts = []
    for layer in layers:
        domains = [system.equation(name).domain.reset_tuple_id() for name in layer.group.core]
        same_rank = [d for d in domains if d.dim(SET) == domains[0].dim(SET)]
        parts.append(reduce(isl.Set.union, same_rank).coalesce())
    return _count(parts)


def span(system: System, layers: Sequence[Layer]) -> Count:
    """The waves of the wavefront: the length of the longest chain of points that need each other."""
    return _union(
        isl.Map.from_aff(layer.whole.wave[name].aff(domain)).intersect_domain(domain)
        for layer in layers
        for name in layer.group.equations
        for domain in (system.equation(name).domain,)
    )


def waves(system: System) -> Count:
    """How many waves a scheduled system has: values of the first time coordinate; in layer order every step is one."""
    if system.strategy != "wavefront":
        return steps(system)
    return _union(t.project_out(OUT, 1, t.range_tuple_dim() - 1) for t in _times(system.equations))


def steps(system: System) -> Count:
    """The time vectors of a scheduled system."""
    return _union(_times(system.equations))


def weighted_instances(domains: Iterable[tuple[isl.Set, isl.PwQPolynomial]]) -> Count:
    """The points of sets, each with a weight of its own."""
    return sum((_count([domain]).weighted(weight) for domain, weight in domains), Count(()))


def number_of(points: isl.Set) -> Count:
    """The points of a set."""
    return _count([points])


def pairs(relations: Iterable[isl.Map]) -> Count:
    """The pairs of relations."""
    return Count(tuple(Part(r.wrap(), _pairs(r)) for r in relations))


def _pairs(relation: isl.Map) -> isl.PwQPolynomial | None:
    """A relation that gives one point to each has as many pairs as points."""
    if relation.is_injective():
        return _box(relation.range())
    return _box(relation.domain() if relation.is_single_valued() else relation.wrap())


def _times(equations: Sequence[Equation]) -> list[isl.Map]:
    times = [e.time for e in equations if e.time is not None]
    assert len(times) == len(equations), "counted before it was scheduled"
    return times


def _union(maps: Iterable[isl.Map]) -> Count:
    """The number of different images under any of the maps, which have one range space."""
    classes: list[tuple[isl.Set, list[isl.Map]]] = []
    for map_ in maps:
        image, together = map_.range(), [map_]
        rest = []
        for other, others in classes:
            if other.is_disjoint(image):
                rest.append((other, others))
            else:
                image, together = other.union(image).coalesce(), others + together
        classes = [*rest, (image, together)]
    if not classes:
        return Count(())
    whole = reduce(isl.Set.union, [image for image, _ in classes]).coalesce()
    if (number := _box(whole)) is not None:
        return Count((Part(whole, number),))
    return Count(tuple(Part(image, _image(image, together)) for image, together in classes))


def _image(image: isl.Set, maps: Sequence[isl.Map]) -> isl.PwQPolynomial | None:
    if (number := _box(image)) is not None:
        return number
    # An image that is no box (time in tiles) has as many points as the domain that is mapped onto it one to one.
    whole = [m for m in maps if m.is_injective() and m.range().is_equal(image)]
    return _box(whole[0].domain()) if whole else None


def _count(sets: Sequence[isl.Set]) -> Count:
    return Count(tuple(Part(s, _box(s)) for s in sets))


def _box(points: isl.Set) -> isl.PwQPolynomial | None:
    """The number of points of a product of intervals; None for any other set."""
    rank = points.dim(SET)
    plain = points.reset_tuple_id() if points.has_tuple_name() else points
    box = isl.Set.universe(plain.get_space()).intersect_params(plain.params())
    one = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(plain.params().get_space())).add_constant_val(isl.Val(1))
    number = isl.PwQPolynomial.from_pw_aff(isl.PwAff.from_aff(one)).intersect_params(plain.params())
    for i in range(rank):
        for order in (isl.Map.order_le, isl.Map.order_ge):
            beyond = order(isl.Map.universe(plain.get_space().map_from_set()), IN, i, OUT, i)
            box = box.intersect(plain.apply(beyond))
        length = plain.dim_max(i).sub(plain.dim_min(i)).add_constant_val(isl.Val(1))
        number = number.mul(isl.PwQPolynomial.from_pw_aff(length))
    return number.coalesce() if box.is_subset(plain) else None


def _value(polynomial: isl.PwQPolynomial, sizes: Mapping[str, int]) -> int:
    names = [polynomial.get_domain_space().get_dim_name(PARAM, i) for i in range(polynomial.dim(PARAM))]
    return int(polynomial.eval_with_dict({name: sizes[name] for name in names}))


def _text(polynomial: isl.QPolynomial) -> str:
    """A polynomial with its constant last: `2*T + floor((7 + T)/8) + 3`."""
    space = polynomial.get_domain_space()
    names = [space.get_dim_name(PARAM, i) for i in range(space.dim(PARAM))]
    terms = [(t.get_coefficient_val(), _factors(t, names)) for t in polynomial.get_terms()]
    text = ""
    for coefficient, factors in sorted(terms, key=lambda term: not term[1]):
        size = coefficient.abs()
        factors = factors if size.is_one() and factors else [str(size), *factors]
        sign = " - " if coefficient.is_neg() else " + "
        text += (sign if text else sign.strip(" +")) + "*".join(factors)
    return text or "0"


def _factors(term: isl.Term, names: Sequence[str]) -> list[str]:
    div = isl.dim_type.div
    powers = [(name, term.get_exp(PARAM, i)) for i, name in enumerate(names)]
    for i in range(term.dim(div)):
        inside = re.sub(r"(?<!\w)(\d+)(?=[^\W\d]|\()", r"\1*", _inside(str(term.get_div(i))).strip("[]"))
        powers.append((f"floor({inside})", term.get_exp(div, i)))
    return [name if power == 1 else f"{name}^{power}" for name, power in powers if power]


def _inside(text: str) -> str:
    """What is between the braces of isl's text."""
    return text[text.index("{") + 1 : text.rindex("}")].strip().removeprefix(":").strip()
