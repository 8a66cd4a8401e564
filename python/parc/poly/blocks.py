"""What sort of matrix a block of a Jacobian is: diagonal, banded, of low rank, dense, ..."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from math import inf, prod
from typing import Literal, get_args

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import IN, OUT, PARAM, SET
from parc.poly.patterns import elements

Scale = float | Literal["uniform", "varies"]
"""The entries of a matrix: all this number, all one number that is not known here, or of any values."""

_MOST_TERMS = 8
"""Sums of more parts are taken for one part."""
_MOST_DIAGONALS = 8

Name = Literal[
    "zero",
    "identity",
    "scaled identity",
    "diagonal",
    "diagonals",
    "banded",
    "block diagonal",
    "low rank",
    "diagonal plus low rank",
    "dense",
]


@dataclass(frozen=True, eq=False)
class Term:
    """A matrix: the derivative of the elements of one tile by those of another, or a part of it."""

    pattern: isl.Map
    """`{ row -> column }`: no entry outside of it differs from zero."""
    scale: Scale
    """The entries; 0.0 where the value jumps: its derivative is zero, but it is not constant."""
    ranks: tuple[float, ...]
    """Number r bounds the rank of the part that belongs to one value of the first r column indices; may be `inf`."""
    coefficients: frozenset[ir.Value] = frozenset()
    """What the entries depend on, as far as it differs from point to point."""


@dataclass(frozen=True)
class Kind:
    """The sort of a block; its numbers are those of one row of the tiles."""

    name: Name
    tied: int
    """So many leading dimensions of the two tiles (batch rows) are tied: a row depends on the same row alone.

    Dimensions of extent 1 in front of the last are not counted.
    """
    shape: tuple[int | None, int | None]
    """Elements of what is written and of what is read, in one row; None where not static."""
    number: int = 0
    """`diagonals`: how many; `banded`: how many around and with the main one; `block diagonal`: the size of its blocks;
    `low rank`: the rank."""
    width: int | None = None
    """As many combinations of what is read, in one row, are all that the equation uses; None where all elements are."""

    @property
    def is_elementwise(self) -> bool:
        """Does each element depend on the element at the same place alone?"""
        return self.name in ("zero", "identity", "scaled identity", "diagonal")

    @property
    def generality(self) -> int:
        """Larger for sorts that include others."""
        return get_args(Name).index(self.name)

    @property
    def rows_are_independent(self) -> bool:
        """Does each row (value of the first index) of what is written depend on that row alone?"""
        return self.tied > 0

    def __str__(self) -> str:
        """`dense 64 x 16`, `diagonal 16`, `low rank 16 x 16, rank 4`."""
        sizes = ["?" if n is None else str(n) for n in self.shape]
        extent = sizes[0] if self.is_elementwise else " x ".join(sizes)
        name = f"{self.number} diagonal{'s' * (self.number > 1)}" if self.name == "diagonals" else self.name
        words = {"banded": "bandwidth", "block diagonal": "blocks of", "low rank": "rank"}
        words["diagonal plus low rank"] = "rank"
        more = f", {words[self.name]} {self.number}" if self.name in words else ""
        return f"{name} {extent}{more}".strip()


def product(one: Scale, other: Scale) -> Scale:
    """The entries of a matrix times a number, where both may be unknown."""
    if 0.0 in (one, other):
        return 0.0
    if isinstance(one, float) and isinstance(other, float):
        return one * other
    return "varies" if "varies" in (one, other) else "uniform"


def merge(terms: Iterable[Term]) -> tuple[Term, ...]:
    """A sum with one term for each pattern; a long one as a single term."""
    merged: list[Term] = []
    for term in terms:
        same = next((i for i, t in enumerate(merged) if t.pattern.is_equal(term.pattern)), None)
        if same is None:
            merged.append(term)
        else:
            merged[same] = _sum([merged[same], term])
    return tuple(merged) if len(merged) <= _MOST_TERMS else (_sum(merged),)


def ranks_of(pattern: isl.Map) -> tuple[float, ...]:
    """Bounds on the ranks of the parts of a matrix with this pattern, see `Term.ranks`."""
    columns = pattern.dim(OUT)
    found = []
    for given in range(columns + 1):
        part = pattern.project_out(OUT, given, columns - given).move_dims(PARAM, 0, OUT, 0, given)
        rest = pattern.move_dims(PARAM, 0, OUT, 0, given)
        found.append(min(_most(part.domain()), _most(rest.range())))
    return tuple(found)


def classify(
    terms: Sequence[Term], written: Sequence[int | None], read: Sequence[int | None], neck: Sequence[float]
) -> Kind:
    """The sort of a sum of matrices, between tiles of these extents; `neck` bounds the ranks of the sum."""
    kept_in, kept_out = _dimensions(written), _dimensions(read)
    written, read = [written[d] for d in kept_in], [read[d] for d in kept_out]
    neck = [*(neck[d] for d in kept_out), neck[-1]]
    kind = _classify([_without_units(t, kept_in, kept_out) for t in terms if t.scale != 0.0], written, read, neck)
    width = neck[kind.tied]
    columns = kind.shape[1]
    return replace(kind, width=int(width) if width < (inf if columns is None else columns) else None)


def _classify(
    terms: Sequence[Term], written: Sequence[int | None], read: Sequence[int | None], neck: Sequence[float]
) -> Kind:
    """The sort of a sum of terms that are not zero, but for its width."""
    if not terms:
        return Kind("zero", max(len(written) - 1, 0), (_size(written[-1:]), _size(read[-1:])))
    whole = _sum(terms)
    tied = 0
    while written[tied : tied + 1] == read[tied : tied + 1] != [] and _is_tied(whole.pattern, tied):
        tied += 1
    if tied == len(written) == len(read):
        # The units of an elementwise block are those of its last dimension; the others are rows.
        last = max(tied - 1, 0)
        name = _elementwise(whole.scale) if elements(written).identity().is_subset(whole.pattern) else "diagonal"
        return Kind(name, last, (_size(written[last:]), _size(read[last:])))
    shape = (_size(written[tied:]), _size(read[tied:]))
    rest = whole.pattern.project_out(IN, 0, tied).project_out(OUT, 0, tied)
    sparse = _diagonals(rest, tied, shape) or _diagonal_blocks(rest, tied, shape, written[tied:])
    if sparse is not None:
        return sparse
    full = min(inf if n is None else n for n in shape)
    if neck[tied] < full:
        return Kind("low rank", tied, shape, int(neck[tied]))
    diagonal = [t for t in terms if written == read and all(_is_tied(t.pattern, d) for d in range(len(written)))]
    rank = _sum([t for t in terms if t not in diagonal]).ranks[tied]
    if rank < full:
        return Kind("diagonal plus low rank" if diagonal else "low rank", tied, shape, int(rank))
    return Kind("dense", tied, shape)


def _dimensions(extents: Sequence[int | None]) -> list[int]:
    """The dimensions of a tile, without those before the last that have extent 1."""
    return [d for d, extent in enumerate(extents) if extent != 1 or d == len(extents) - 1]


def _without_units(term: Term, rows: Sequence[int], columns: Sequence[int]) -> Term:
    """A term with these dimensions of its pattern only."""
    pattern = term.pattern
    for kind, kept in ((IN, rows), (OUT, columns)):
        for d in reversed(range(pattern.dim(kind))):
            if d not in kept:
                pattern = pattern.project_out(kind, d, 1)
    return replace(term, pattern=pattern, ranks=tuple(term.ranks[d] for d in columns) + term.ranks[-1:])


def _elementwise(scale: Scale) -> Name:
    if scale == 1.0:
        return "identity"
    return "diagonal" if scale == "varies" else "scaled identity"


def _diagonals(pattern: isl.Map, tied: int, shape: tuple[int | None, int | None]) -> Kind | None:
    """A few diagonals next to or apart from each other."""
    if pattern.dim(IN) != 1 or pattern.dim(OUT) != 1 or not pattern.deltas().is_bounded():
        return None
    steps, shortest = pattern.deltas(), min(n or 0 for n in shape)
    low, high = (v.to_python() for v in (steps.dim_min_val(0), steps.dim_max_val(0)))
    count = steps.count_val().to_python()
    if low <= 0 <= high and 1 < count == high - low + 1 and count * 2 <= shortest:
        return Kind("banded", tied, shape, count)
    one_to_one = shortest > 1 and (pattern.is_single_valued() or pattern.is_injective())
    if count <= _MOST_DIAGONALS and (one_to_one or count * 2 <= shortest):
        return Kind("diagonals", tied, shape, count)
    return None


def _diagonal_blocks(
    pattern: isl.Map, tied: int, shape: tuple[int | None, int | None], extents: Sequence[int | None]
) -> Kind | None:
    """Blocks on the diagonal: groups of neighbours, or the elements with equal indices in some of the dimensions."""
    if pattern.dim(IN) != pattern.dim(OUT) or shape[0] != shape[1] or shape[0] is None:
        return None
    inner = [d for d in range(pattern.dim(IN)) if not _is_tied(pattern, d)]
    if len(inner) < pattern.dim(IN):
        return Kind("block diagonal", tied, shape, prod(extents[d] or 0 for d in inner))
    for size in range(2, shape[0]) if len(inner) == 1 else ():
        same = isl.Map(f"{{ [i] -> [j] : floor(i / {size}) = floor(j / {size}) }}")
        if shape[0] % size == 0 and pattern.is_subset(same):
            return Kind("block diagonal", tied, shape, size)
    return None


def _is_tied(pattern: isl.Map, dim: int) -> bool:
    """Have rows and columns of all entries the same index in this dimension?"""
    return dim < pattern.dim(OUT) and pattern.is_subset(pattern.equate(IN, dim, OUT, dim))


def _sum(terms: Sequence[Term]) -> Term:
    """One term for several."""
    if len(terms) == 1:
        return terms[0]
    return Term(
        reduce(isl.Map.union, [t.pattern for t in terms]).coalesce(),
        _sum_of_scales(terms),
        tuple(map(sum, zip(*(t.ranks for t in terms), strict=True))),
        frozenset[ir.Value]().union(*(t.coefficients for t in terms)),
    )


def _sum_of_scales(terms: Sequence[Term]) -> Scale:
    first, *others = terms
    if all(t.pattern.is_equal(first.pattern) for t in others):
        scales = [t.scale for t in terms]
        if "varies" in scales:
            return "varies"
        return "uniform" if "uniform" in scales else sum(s for s in scales if isinstance(s, float))
    apart = all(one.pattern.domain().is_disjoint(two.pattern.domain()) for one, two in combinations(terms, 2))
    return first.scale if apart and all(t.scale == first.scale != "uniform" for t in others) else "varies"


def _most(points: isl.Set) -> float:
    """A bound on the number of elements of a set, for any values of its parameters."""
    total = 1.0
    for d in range(points.dim(SET)):
        if not points.dim_is_bounded(SET, d):
            return inf
        length = points.dim_max(d).sub(points.dim_min(d)).max_val()
        total *= length.to_python() + 1 if length.is_int() else inf
    return total


def _size(extents: Sequence[int | None]) -> int | None:
    """The number of elements; None where an extent is not static."""
    return None if None in extents else prod(e or 0 for e in extents)
