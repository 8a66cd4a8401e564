"""The block matrix of systems, against points that are enumerated one by one; formulas, costs and pictures."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from loops import REGULAR
from random_systems import Read, Recurrence, recurrences, stack
from torch_mlir import ir

import parc
from parc import dialect
from parc.passes.schedule import ScheduleSystem
from parc.poly.complexity import Cost, costs
from parc.poly.dependences import dependences
from parc.poly.formula import Number, product, total
from parc.poly.model import build, systems
from parc.poly.spy import Matrix, matrix, spy
from parc.poly.structure import Structure, find_structure
from parc.poly.wavefront import waves
from parc.report import explain_module
from parc.structure_report import structure_text

ADJOINT = (Path(__file__).parent.parent / "tools" / "emit_structure.mlir").read_text().split("// -----")[1]
NESTED = (Path(__file__).parent.parent / "passes" / "schedule_nested.mlir").read_text()
GRID = (Path(__file__).parent.parent / "passes" / "schedule_grid.mlir").read_text()

BANDED = Recurrence({"cell0": (Read("cell0", 1, 0, -1), Read("cell0", 1, 0, -3))})
TURNED = Recurrence({"one": (Read("one", 1, 0, -1),), "two": (Read("one", -1, 1, -1), Read("two", 1, 0, -1))})
TWO_IN_TURN = Recurrence({"one": (Read("two", 1, 0, -1),), "two": (Read("one", 1, 0, -1), Read("one", 1, 0, -2))})
SKIPS = Recurrence(
    {
        "a": (Read("a", 1, 0, -1),),
        "b": (Read("a", 1, 0, 0), Read("b", 1, 0, -1)),
        "c": (Read("a", 1, 0, 0), Read("b", 1, 0, 0), Read("c", 1, 0, -1)),
    }
)


@dataclass
class Found:
    """The structure of the one system in a module, at given sizes."""

    structure: Structure
    matrix: Matrix
    costs: dict[str, Cost]
    picture: str


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def find(text: str, **sizes: int) -> Found:
    module = parse(text)
    with module.context, ir.Location.unknown():
        (op,) = systems(module)
        system = build(op)
        flow = dependences(system)
        layers = waves(system, flow)
        structure = find_structure(system, flow, layers)
        return Found(
            structure,
            matrix(system, structure, layers, sizes),
            {cost.solver: cost for cost in costs(system, flow, structure, layers, sizes)},
            spy(system, structure, layers, sizes),
        )


def evaluated(formula: str, **sizes: int) -> int:
    names = {"log2": math.log2, "ceil": math.ceil, "floor": math.floor, **sizes}
    return eval(formula.replace("^", "**"), {}, names)


@given(system=recurrences())
@example(system=BANDED)
@example(system=TURNED)
@example(system=TWO_IN_TURN)
@example(system=SKIPS)
def test_blocks_are_those_of_the_points(system: Recurrence) -> None:
    for size in (1, 2, 6):
        found = find(system.text(), T=size)
        rows = [(name, t) for name, (t,) in found.matrix.rows]
        blocks = {((source, s), (sink, t)) for (sink, (t,)), (source, (s,)) in found.matrix.blocks}
        assert sorted(rows) == sorted(system.points(size))
        assert blocks == set(system.needs(size))
        assert found.structure.rows.at({"T": size}) == len(rows)
        assert found.structure.nonzeros.at({"T": size}) == len(blocks)
        place = {row: i for i, row in enumerate(rows)}
        assert all(place[source] < place[sink] for source, sink in blocks), "the matrix is not triangular"
        full = len(rows) * (len(rows) - 1) / 2
        assert found.structure.density({"T": size}) == (len(blocks) / full if full else 0)


@given(system=recurrences())
@example(system=BANDED)
@example(system=TWO_IN_TURN)
def test_bandwidths_are_the_largest_distances(system: Recurrence) -> None:
    size = 12
    found = find(system.text(), T=size)
    for component in found.structure.components:
        inside = [(s, d) for s, d in system.needs(size) if s[0] in component.core and d[0] in component.core]
        (level,) = component.levels
        if level.over == "t":
            assert level.bandwidth == max((abs(sink[1] - source[1]) for source, sink in inside), default=0)
            assert level.rows.at({"T": size}) == size
    place = {name: i for i, c in enumerate(found.structure.components) for name in c.equations}
    distances = {place[sink] - place[source] for (source, _), (sink, _) in system.needs(size)} - {0}
    if found.structure.layers is not None:
        assert found.structure.layers.bandwidth == max(map(abs, distances), default=0)
        assert len({distance > 0 for distance in distances}) <= 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (stack(1).text(), "block lower bidiagonal in t (T rows)"),
        (stack(4).text(), "block lower bidiagonal in 4 layers, each layer block lower bidiagonal in t (T rows)"),
        (stack(2, True).text(), "block lower bidiagonal in 2 layers, each layer block lower bidiagonal in t (T rows)"),
        (BANDED.text(), "block lower banded (bandwidth 3) in t (T rows)"),
        (
            SKIPS.text(),
            "block lower triangular (bandwidth 2) in 3 layers (3 of 3 blocks), "
            "each layer block lower bidiagonal in t (T rows)",
        ),
        (ADJOINT, "block upper bidiagonal in 2 layers, each layer block upper bidiagonal in t (T rows)"),
        (
            GRID,
            "block lower bidiagonal in t0 (L rows), each block on the diagonal block lower bidiagonal in t1 (T rows)",
        ),
    ],
)
def test_names(text: str, name: str) -> None:
    sizes = {"L": 3, "T": 4} if text == GRID else {"T": 4}
    structure = find(text, **sizes).structure
    assert structure.name == name
    assert structure.direction == ("upper" if text == ADJOINT else "lower")
    assert structure.is_nested == (name.count("bidiagonal") == 2 and "triangular" not in name)


def test_the_adjoint_of_a_stack_is_an_upper_triangle() -> None:
    found = find(ADJOINT, T=5)
    place = {row: i for i, row in enumerate(found.matrix.rows)}
    assert len(found.matrix.blocks) == 3 * 5 - 2
    assert all(place[sink] < place[source] for sink, source in found.matrix.blocks)
    assert {kind.name for kind in found.matrix.blocks.values()} == {"dense"}
    assert found.structure.is_affine


def test_layers_and_time_in_opposite_directions() -> None:
    """The rows are turned round where the program has one level upwards and one downwards."""
    start, end = '    "parc.equation"() ({', "domain = #steps} : () -> ()\n"
    head, first, rest = ADJOINT.split(start)
    second, tail = rest.split(end)
    found = find(head + start + second + end + start + first + tail, T=5)
    assert found.structure.direction == "mixed"
    assert found.structure.layers is not None and found.structure.layers.direction == "lower"
    assert {level.direction for c in found.structure.components for level in c.levels} == {"upper"}
    place = {row: i for i, row in enumerate(found.matrix.rows)}
    assert all(place[source] < place[sink] for sink, source in found.matrix.blocks)


def test_a_system_without_affine_times() -> None:
    found = find(NESTED, M=3, N=4)
    assert found.structure.name == "block triangular with the sparsity of a general DAG"
    assert found.costs["wavefront"].span is None
    place = {row: i for i, row in enumerate(found.matrix.rows)}
    assert len(place) == 3 * 4 - 1 and len(found.matrix.blocks) == 3 * 4 - 2
    assert all(place[source] < place[sink] for sink, source in found.matrix.blocks)


@pytest.mark.parametrize("steps", [1, 2, 16, 100, 4096])
def test_steps_of_the_solvers(steps: int) -> None:
    found = find(ADJOINT, T=steps)
    rounds = math.ceil(math.log2(steps))
    spans = {name: cost.span for name, cost in found.costs.items()}
    assert spans == {
        "sequential": 2 * steps,
        "wavefront": steps + 1,
        "Jacobi": steps + 1,
        "scan": 4 * rounds,
        "cyclic reduction": 4 * rounds,
        "recursive doubling": 2 * rounds,
        "nested scan": 4 * rounds,
    }
    for cost in found.costs.values():
        assert cost.span is not None and cost.work is not None
        for number in (cost.span, cost.work):
            if number.formula != "?" and steps > 1:
                assert evaluated(number.formula, T=steps) == number


def test_work_follows_the_kind_of_the_blocks() -> None:
    steps, rows, units = 64, 4, 8
    found = find(ADJOINT, T=steps).costs
    layers, compositions = 2, 2 * steps
    composed = layers * compositions * rows * (units**3 + units**2)
    assert found["scan"].work == found["sequential"].work + composed
    diagonal = ADJOINT
    for weight, start in (("u0", "p"), ("u1", "g")):
        matmul = (
            f"linalg.matmul ins(%after, %{weight} : tensor<4x8xf32>, tensor<8x8xf32>) outs(%{start} : tensor<4x8xf32>)"
        )
        assert matmul in diagonal
        diagonal = diagonal.replace(f"{matmul} -> tensor<4x8xf32>", f"arith.addf %after, %{start} : tensor<4x8xf32>")
    found = find(diagonal, T=steps).costs
    assert found["scan"].work == found["sequential"].work + layers * compositions * rows * 2 * units
    assert found["sequential"].work == steps * rows * units**2 + layers * (steps - 1) * rows * units


def test_a_whole_formula() -> None:
    steps = Number(5, "T")
    assert str(2 * steps.log2() + 1) == "2*ceil(log2(T)) + 1 = 7"
    assert str(product([steps + 1, steps])) == "T^2 + T = 30"
    assert str(total([steps, Number(-5, "-T"), Number(3, "3")])) == "3"
    assert (Number(1, "1").log2(), Number(0, "0").log2(), Number(9).log2()) == (0, 0, 4)
    assert (Number(9) + steps).formula == "?"
    assert steps - 1 == 4 and type(steps - 1) is int


@pytest.mark.parametrize(("text", "sizes"), [(stack(3, True).text(), {"T": 200}), (GRID, {"L": 9, "T": 9})])
def test_a_picture_has_every_block(text: str, sizes: dict[str, int]) -> None:
    found = find(text, **sizes)
    image = ElementTree.fromstring(found.picture)
    space = "{http://www.w3.org/2000/svg}"
    squares = [path for path in image.iter(f"{space}path") if path.find(f"{space}title") is not None]
    title = image.find(f"{space}title").text
    rows, blocks = (int(title.split(f" {word}")[0].split()[-1]) for word in ("rows", "blocks"))
    kinds = {kind.name for kind in found.matrix.blocks.values()}
    assert len(squares) == rows + blocks + len(kinds) + 1
    words = [text.text for text in image.iter(f"{space}text")]
    assert kinds <= set(words)
    assert {"cell0", "product2"} <= set(words) if "L" not in sizes else "cell[1]" in words


def test_no_points_are_no_picture() -> None:
    assert "no points" in find(stack(2).text(), T=0).picture


def test_the_report_has_the_structure(tmp_path: Path) -> None:
    module = parse(ADJOINT)
    ScheduleSystem(sizes="T=32").run(module)
    report = explain_module(module)
    (system,) = report.systems
    assert system.structure.is_nested and system.structure.is_affine
    assert "block upper bidiagonal in 2 layers" in str(report)
    assert "scan                span 4*ceil(log2(T)) = 20" in str(report)
    report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("<svg") == 2
    assert structure_text(module, {}).startswith("System 0: 2 equations, numbers at T=32\nStructure: block upper")


@pytest.mark.parametrize(
    ("name", "linearity"),
    [
        ("selective_scan", "affine in all unknowns together"),
        ("simple_recurrent_unit", "not affine as a whole; each recurrence is affine in its own unknowns"),
        ("linear_attention", "affine in all unknowns together, given"),
        ("layers_of_other_sizes", "not affine"),
    ],
)
def test_models_and_their_adjoints(name: str, linearity: str) -> None:
    program = REGULAR[name]
    report = parc.explain(program.module(), program.arguments({"T": 11, "B": 13}), training=True)
    forward = report.systems[0].structure
    assert forward.linearity.startswith(linearity)
    assert forward.layers is None or forward.layers.direction == "lower"
    assert report.backward is not None
    assert all(system.structure.is_affine for system in report.backward.systems)
    backward = report.backward.systems[0].structure
    assert {level.direction for c in backward.components for level in c.levels} <= {"upper", "diagonal"}


def test_a_module_without_systems() -> None:
    assert structure_text(parse("func.func @main() { return }"), {}) == "There is no system.\n"
