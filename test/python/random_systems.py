"""Systems of equations as plain data: their text for parc, and their points and needs by enumeration.

Nothing here uses `parc.poly`, whose answers the tests compare with these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from torch_mlir import ir

Point = tuple[str, int]
"""An equation's name and its step."""


@dataclass(frozen=True)
class Read:
    """The equation `source` at step `slope * t + steps * T + offset`."""

    source: str
    slope: int
    steps: int
    offset: int

    def step(self, t: int, size: int) -> int:
        return self.slope * t + self.steps * size + self.offset


@dataclass(frozen=True)
class Recurrence:
    """Equations over the steps 0 <= t < T; what they read of steps before 0 is given."""

    equations: dict[str, tuple[Read, ...]]

    def points(self, size: int) -> list[Point]:
        return [(name, t) for name in self.equations for t in range(size)]

    def needs(self, size: int) -> Iterator[tuple[Point, Point]]:
        """All (source, sink) at T = size."""
        for name, t in self.points(size):
            for read in self.equations[name]:
                if (step := read.step(t, size)) >= 0:
                    yield (read.source, step), (name, t)

    @property
    def given(self) -> int:
        """How many steps before the first one are given: step t of an equation is element `t + given` of its array."""
        return max((-r.offset for reads in self.equations.values() for r in reads if r.slope == 1), default=1) or 1

    def text(
        self,
        times: dict[str, str] | None = None,
        attributes: str = "",
        storage: dict[str, str] | None = None,
        whole: Sequence[str] = (),
        last: Sequence[str] = (),
    ) -> str:
        """A module with this system.

        `times` gives the results of each equation's schedule, `storage` where element i of its array is. The arrays of
        the equations `whole` are results, and the last steps of those of the equations `last`.
        """
        given = self.given
        array, tile = "tensor<?x2x8xf32>", "tensor<2x8xf32>"
        kinds = [array] * len(whole) + [tile] * len(last)
        shapes = [f"(T + {given}, 2, 8)"] * len(whole) + ["(2, 8)"] * len(last)
        shaped = [f"{k} {{parc.shape = affine_map<()[T] -> {shape}>}}" for k, shape in zip(kinds, shapes, strict=True)]
        lines = [
            'func.func @main(%T: index {parc.kind = "symbol", parc.name = "T"}, '
            f"%x: {array} {{parc.shape = affine_map<()[T] -> (T, 2, 8)>}}, %h0: {tile}) -> ({', '.join(shaped)}) {{",
            '%s = "parc.system"(%T) ({',
        ]
        for name in self.equations:
            stored = f", storage = affine_map<(i)[T] -> ({storage[name]})>" if storage and name in storage else ""
            lines += [
                f'%{name} = "parc.unknown"() {{name = "{name}_h", shape = affine_map<()[T] -> (T + {given}, 2, 8)>'
                f"{stored}}} : () -> {array}",
                f'"parc.boundary"(%{name}, %h0) {{domain = affine_set<(i)[T] : (i >= 0, {given - 1} - i >= 0)>, '
                f"to = affine_map<(i)[T] -> (i)>, of = affine_map<(i)[T] -> ()>}} : ({array}, {tile}) -> ()",
            ]
        for name, reads in self.equations.items():
            lines += ['"parc.equation"() ({', "^bb0(%t: index):"]
            lines.append(f'%v0 = "parc.read"(%x) {{at = affine_map<(t)[T] -> (t)>}} : ({array}) -> {tile}')
            for i, read in enumerate(reads):
                at = f"t * {read.slope} + T * {read.steps} + {read.offset + given}"
                lines += [
                    f'%r{i} = "parc.read"(%{read.source}) {{at = affine_map<(t)[T] -> ({at})>}} : ({array}) -> {tile}',
                    f"%v{i + 1} = arith.addf %v{i}, %r{i} : {tile}",
                ]
            schedule = f", schedule = affine_map<(t)[T] -> ({times[name]})>" if times else ""
            lines += [
                f'"parc.write"(%v{len(reads)}, %{name}) {{at = affine_map<(t)[T] -> (t + {given})>}}'
                f" : ({tile}, {array}) -> ()",
                f'}}) {{name = "{name}", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>{schedule}}} : () -> ()',
            ]
        lines.append(f'}}) {{symbols = ["T"]{attributes}}} : (index) -> !parc.solution')
        for name in dict.fromkeys([*whole, *last]):
            lines.append(f'%{name}_h = "parc.array"(%s) {{name = "{name}_h"}} : (!parc.solution) -> {array}')
        lines += [f"%c = arith.constant {given - 1} : index", "%n = arith.addi %T, %c : index"]
        for name in last:
            slice_ = f"tensor.extract_slice %{name}_h[%n, 0, 0] [1, 2, 8] [1, 1, 1]"
            lines.append(f"%{name}_last = {slice_} : {array} to {tile}")
        values = ", ".join([*(f"%{name}_h" for name in whole), *(f"%{name}_last" for name in last)])
        lines += [f"return {values} : {', '.join(kinds)}" if kinds else "return", "}"]
        return "\n".join(lines)


def stack(layers: int, products: bool = False) -> Recurrence:
    """`layers` recurrences, each reading the one below at the same step, through a product of its own or directly."""
    equations: dict[str, tuple[Read, ...]] = {}
    for layer in range(layers):
        below = [Read(f"cell{layer - 1}", 1, 0, 0)] if layer else []
        if products:
            equations[f"product{layer}"] = tuple(below)
            below = [Read(f"product{layer}", 1, 0, 0)]
        equations[f"cell{layer}"] = (*below, Read(f"cell{layer}", 1, 0, -1))
    return Recurrence(equations)


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    """Systems that have an order: reads go to earlier equations at any step, or to any equation some steps before.

    The two kinds exclude each other for steps in reverse order: those would make cycles.
    """
    count = draw(st.integers(1, 4))
    mutual = draw(st.booleans())
    equations: dict[str, tuple[Read, ...]] = {}
    for number in range(count):
        reads = set()
        for _ in range(draw(st.integers(0, 3))):
            if number and draw(st.booleans()):
                source = draw(st.integers(0, number - 1))
                kinds = (
                    [(1, 0, -draw(st.integers(0, 2)))] if mutual else [(1, 0, 0), (1, 0, -1), (-1, 1, -1), (0, 1, -1)]
                )
                reads.add((source, *draw(st.sampled_from(kinds))))
            else:
                source = draw(st.integers(0, count - 1)) if mutual else number
                reads.add((source, 1, 0, -draw(st.integers(1, 2))))
        equations[f"cell{number}"] = tuple(Read(f"cell{s}", *rest) for s, *rest in sorted(reads))
    return Recurrence(equations)


def vector(map_: ir.AffineMap, t: int, size: int) -> tuple[int, ...]:
    """The value of an affine map `(t)[T] -> (...)`, by way of its text."""
    text = str(map_).split("->", 1)[1].strip()
    expression = text[1:-1].replace("floordiv", "//").replace("mod", "%")
    return eval(f"({expression},)", {"d0": t, "s0": size})


def scheduled(module: ir.Module, key: str) -> dict[str, ir.AffineMap]:
    """The `schedule` or `owner` of every equation of the one system in `module` that has it."""
    found: dict[str, ir.AffineMap] = {}

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "parc.equation" and key in op.attributes:
            found[ir.StringAttr(op.attributes["name"]).value] = op.attributes[key].value
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found
