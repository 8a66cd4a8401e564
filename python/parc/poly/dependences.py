"""Exact flow dependences of a system, and the checks that make it a system of equations at all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import islpy as isl

from parc.errors import CompileError, source_line
from parc.poly.example import first_pair, first_point
from parc.poly.model import Access, Equation, System


@dataclass(frozen=True, eq=False)
class Dependence:
    """Instances of `sink` read from `array` what instances of `source` write there."""

    source: str
    sink: str
    array: str
    relation: isl.Map
    """`{ source instance -> sink instance }`; exact, because every element is written once."""
    read: Access


def dependences(system: System) -> tuple[Dependence, ...]:
    """Every flow dependence of a system, in the order of its equations and their reads."""
    writers = [(e.name, w) for e in system.equations for w in e.writes]
    found = []
    for sink in system.equations:
        for read in sink.reads:
            for source, write in writers:
                if write.array == read.array:
                    relation = write.relation.apply_range(read.relation.reverse()).coalesce()
                    if not relation.is_empty():
                        found.append(Dependence(source, sink.name, read.array, relation, read))
    return tuple(found)


def check_system(system: System) -> None:
    """Raise CompileError unless every access is inside its array and every element is defined, once, before its use.

    What is read in a circle is found later, by the search for an order (`order.py`).
    """
    for who, verb, access in _accesses(system):
        _check_inside(who, verb, access)
    for unknown in system.unknowns:
        _check_defined_once(_definitions(system, unknown.name))
    defined = {u.name: [w.relation.range() for _, w in _definitions(system, u.name)] for u in system.unknowns}
    for equation in system.equations:
        for read in equation.reads:
            _check_defined(equation, read, defined[read.array])
    for unknown in system.unknowns:
        # A tile at the end of an empty sequence is in no array: such sizes are refused when the program is called.
        missing = _without(unknown.taken.intersect(unknown.elements), defined[unknown.name])
        if not missing.is_empty():
            point = first_point(missing)
            raise CompileError(
                f"{point.element}{point.at_sizes} is a result but is never defined; missing: {missing}",
                unknown.op.location,
            )


def _accesses(system: System) -> Iterator[tuple[str, str, Access]]:
    for boundary in system.boundaries:
        yield "boundary", "sets", boundary.target
        yield "boundary", "reads", boundary.source
    for equation in system.equations:
        for verb, accesses in (("writes", equation.writes), ("reads", equation.reads + equation.inputs)):
            for access in accesses:
                yield equation.name, verb, access


def _check_inside(who: str, verb: str, access: Access) -> None:
    outside = access.relation.subtract_range(access.elements)
    if not outside.is_empty():
        instance, element = first_pair(outside)
        raise CompileError(
            f"{instance.instance} {verb} {element.element}, which is outside the array{element.at_sizes}; "
            f"outside: {outside.range()}",
            access.op.location,
        )


def _definitions(system: System, array: str) -> list[tuple[str, Access]]:
    boundaries = [("a boundary", b.target) for b in system.boundaries]
    writes = [(e.name, w) for e in system.equations for w in e.writes]
    return [(who, access) for who, access in boundaries + writes if access.array == array]


def _check_defined_once(definitions: list[tuple[str, Access]]) -> None:
    for _, access in definitions:
        if not access.relation.is_injective():
            same = access.relation.apply_range(access.relation.reverse())
            first, second = first_pair(same.subtract(isl.Map.identity(same.get_space())))
            twice = access.relation.intersect_domain(first.as_set(access.relation.domain().get_space()))
            element = first_point(twice.range())
            raise CompileError(
                f"{element.element} is defined twice{element.at_sizes}: by {first.instance} and by {second.instance}",
                access.op.location,
            )
    for (one, access), (other, again) in combinations(definitions, 2):
        common = access.relation.range().intersect(again.relation.range())
        if not common.is_empty():
            element = first_point(common)
            where = source_line(access.op.location)
            raise CompileError(
                f"{element.element} is defined twice{element.at_sizes}: by {one}{f' ({where})' if where else ''}"
                f" and by {other}; twice: {common}",
                again.op.location,
            )


def _check_defined(equation: Equation, read: Access, defined: Sequence[isl.Set]) -> None:
    missing = _without(read.relation.range(), defined)
    if not missing.is_empty():
        instance, element = first_pair(read.relation.intersect_range(missing))
        raise CompileError(
            f"{instance.instance} reads {element.element}, which is never defined{element.at_sizes}; "
            f"missing: {missing}",
            read.op.location,
        )


def _without(elements: isl.Set, defined: Sequence[isl.Set]) -> isl.Set:
    """The elements that are not defined.

    Taken away one by one, the last definitions first: of a binary tree's states those are the ones between the others,
    and what is left stays simple, as the difference from their union would not.
    """
    for part in reversed(defined):
        if elements.is_empty():
            break
        elements = elements.subtract(part).coalesce()
    return elements
