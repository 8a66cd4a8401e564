"""Reverse-mode differentiation of straight-line code: linalg, tensor, arith and math operations of one block."""

from collections.abc import Iterable, Sequence

from torch_mlir import ir

from parc.autodiff import emit, rules
from parc.autodiff.extents import Sizes, constant_size, same_size
from parc.autodiff.rules import Cotangent, Window
from parc.autodiff.shifts import irrelevant_maxima
from parc.codegen.sizes import Size


class Reverse:
    """One sweep backwards over operations whose forward values are there to be used.

        reverse = Reverse(ops, [x, w], Sizes())
        reverse.seed(y, dy)
        reverse.run()
        dx, dw = reverse.total(x), reverse.total(w)

    ops: in program order; they stand in front of the insertion point, or dominate it.
    wanted: the leaves, to whose cotangents everything is led; what computes one of them is not looked at.
    """

    def __init__(self, ops: Sequence[ir.Operation | ir.OpView], wanted: Iterable[ir.Value], sizes: Sizes) -> None:
        self._ops = [op.operation for op in ops]
        self._wanted = set(wanted)
        self._sizes = sizes
        self._found: dict[ir.Value, list[Cotangent]] = {}
        self.active: set[ir.Value] = {v for v in self._wanted if emit.is_float(v.type)}
        irrelevant = irrelevant_maxima(self._ops)
        for op in self._ops:
            self.active.update(v for v in rules.active_results(op, self.active) if v not in irrelevant)

    def seed(self, value: ir.Value, cotangent: ir.Value) -> None:
        """Add to the cotangent of a value; nothing happens where it depends on no leaf."""
        self._add(value, cotangent)

    def run(self) -> None:
        """Lead the cotangents to the leaves; CompileError where one reaches an operation without derivative."""
        for op in reversed(self._ops):
            with op.location:
                cotangents = [None if r in self._wanted else self._take(r) for r in op.results]
                if any(c is not None for c in cotangents):
                    for value, contribution in rules.differentiate(op, cotangents, self.active, self._sizes):
                        self._add(value, contribution)

    def contributions(self, value: ir.Value) -> list[ir.Value]:
        """What the readers of a leaf contribute to its cotangent, not summed; parts of it are put together."""
        whole, windows = self._split(value)
        if windows:
            whole.append(self._assemble(value, windows))
        # Putting together again would give new operations.
        self._found[value] = list(whole)
        return whole

    def total(self, value: ir.Value) -> ir.Value | None:
        """The cotangent of a leaf; None where it is zero."""
        whole, windows = self._split(value)
        if windows and (not whole or _covers(windows, self._sizes.of(value))):
            whole, windows = self.contributions(value), []
        total: ir.Value | None = None
        for contribution in whole:
            total = contribution if total is None else emit.add(total, contribution, self._sizes)
        if total is not None and windows:
            total = self._placed(windows, total, [_whole(total, self._sizes)])
        if total is not None:
            self._found[value] = [total]
        return total

    def _split(self, value: ir.Value) -> tuple[list[ir.Value], list[Window]]:
        """The contributions to a whole tensor, and those to parts of it."""
        found = self._found.get(value, [])
        return [c for c in found if isinstance(c, ir.Value)], [c for c in found if isinstance(c, Window)]

    def _take(self, value: ir.Value) -> ir.Value | None:
        return self.total(value) if value in self._found else None

    def _add(self, value: ir.Value, cotangent: Cotangent) -> None:
        if value in self.active:
            self._found.setdefault(value, []).append(cotangent)

    def _assemble(self, value: ir.Value, windows: Sequence[Window]) -> ir.Value:
        """Parts as one tensor, with zeros where no part is; overlapping ones are added up."""
        if not _covers(windows, self._sizes.of(value)):
            return self._placed(windows, emit.zeros(value, self._sizes), [])
        if windows[0].value.type == value.type:
            return windows[0].value
        return self._placed(windows, emit.empty(value, self._sizes), [])

    def _placed(self, windows: Sequence[Window], total: ir.Value, done: Sequence[Window]) -> ir.Value:
        """Parts put into a tensor, or added where they may overlap with those that are in it."""
        done = list(done)
        for window in windows:
            part = window.value
            place = (window.offsets, window.extents, window.strides)
            if any(not _are_disjoint(window, other) for other in done):
                part = emit.add(emit.extract_slice(total, *place, part.type), part, self._sizes)
            total = emit.insert_slice(part, total, *place)
            done.append(window)
        return total


def _whole(value: ir.Value, sizes: Sizes) -> Window:
    """A tensor as a part of itself."""
    rank = ir.RankedTensorType(value.type).rank
    return Window(value, (0,) * rank, tuple(sizes.of(value)), (1,) * rank)


def _is(size: Size, number: int) -> bool:
    return constant_size(size) == number


def _are_disjoint(a: Window, b: Window) -> bool:
    """Whether two parts are known to have no element in common."""
    for of_a, n_a, s_a, of_b, n_b, s_b in zip(
        a.offsets, a.extents, a.strides, b.offsets, b.extents, b.strides, strict=True
    ):
        numbers = [constant_size(s) for s in (of_a, n_a, s_a, of_b, n_b, s_b)]
        if None in numbers:
            continue
        start_a, count_a, step_a, start_b, count_b, step_b = (n for n in numbers if n is not None)
        last_a, last_b = start_a + (count_a - 1) * step_a, start_b + (count_b - 1) * step_b
        if last_a < start_b or last_b < start_a:
            return True
        if step_a == step_b and (start_a - start_b) % step_a:
            return True
    return False


def _covers(windows: Sequence[Window], extents: Sequence[Size]) -> bool:
    """Whether disjoint parts, cut along one dimension, make up the whole."""
    cut = [
        d
        for d, extent in enumerate(extents)
        if not all(same_size(w.extents[d], extent) and _is(w.offsets[d], 0) and _is(w.strides[d], 1) for w in windows)
    ]
    if len(cut) != 1:
        return not cut and len(windows) == 1
    (d,) = cut
    whole = constant_size(extents[d])
    parts = [tuple(constant_size(s) for s in (w.offsets[d], w.extents[d], w.strides[d])) for w in windows]
    end = 0
    for start, count, step in sorted(parts, key=lambda p: -1 if p[0] is None else p[0]):
        if start != end or count is None or step != 1:
            return False
        end += count
    return end == whole
