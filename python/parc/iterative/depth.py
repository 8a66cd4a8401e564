"""How deep every instance of a recurrent system is, and the proof of what sweeps leave final.

The *depth* d(p) of an instance is 1 where it needs only known values, and larger than that of each instance that it
needs from the sweep before.  By induction all instances of depth up to k are final after k sweeps, whatever the first
sweep started from: those that they need were final one sweep earlier (arXiv 2002.03629, section 3).  Sweeps that go
through blocks of S depths in order need as many times fewer: there the *front* ceil(d(p) / S) takes the depth's place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.affine import from_aff
from parc.poly.boxes import bounding_box
from parc.poly.dependences import Dependence
from parc.poly.example import first_pair, first_point
from parc.poly.model import System
from parc.poly.order import any_order
from parc.poly.timing import AffineTime
from parc.poly.wavefront import waves


@dataclass(frozen=True)
class Depth:
    """The depth of every instance of a system's equations."""

    of: Mapping[str, AffineTime]
    level: Mapping[str, int]
    """The order of the equations at one depth: an equation follows those of smaller level that it needs there."""
    deepest: ir.AffineExpr
    """The largest depth, of the symbols; there may be none so deep at small sizes."""

    def fronts(self, system: System, block: int) -> dict[str, isl.Map]:
        """`{ instance -> [front] }` for blocks of so many depths; of one, the depths themselves."""
        return {e.name: _front(self.of[e.name], e.domain, block) for e in system.equations}

    def bound(self, block: int = 1) -> ir.AffineExpr:
        """The largest front: so many sweeps are exact."""
        return self.deepest if block == 1 else ir.AffineExpr.get_ceil_div(self.deepest, block)


def find_depth(system: System, flow: Sequence[Dependence]) -> Depth:
    """The smallest affine depth of a system's instances: their waves, counted from 1; needs a current MLIR context.

    CompileError where the system has no order, with a circle of instances, or no affine depth.
    """
    layers = waves(system, flow)
    where = system.equations[0].op.location
    names = ", ".join(e.name for e in system.equations)
    if layers is None:
        any_order(system, flow)
        raise CompileError(f"{names} have an order but no affine depth, so that sweeps have no bound", where)
    of = {name: time.shifted(1) for layer in layers for name, time in layer.whole.wave.items()}
    depths = isl.Set.empty(isl.Space.set_alloc(isl.DEFAULT_CONTEXT, 0, 1))
    for equation in system.equations:
        depths = depths.union(_front(of[equation.name], equation.domain, 1).range())
    box = bounding_box(depths.coalesce())
    if box is None:
        raise CompileError(f"the depth of {names} has no affine bound: {depths.coalesce()}", where)
    deepest = from_aff(box.lower[0].add(box.extent[0]).add_constant_val(isl.Val(-1)))
    level = {name: number for layer in layers for name, number in layer.whole.level.items()}
    return Depth(of, level, deepest)


def prove(
    system: System, flow: Sequence[Dependence], fronts: Mapping[str, isl.Map], is_old: Callable[[Dependence], isl.Set]
) -> None:
    """Raise CompileError, with the dependence, unless after k sweeps all instances of front k are final.

    is_old: the sinks of a dependence that read the sweep before; the other ones read their own sweep.
    """
    for name, front in fronts.items():
        low = front.range().dim_min_val(0)
        if not front.is_empty() and (not low.is_int() or low.to_python() < 1):
            raise CompileError(f"depths start at 1, not at {low}, those of {name}", system.equation(name).op.location)
    for dependence in flow:
        source, sink = fronts[dependence.source], fronts[dependence.sink]
        old = dependence.relation.intersect_range(is_old(dependence))
        for relation, order, text in (
            (old, isl.Map.lex_lt, "the sweep before"),
            (dependence.relation.subtract(old), isl.Map.lex_le, "the same sweep"),
        ):
            kept = source.apply_range(order(source.range().get_space())).apply_range(sink.reverse())
            wrong = relation.subtract(kept)
            if not wrong.is_empty():
                first, second = first_pair(wrong)
                at = [first_point(m.intersect_domain(p.as_set(m.domain().get_space())).range()).vector
                      for m, p in ((source, first), (sink, second))]  # fmt: skip
                raise CompileError(
                    f"{second.instance} reads {dependence.array} of {first.instance} in {text}{first.at_sizes}, but "
                    f"their depths are {at[1]} and {at[0]}; the dependence is "
                    f"{dependence.relation.gist_params(system.context)}",
                    system.equation(dependence.sink).op.location,
                )


def distances(system: System, dependence: Dependence, depth: Depth) -> isl.Set:
    """`{ [d(sink) - d(source)] }` over all pairs of a dependence."""
    fronts = depth.fronts(system, 1)
    relation = dependence.relation.apply_domain(fronts[dependence.source])
    return relation.apply_range(fronts[dependence.sink]).deltas()


def constant_distance(system: System, dependence: Dependence, depth: Depth) -> int | None:
    """How much deeper a sink is than its source, where that is the same everywhere."""
    found = distances(system, dependence, depth)
    low, high = found.dim_min_val(0), found.dim_max_val(0)
    return low.to_python() if low.is_int() and low.eq(high) else None


def _front(time: AffineTime, domain: isl.Set, block: int) -> isl.Map:
    aff = time.aff(domain)
    if block > 1:
        aff = aff.add_constant_val(isl.Val(block - 1)).scale_down_val(isl.Val(block)).floor()
    return isl.Map.from_aff(aff).intersect_domain(domain)


def same_front(dependence: Dependence, fronts: Mapping[str, isl.Map]) -> isl.Map:
    """The part of a dependence inside one front."""
    source, sink = fronts[dependence.source], fronts[dependence.sink]
    return dependence.relation.intersect(source.apply_range(sink.reverse()))
