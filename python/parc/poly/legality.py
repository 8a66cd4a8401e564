"""Is a schedule right?  Checked for every dependence, at every size, against what its threads do."""

from collections.abc import Sequence

import islpy as isl

from parc.errors import CompileError
from parc.poly.affine import OUT
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.example import Point, first_pair, first_point
from parc.poly.model import Equation, System
from parc.poly.rows import find_cells, mixed_rows
from parc.poly.storage import check_storage


def verify(system: System) -> None:
    """Raise CompileError unless the system is well formed, its schedule keeps every dependence and its storage too."""
    check_system(system)
    check_schedule(system)
    check_storage(system)


def check_schedule(system: System, flow: Sequence[Dependence] | None = None) -> None:
    """Raise CompileError, with a pair of instances, unless the `schedule` attributes keep every dependence.

    `flow` are the dependences of the system, where they are known already.
    """
    lengths = {e.time.range_tuple_dim() for e in system.equations if e.time is not None}
    for equation in system.equations:
        if equation.time is None:
            raise CompileError(f"equation {equation.name} has no schedule", equation.op.location)
        if len(lengths) > 1:
            raise CompileError(
                f"the equations have time vectors of different lengths: {', '.join(map(str, sorted(lengths)))}",
                equation.op.location,
            )
    if system.distribute not in ("units", "points", "rows"):
        raise CompileError(
            f'a scheduled system has distribute = "units", "points" or "rows", not "{system.distribute}"',
            system.op.location,
        )
    flow = dependences(system) if flow is None else flow
    for dependence in flow:
        _check_order(system, dependence)
    if system.distribute == "points":
        for equation in system.equations:
            if equation.owner is None or equation.owner.range_tuple_dim() != 1:
                raise CompileError(
                    f"equation {equation.name} needs an owner of one result: its system distributes points",
                    equation.op.location,
                )
        for dependence in flow:
            _check_owner(system, dependence)
    if system.distribute == "rows" and (mixed := mixed_rows(system, find_cells(system))) is not None:
        raise CompileError(f"the rows of this system cannot be shared without barriers: {mixed[0]}", mixed[1])


def _check_order(system: System, dependence: Dependence) -> None:
    source, sink = system.equation(dependence.source), system.equation(dependence.sink)
    assert source.time is not None and sink.time is not None
    before = isl.Map.lex_lt(source.time.range().get_space())
    late = dependence.relation.subtract(source.time.apply_range(before).apply_range(sink.time.reverse()))
    if not late.is_empty():
        first, second = first_pair(late)
        raise CompileError(
            f"{second.instance} must run after {first.instance} (reads {_element(dependence, second)}) but is "
            f"scheduled at {_at(sink, sink.time, second)}, and {first.instance} at {_at(source, source.time, first)}"
            f"{first.at_sizes}; the dependence is {_text(system, dependence)}",
            sink.op.location,
        )


def _check_owner(system: System, dependence: Dependence) -> None:
    source, sink = system.equation(dependence.source), system.equation(dependence.sink)
    assert source.time is not None and sink.time is not None and source.owner is not None and sink.owner is not None
    rank = source.time.range_tuple_dim()
    waves = [e.project_out(OUT, 1, rank - 1) for e in (source.time, sink.time)]
    same_wave = dependence.relation.intersect(waves[0].apply_range(waves[1].reverse()))
    apart = same_wave.subtract(source.owner.apply_range(sink.owner.reverse()))
    if not apart.is_empty():
        first, second = first_pair(apart)
        raise CompileError(
            f"{second.instance} (worker {_at(sink, sink.owner, second)}) needs {first.instance} (worker "
            f"{_at(source, source.owner, first)}; reads {_element(dependence, second)}){first.at_sizes}, but there is "
            f"no barrier between them: both have {_at(source, waves[0], first)} as the first coordinate of their time; "
            f"the dependence is {_text(system, dependence)}",
            sink.op.location,
        )


def _element(dependence: Dependence, sink: Point) -> str:
    read = dependence.read.relation
    return first_point(read.intersect_domain(sink.as_set(read.domain().get_space())).range()).element


def _at(equation: Equation, map_: isl.Map, instance: Point) -> str:
    return first_point(map_.intersect_domain(instance.as_set(equation.domain.get_space())).range()).vector


def _text(system: System, dependence: Dependence) -> str:
    return str(dependence.relation.gist_params(system.context))
