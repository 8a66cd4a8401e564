"""Dependences in plain words: `cell1[t] needs cell0[t] and cell1[t - 1]`."""

from collections.abc import Sequence

import islpy as isl

from parc.poly.affine import IN, OUT, SET, aff_text, as_function
from parc.poly.dependences import Dependence
from parc.poly.model import System


def needs(system: System, flow: Sequence[Dependence]) -> tuple[str, ...]:
    """One sentence for each equation that needs others; a single point, such as a last step, with its indices."""
    sentences: dict[str, list[str]] = {}
    for dependence in flow:
        sink, source = _ends(system, dependence.relation.gist_params(system.context))
        sources = sentences.setdefault(sink, [])
        if source not in sources:
            sources.append(source)
    return tuple(f"{sink} needs {listed(sources)}" for sink, sources in sentences.items())


def _ends(system: System, relation: isl.Map) -> tuple[str, str]:
    """The sink and the source of a dependence; the source as a function of the sink where it is one."""
    sinks, sources = relation.range(), relation.domain()
    sink, source = _one(sinks), _one(sources)
    if source is None and (function := _function(relation.reverse())) is not None:
        source = _instance(relation.get_tuple_name(IN), function)
    return sink or _any(sinks), source or f"every {_any(sources)}"


def _one(points: isl.Set) -> str | None:
    """The instance of a set that has one at every size; None for larger sets."""
    first = points.lexmin()
    if not first.is_equal(points.lexmax()):
        return None
    affs = _function(isl.Map.from_range(first))
    return None if affs is None else _instance(points.get_tuple_name(), affs)


def _any(points: isl.Set) -> str:
    return _instance(points.get_tuple_name(), [points.get_dim_name(SET, i) or f"i{i}" for i in range(points.dim(SET))])


def _function(map_: isl.Map) -> list[str] | None:
    """The results of a map as text, if it is one affine function."""
    function = as_function(map_)
    if function is None:
        return None
    return [aff_text(function.get_at(i)) for i in range(function.dim(OUT))]


def _instance(name: str, indices: Sequence[str]) -> str:
    return f"{name}[{', '.join(indices)}]"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
