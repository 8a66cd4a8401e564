"""Concrete examples from isl sets and relations, for messages: the smallest sizes and points that show something."""

from collections.abc import Mapping
from dataclasses import dataclass

import islpy as isl

from parc.poly.affine import PARAM, SET


@dataclass(frozen=True)
class Point:
    """One point of a set at concrete sizes."""

    name: str
    dims: tuple[str, ...]
    values: tuple[int, ...]
    sizes: tuple[tuple[str, int], ...]

    @property
    def instance(self) -> str:
        """`cell[t=3]`."""
        return f"{self.name}[{', '.join(f'{d}={v}' for d, v in zip(self.dims, self.values, strict=True))}]"

    @property
    def element(self) -> str:
        """`H[3]`."""
        return f"{self.name}[{', '.join(map(str, self.values))}]"

    @property
    def vector(self) -> str:
        """`(3, 0)`."""
        return f"({', '.join(map(str, self.values))})"

    @property
    def at_sizes(self) -> str:
        """` for T=4, B=0`, or nothing where there are no symbols."""
        return f" for {', '.join(f'{n}={v}' for n, v in self.sizes)}" if self.sizes else ""

    def as_set(self, space: isl.Space) -> isl.Set:
        """The set of `space` with this one point, at this point's sizes."""
        result = isl.Set.universe(space)
        for kind, values in ((PARAM, tuple(v for _, v in self.sizes)), (SET, self.values)):
            for i, value in enumerate(values):
                result = result.fix_val(kind, i, isl.Val(value))
        return result


def first_point(points: isl.Set) -> Point:
    """The point at the smallest sizes, lexicographically first, of a set that is not empty."""
    space = points.get_space()
    symbols = tuple(space.get_dim_name(PARAM, i) for i in range(space.dim(PARAM)))
    flat = points.reset_tuple_id() if points.has_tuple_name() else points
    flat = flat.move_dims(SET, 0, PARAM, 0, len(symbols))
    sample = _minimum(flat)
    values = tuple(sample.get_coordinate_val(SET, i).to_python() for i in range(flat.dim(SET)))
    count = len(symbols)
    return Point(
        name=points.get_tuple_name() if points.has_tuple_name() else "",
        dims=tuple(space.get_dim_name(SET, i) or f"i{i}" for i in range(space.dim(SET))),
        values=values[count:],
        sizes=tuple(zip(symbols, values[:count], strict=True)),
    )


def first_pair(pairs: isl.Map) -> tuple[Point, Point]:
    """A pair of a relation that is not empty: its first source at the smallest sizes, and that one's first image."""
    source = first_point(pairs.domain())
    image = pairs.intersect_domain(source.as_set(pairs.domain().get_space())).range()
    return source, first_point(image)


def all_points(points: isl.Set, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
    """The points of a bounded set at given sizes of all its symbols, in lexicographic order."""
    for i in range(points.dim(PARAM)):
        points = points.fix_val(PARAM, i, isl.Val(sizes[points.get_dim_name(PARAM, i)]))
    found: list[tuple[int, ...]] = []
    rank = points.dim(SET)
    points.foreach_point(
        lambda point: found.append(tuple(point.get_coordinate_val(SET, i).to_python() for i in range(rank)))
    )
    return sorted(found)


def _minimum(points: isl.Set) -> isl.Point:
    # An unbounded dimension has no lexicographic minimum: any point will do then.
    bounded = all(points.dim_min_val(i).is_int() for i in range(points.dim(SET)))
    return (points.lexmin() if bounded else points).sample_point()
