"""Dependences in plain words: `cell1[t] needs cell0[t] and cell1[t - 1]`."""

import re
from collections.abc import Sequence

import islpy as isl

from .affine import SET, from_aff
from .dependences import Dependence
from .model import System


def needs(system: System, flow: Sequence[Dependence]) -> tuple[str, ...]:
    """One sentence for each equation (or one of its points) that needs others; needs a current MLIR context."""
    sentences: dict[str, list[str]] = {}
    for dependence in flow:
        sink, source = _ends(system, dependence)
        sources = sentences.setdefault(sink, [])
        if source not in sources:
            sources.append(source)
    return tuple(f"{sink} needs {_list(sources)}" for sink, sources in sentences.items())


def _ends(system: System, dependence: Dependence) -> tuple[str, str]:
    """The sink and the source of a dependence, the source in terms of the sink's indices."""
    dims = _dims(system.equation(dependence.sink).domain)
    needed = dependence.relation.reverse()
    sinks = needed.domain()
    sink = f"{dependence.sink}[{', '.join(dims)}]"
    if sinks.lexmin().is_equal(sinks.lexmax()) and (at := _affine(system, sinks.as_map_to(), ())) is not None:
        pass
    return sink, ""


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
