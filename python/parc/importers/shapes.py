"""Which dimensions of the inputs may vary from call to call, as sizes with names.

Every input dimension gets an `Extent`: a number, or `scale * symbol + offset`.  The user can
declare them in the form of `torch.export`'s `dynamic_shapes`; otherwise they are found by
running the program on fake tensors with other shapes.  A dimension is dynamic when the
program also runs with another value there; dimensions that can only move together share a
symbol.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, islice, pairwise

import torch

from parc.errors import CompileError
from parc.importers.torch_model import Program
from parc.importers.torch_trace import Operation, Run, TooLong, user_line
from parc.recurrence.sizes import OTHER_BASE, TIME_BASE, trace_sizes

_SMALL = 2  # what the search shrinks dimensions to: not 1, which broadcasts
_FIRST_LIMIT = 256  # operations per trial run while some dimension may still be long
_MAX_TRIALS = 48
_UNITS = 3  # how much larger what is traced may be so that no dimension happens to have one element
_LONGER = 16  # a run with that many times the operations of another is no small step from it

Slot = tuple[int, int]  # (input, dimension)


@dataclass(frozen=True)
class Extent:
    """One dimension's size: `scale * symbol + offset`, or `offset` when there is no symbol."""

    symbol: str | None
    scale: int = 0
    offset: int = 0

    def at(self, sizes: Mapping[str, int]) -> int:
        return self.offset + (self.scale * sizes[self.symbol] if self.symbol is not None else 0)

    def __str__(self) -> str:
        if self.symbol is None:
            return str(self.offset)
        product = self.symbol if self.scale == 1 else f"{self.scale}*{self.symbol}"
        return f"{product}{self.offset:+d}" if self.offset else product


@dataclass(frozen=True)
class Symbol:
    """A size with a name; `base` is the least value that is traced, `timelike` says whether it is a number of steps."""

    name: str
    base: int = OTHER_BASE
    timelike: bool = False


@dataclass(frozen=True)
class InputShapes:
    """The symbols and, for every input, one extent a dimension."""

    symbols: tuple[Symbol, ...]
    extents: tuple[tuple[Extent, ...], ...]

    def at(self, sizes: Sequence[int]) -> list[tuple[int, ...]]:
        """The input shapes for these values of the symbols."""
        values = {s.name: v for s, v in zip(self.symbols, sizes, strict=True)}
        return [tuple(e.at(values) for e in extents) for extents in self.extents]

    def values(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """The symbols' values at given input shapes."""
        found: dict[str, int] = {}
        for extents, shape in zip(self.extents, shapes, strict=True):
            for extent, size in zip(extents, shape, strict=True):
                if extent.symbol is not None:
                    found.setdefault(extent.symbol, (size - extent.offset) // extent.scale)
        return found

    def trace_sizes(self) -> list[tuple[int, ...]]:
        """Values of the symbols to trace at."""
        return trace_sizes([s.base for s in self.symbols])


def declared(program: Program, dynamic_shapes: object) -> InputShapes:
    """The shapes that the user declared: per argument `{dim: "T"}`, `torch.export.Dim`s, or None for static.

    Raises `CompileError` when the declaration does not fit the inputs or the program does not run at small sizes.
    """
    trees = _per_input(program, dynamic_shapes)
    names: dict[str, int] = {}
    extents = []
    for name, example, tree in zip(program.names, program.examples, trees, strict=True):
        entries = _dimensions(name, tree, example.dim())
        row = []
        for size, entry in zip(example.shape, entries, strict=True):
            extent, least = _extent(name, size, entry)
            if extent.symbol is not None:
                names[extent.symbol] = max(names.get(extent.symbol, 0), least)
            row.append(extent)
        extents.append(tuple(row))
    symbols = tuple(Symbol(name, max(least, OTHER_BASE)) for name, least in names.items())
    shapes = InputShapes(symbols, tuple(extents))
    return _with_bases(shapes, program)


def inferred(program: Program) -> InputShapes:
    """Find the dynamic dimensions by trial; raises `CompileError` when the program does not run at all."""
    return _Search(program).run()


def attempt(program: Program, shapes: Sequence[Sequence[int]], limit: int | None = None) -> Run | None:
    """A run at these shapes, or None when the program rejects them; `TooLong` and `CompileError` pass through."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # rejected shapes are no errors here
    try:
        return program.rehearse(shapes, limit)
    except (TooLong, CompileError):
        raise
    except Exception:  # noqa: BLE001 (whatever the program raises for a shape that it does not take)
        return None
    finally:
        log.setLevel(level)


def _with_bases(shapes: InputShapes, program: Program) -> InputShapes:
    """Raise the symbols' bases until the program runs; the time-like ones get a longer one."""
    base = [s.base for s in shapes.symbols]
    for _ in range(8):
        if (first := attempt(program, shapes.at(base))) is not None:
            break
        base = [2 * b for b in base]
    else:
        names = ", ".join(s.name for s in shapes.symbols)
        raise CompileError(f"the model does not run at any small size of {names}{_reason(program, shapes.at(base))}")
    symbols = []
    for k, symbol in enumerate(shapes.symbols):
        larger = shapes.at([b + (i == k) for i, b in enumerate(base)])
        longer = attempt(program, larger)
        if longer is None:
            raise CompileError(
                f"the model runs at {symbol.name} = {base[k]} but not at {base[k] + 1}: declare the dimension as a "
                f"multiple, such as 2 * torch.export.Dim(...){_reason(program, larger)}"
            )
        timelike = len(longer.operations) != len(first.operations)
        more = ([b + i * (n == k) for n, b in enumerate(base)] for i in range(2, _UNITS + 1))
        runs = chain([first, longer], (attempt(program, shapes.at(sizes)) for sizes in more))
        longest = max(base[k], TIME_BASE) if timelike else base[k] + _first_without_units(runs)
        symbols.append(replace(symbol, base=longest, timelike=timelike))
    return replace(shapes, symbols=tuple(symbols))


def _first_without_units(runs: Iterable[Run | None]) -> int:
    """Which of these runs at increasing sizes is the first whose dimensions of extent 1 have it in the next one too.

    A slice of a few elements less than all has one element at some size, and a dimension of one element is folded away.
    The first one when none is, or the program has other operations at other sizes.
    """
    for i, (run, longer) in enumerate(pairwise(runs)):
        if run is None or longer is None or len(run.operations) != len(longer.operations):
            return 0
        pairs = [pair for a, b in zip(run.operations, longer.operations, strict=True) for pair in _dimensions_of(a, b)]
        if not any(extent == 1 and other > 1 for extent, other in pairs):
            return i
    return 0


def _dimensions_of(one: Operation, other: Operation) -> Iterator[tuple[int, int]]:
    """The extents of the results of two runs of one operation."""
    for a, b in zip(one[1], other[1], strict=False):
        yield from zip(a, b, strict=False)


def _reason(program: Program, shapes: Sequence[Sequence[int]]) -> str:
    """What the program says to these shapes, in brackets."""
    try:
        program.rehearse(shapes)
    except Exception as e:  # noqa: BLE001 (whatever the program raises)
        return f" ({str(e).strip().splitlines()[0]})" if str(e).strip() else ""
    return ""


class _Search:
    """Finds the dynamic dimensions of a program, from runs that are kept short.

    Dimensions are shrunk first, the longest first: a wrong one fails in its first step, a
    right one stays shrunk and makes every later run cheap.  Runs that exceed the limit of
    operations are put off until others have been shrunk.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._example = {
            (i, d): size for i, tensor in enumerate(program.examples) for d, size in enumerate(tensor.shape)
        }
        self._now = dict(self._example)
        self._widths = {size for p in program.parameters.values() for size in p.shape}
        self._trials: dict[tuple[int, ...], Run | TooLong | None] = {}

    def run(self) -> InputShapes:
        moved = self._shrink() | self._grow()
        if self._try({}) is None:
            self._explain_failure()
        groups = self._couple(sorted(moved))
        return self._name(groups)

    def _try(self, change: Mapping[Slot, int], limit: int | None = None) -> Run | None:
        sizes = self._now | dict(change)
        key = tuple(sizes.values())
        if key not in self._trials:
            rows: list[list[int]] = [[] for _ in self._program.examples]
            for (i, _), size in sizes.items():
                rows[i].append(size)
            try:
                self._trials[key] = attempt(self._program, rows, limit)
            except TooLong as e:
                self._trials[key] = e
        result = self._trials[key]
        if isinstance(result, TooLong):
            if limit is not None and result.limit >= limit:
                raise result
            del self._trials[key]
            return self._try(change, limit)
        return result

    def _shrink(self) -> set[Slot]:
        """Make every dimension that can be shorter short; returns those that moved."""
        moved: set[Slot] = set()
        limit, open_ = _FIRST_LIMIT, {s for s, size in self._example.items() if size > _SMALL}
        while open_:
            late: set[Slot] = set()
            for size in sorted({self._example[s] for s in open_}, reverse=True):
                group = [s for s in sorted(open_) if self._example[s] == size]
                for value in _shorter(size, deep=size not in self._widths):
                    group = [s for s in group if s not in moved]
                    done, tired = self._move(group, value, limit)
                    moved |= done
                    if tired:
                        late |= {s for s in group if s not in done}
                        break
            open_ = late - moved
            limit *= 4
        return moved

    def _grow(self) -> set[Slot]:
        """The dimensions that are short in the example and can be longer."""
        moved: set[Slot] = set()
        small = {s: size for s, size in self._example.items() if size <= _SMALL}
        for size in sorted(set(small.values())):
            group = [s for s in small if small[s] == size]
            moved |= self._move(group, max(size + 1, OTHER_BASE), None)[0]
        return moved

    def _move(self, group: list[Slot], value: int, limit: int | None) -> tuple[set[Slot], bool]:
        """Set dimensions of equal size to `value` where the program lets them; also says whether a run was too long."""
        moved: set[Slot] = set()
        tired = False
        # One alone first; then several of those that are left together.
        for subsets in (_alone, _together):
            for subset in islice(subsets([s for s in group if s not in moved]), _MAX_TRIALS):
                if moved & set(subset):
                    continue
                try:
                    works = self._try(dict.fromkeys(subset, value), limit) is not None
                except TooLong:
                    tired = True
                    continue
                if works:
                    self._now |= dict.fromkeys(subset, value)
                    moved |= set(subset)
        return moved, tired

    def _couple(self, moved: list[Slot]) -> list[list[Slot]]:
        """Partition the dynamic dimensions into sets that move together."""
        groups: list[set[Slot]] = [{s} for s in moved]

        def merge(slots: set[Slot]) -> None:
            together = [g for g in groups if g & slots]
            for g in together:
                groups.remove(g)
            groups.append(set().union(*together))

        for slot in moved:
            value = self._now[slot] + 1
            if self._try({slot: value}) is not None:
                continue
            peers = self._peers(slot, moved, value)
            if not peers:
                continue
            for peer in list(peers):  # leave out what is not needed
                rest = [p for p in peers if p != peer]
                if self._try(dict.fromkeys([slot, *rest], value)) is not None:
                    peers = rest
            merge({slot, *peers})
        # What moves alone may still have to agree: a size of 1 in the example hides it by broadcasting.
        for a, b in combinations([sorted(g) for g in groups], 2):
            if self._now[a[0]] != self._now[b[0]] or self._example[a[0]] != self._example[b[0]]:
                continue
            value = self._now[a[0]]
            apart = dict.fromkeys(a, value + 1) | dict.fromkeys(b, value + 2)
            level = dict.fromkeys([*a, *b], value + 1)
            if self._try(apart) is None and self._try(level) is not None:
                merge({*a, *b})
        return sorted((sorted(g) for g in groups), key=lambda g: g[0])

    def _peers(self, slot: Slot, moved: list[Slot], value: int) -> list[Slot]:
        """Dimensions that let `slot` have `value` when they have it too; the likely ones are tried first."""
        same = [s for s in moved if s != slot and self._now[s] == self._now[slot]]
        alike = [s for s in same if self._example[s] == self._example[slot]]
        candidates = [[s] for s in alike] + [[s for s in same if s[1] == slot[1]], alike, same]
        for peers in candidates:
            if peers and self._try(dict.fromkeys([slot, *peers], value)) is not None:
                return peers
        return []

    def _name(self, groups: list[list[Slot]]) -> InputShapes:
        """Names, bases and steps; a dimension whose size changes nothing that is computed stays static."""
        found = []
        for group in groups:
            low = self._now[group[0]]
            step = self._step(group, low)
            if step is None:
                continue
            short, longer = self._try({}), self._try(dict.fromkeys(group, low + step))
            assert short is not None and longer is not None
            if short.operations == longer.operations and _shapes(short) == _shapes(longer):
                continue
            found.append((group, step, len(short.operations) != len(longer.operations)))
        names = _symbol_names([timelike for *_, timelike in found])
        extents = {slot: Extent(None, offset=size) for slot, size in self._example.items()}
        symbols = []
        for name, (group, step, timelike) in zip(names, found, strict=True):
            least, offset = divmod(self._now[group[0]], step)
            base = max(least, TIME_BASE if timelike else OTHER_BASE)
            if not timelike:
                sizes = (offset + step * (base + i) for i in range(_UNITS + 1))
                base += _first_without_units(self._try(dict.fromkeys(group, size)) for size in sizes)
            symbols.append(Symbol(name, base, timelike))
            extents |= dict.fromkeys(group, Extent(name, step, offset))
        rows = tuple(
            tuple(extents[i, d] for d in range(tensor.dim())) for i, tensor in enumerate(self._program.examples)
        )
        return InputShapes(tuple(symbols), rows)

    def _step(self, group: list[Slot], low: int) -> int | None:
        """The least step in which this size can grow with result shapes that are affine in it, if there is one."""
        # A size is known to work at `low` and, where it was shrunk, at the example's value.
        reach = self._example[group[0]] - low
        for step in (k for k in range(1, max(reach, low) + 1) if reach % k == 0 or low % k == 0):
            # The least size may be special: one step of a loop leaves out what joins the steps.
            for start in (low, low + step):
                runs = self._three(group, start, step)
                if len(runs) == 3 and _affine(runs) and self._holds_far(group, start, step, runs):
                    return step
        return None

    def _three(self, group: list[Slot], start: int, step: int) -> dict[int, Run]:
        """Runs at `start` and one and two steps more; fewer when the program fails or takes much longer there."""
        runs: dict[int, Run] = {}
        limit = None
        for k in range(3):
            try:
                run = self._try(dict.fromkeys(group, start + k * step), limit)
            except TooLong:
                break
            if run is None:
                break
            runs[k] = run
            limit = _LONGER * max(len(run.operations), _FIRST_LIMIT)
        return runs

    def _holds_far(self, group: list[Slot], start: int, step: int, runs: dict[int, Run]) -> bool:
        """Whether a size as long as the example's still fits, for one that seems to add no operations."""
        count = len(runs[0].operations)
        if len(runs[1].operations) != count:
            return True
        far = max((self._example[group[0]] - start) // step, 3)
        try:
            run = self._try(dict.fromkeys(group, start + far * step), limit=count)
        except TooLong:
            return False
        return run is not None and _affine({**runs, far: run})

    def _explain_failure(self) -> None:
        try:
            self._program.rehearse([tuple(t.shape) for t in self._program.examples])
        except CompileError:
            raise
        except Exception as e:
            raise CompileError(f"the model fails on its example inputs: {e}", user_line(e)) from e


def _shorter(size: int, *, deep: bool) -> list[int]:
    """Values to shrink `size` to; `deep` adds those that a minimum size or a stride may ask for."""
    if not deep:
        return [_SMALL]
    powers = [2**k for k in range(2, size.bit_length()) if 2**k < size]
    halves = []
    half = size
    while half % 2 == 0 and half > _SMALL:
        half //= 2
        halves.append(half)
    return sorted({_SMALL, *powers, *halves})


def _alone(group: list[Slot]) -> Iterator[tuple[Slot, ...]]:
    yield from ((s,) for s in group)


def _together(group: list[Slot]) -> Iterator[tuple[Slot, ...]]:
    """Sets of dimensions that may have to move together, the likely ones first."""
    for axis in sorted({d for _, d in group}):
        yield tuple(s for s in group if s[1] == axis)
    for size in (len(group), len(group) - 1, 2, 3, len(group) - 2):
        if 2 <= size <= len(group):
            yield from combinations(group, size)


def _shapes(run: Run) -> list[tuple[int, ...]]:
    """The shapes of the results."""
    return [tuple(t.shape) for t in run.results]


def _affine(runs: Mapping[int, Run]) -> bool:
    """Whether counts of operations, and all shapes that can be compared, are affine in the runs' keys (0, 1, ...)."""
    counts = [len(r.operations) for r in runs.values()]
    rows = [[d for shape in _shapes(r) for d in shape] for r in runs.values()]
    if len(set(counts)) == 1:
        rows = [[d for _, shapes in r.operations for shape in shapes for d in shape] for r in runs.values()]
    if len({len(row) for row in rows}) != 1:
        return False
    return all(
        all(value == values[0] + k * (values[1] - values[0]) for k, value in zip(runs, values, strict=True))
        for values in [counts, *zip(*rows, strict=True)]
    )


def _symbol_names(timelike: Sequence[bool]) -> list[str]:
    times, others = 0, 0
    names = []
    for is_time in timelike:
        if is_time:
            times += 1
            names.append("T" if times == 1 else f"T{times}")
        else:
            others += 1
            names.append("B" if others == 1 else f"D{others - 2}")
    return names


def _per_input(program: Program, dynamic_shapes: object) -> list[object]:
    """The declaration of every tensor input, in order."""
    args, kwargs = program.places([_Place(i) for i in range(len(program.examples))])
    if isinstance(dynamic_shapes, Mapping):
        roots = dict(zip(program.roots, args, strict=True)) | kwargs
        unknown = [key for key in dynamic_shapes if key not in roots]
        if unknown:
            raise CompileError(f"dynamic_shapes names '{unknown[0]}', which is no input; inputs: {', '.join(roots)}")
        pairs = [(roots[key], value) for key, value in dynamic_shapes.items()]
    elif isinstance(dynamic_shapes, list | tuple):
        pairs = list(zip([*args, *kwargs.values()], dynamic_shapes, strict=False))
    else:
        raise CompileError("dynamic_shapes is a dict of argument names or a sequence with an entry for each argument")
    found: dict[int, object] = {}
    for places, tree in pairs:
        _pair(places, tree, found)
    return [found.get(i) for i in range(len(program.examples))]


@dataclass(frozen=True)
class _Place:
    """Stands for input `number` in the structure of the arguments."""

    number: int


def _pair(places: object, tree: object, found: dict[int, object]) -> None:
    """Walk an argument's structure and its declaration together down to the tensors."""
    if isinstance(places, _Place):
        found[places.number] = tree
    elif isinstance(places, dict | list | tuple) and tree is not None:
        keys = list(places) if isinstance(places, dict) else range(len(places))
        if not isinstance(tree, Mapping | list | tuple) or (not isinstance(tree, Mapping) and len(tree) != len(keys)):
            raise CompileError(f"dynamic_shapes has {tree} for an argument that is a structure of {len(keys)} values")
        for key in keys:
            _pair(places[key], tree[key] if key in tree or not isinstance(tree, Mapping) else None, found)


def _dimensions(name: str, tree: object, rank: int) -> list[object]:
    entries: list[object] = [None] * rank
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, list | tuple):
        items = list(enumerate(tree))
    elif tree is None:
        items = []
    else:
        raise CompileError(f"dynamic_shapes has {tree!r} for input '{name}'; expected {{dimension: name}}")
    for dim, entry in items:
        if not isinstance(dim, int) or not -rank <= dim < rank:
            raise CompileError(f"dynamic_shapes names dimension {dim} of input '{name}', which has {rank} dimensions")
        entries[dim] = entry
    return entries


def _extent(name: str, size: int, entry: object) -> tuple[Extent, int]:
    """The extent of one declared dimension and its symbol's least value."""
    if entry is None or isinstance(entry, int):
        return Extent(None, offset=size), 0
    if isinstance(entry, str):
        return Extent(entry, 1), 0
    root = getattr(entry, "root", None)
    if root is not None and hasattr(entry, "fn"):  # a derived dimension: 2*T + 1
        offset = int(entry.fn(0))
        return Extent(root.__name__, int(entry.fn(1)) - offset, offset), _least(root)
    if isinstance(entry, torch.export.Dim):
        return Extent(entry.__name__, 1), _least(entry)
    raise CompileError(f"dynamic_shapes has {entry!r} for input '{name}'; expected a name or a torch.export.Dim")


def _least(dim: object) -> int:
    value = getattr(dim, "min", 0)
    return value if isinstance(value, int) else 0
