"""Schedules and what is said of them, against points that are enumerated one by one."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_systems import Read, Recurrence, recurrences, scheduled, stack, vector
from torch_mlir import ir

from parc import dialect
from parc.errors import CompileError
from parc.passes.schedule import ScheduleSystem
from parc.passes.verify_schedule import VerifySchedule
from parc.report import explain_module

SIZES = range(8)

# What feeds a recurrence has a chain of its own.
WAITS_INSIDE_A_TILE = Recurrence(
    {
        "cell0": (Read("cell2", 1, 0, -1),),
        "cell1": (),
        "cell2": (Read("cell0", 1, 0, -1), Read("cell3", 1, 0, -1)),
        "cell3": (Read("cell1", 1, 0, -1),),
    }
)
WAITS_FOR_A_LAST_STEP = Recurrence(
    {
        "cell0": (Read("cell0", 1, 0, -2),),
        "cell1": (),
        "cell2": (Read("cell0", -1, 1, -1), Read("cell1", 0, 1, -1), Read("cell2", 1, 0, -1)),
    }
)
LEAVES_A_WAVE_EMPTY = Recurrence(
    {
        "cell0": (Read("cell0", 1, 0, -2), Read("cell3", 1, 0, -2), Read("cell3", 1, 0, -1)),
        "cell1": (Read("cell0", 1, 0, -2),),
        "cell2": (Read("cell0", 1, 0, 0), Read("cell1", 1, 0, -1)),
        "cell3": (),
    }
)

REQUESTS = st.one_of(
    st.just({}),
    st.just({"strategy": "sequential"}),
    st.fixed_dictionaries(
        {
            "strategy": st.sampled_from(["layers", "rows"]),
            "distribute": st.sampled_from(["", "", "points"]),
            "time_tile": st.integers(0, 4),
        }
    ),
    st.fixed_dictionaries(
        {
            "strategy": st.just("wavefront"),
            "distribute": st.sampled_from(["", "units", "points"]),
            "time_tile": st.integers(0, 4),
        }
    ),
)


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def broken(system: Recurrence, module: ir.Module, size: int) -> list[str]:
    """The needs that the schedule in `module` does not keep at T = size."""
    times, owners = scheduled(module, "schedule"), scheduled(module, "owner")
    problems = []
    for source, sink in system.needs(size):
        before, after = (vector(times[name], t, size) for name, t in (source, sink))
        if not before < after:
            problems.append(f"{sink} at {after} needs {source} at {before}")
        elif owners and before[0] == after[0]:
            workers = {vector(owners[name], t, size) for name, t in (source, sink)}
            if len(workers) > 1:
                problems.append(f"{sink} and {source} are in wave {before[0]} of workers {workers}")
    return problems


@given(system=recurrences(), request=REQUESTS)
@example(system=WAITS_INSIDE_A_TILE, request={"strategy": "layers", "time_tile": 4})
@example(system=WAITS_FOR_A_LAST_STEP, request={"strategy": "layers", "time_tile": 1})
def test_every_schedule_keeps_every_need(system: Recurrence, request: dict[str, str | int]) -> None:
    module = parse(system.text())
    ScheduleSystem(**request).run(module)
    assert set(scheduled(module, "schedule")) == set(system.equations)
    for size in SIZES:
        assert not broken(system, module, size)


@given(system=recurrences(), data=st.data())
def test_a_given_schedule_is_legal_just_if_it_keeps_every_need(system: Recurrence, data: st.DataObject) -> None:
    times = {}
    for number, name in enumerate(system.equations):
        first = f"t + {data.draw(st.integers(-1, 3))}"
        tile = data.draw(st.sampled_from([1, 1, 1, 2, 3]))
        times[name] = f"({first}) floordiv {tile}, {number}, t mod {tile}" if tile > 1 else f"{first}, {number}, 0"
    module = parse(system.text(times, attributes=', distribute = "units"'))
    legal = not any(broken(system, module, size) for size in range(12))
    if legal:
        VerifySchedule().run(module)
    else:
        with pytest.raises(CompileError, match="must run after"):
            VerifySchedule().run(module)


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("products", [False, True])
def test_a_stack_of_layers_has_layers_plus_steps_minus_one_waves(layers: int, products: bool) -> None:
    system = stack(layers, products)
    module = parse(system.text())
    ScheduleSystem(strategy="wavefront").run(module)
    times = scheduled(module, "schedule")
    for size in (1, 2, 3, 7, 128):
        report = explain_module(module, {"T": size})
        waves = {vector(times[name], t, size)[0] for name, t in system.points(size)}
        assert len(waves) == layers + size - 1
        assert (report.waves, report.span, report.work) == (len(waves), len(waves), layers * size)
    assert report.waves.formula == ("T" if layers == 1 else f"T + {layers - 1}")


@given(system=recurrences(), request=REQUESTS)
@example(system=LEAVES_A_WAVE_EMPTY, request={"strategy": "wavefront", "time_tile": 3, "distribute": "units"})
def test_counts_are_those_of_the_points(system: Recurrence, request: dict[str, str | int]) -> None:
    module = parse(system.text())
    ScheduleSystem(**request).run(module)
    times = scheduled(module, "schedule")
    for size in (0, 1, 5, 9):
        report = explain_module(module, {"T": size})
        vectors = {vector(times[name], t, size) for name, t in system.points(size)}
        assert report.steps == len(vectors)
        if request.get("strategy") == "wavefront":
            assert report.waves == len({v[0] for v in vectors})
        for number in (report.steps, report.waves, report.span, report.work):
            if number.formula != "?":
                formula = number.formula.replace("^", "**")
                assert eval(formula, {"T": size, "floor": math.floor}) == number


@pytest.mark.parametrize("distribute", ["units", "points"])
@pytest.mark.parametrize("tile", [2, 8])
def test_a_tiled_wavefront_has_a_wave_less_than_tiles_and_layers(distribute: str, tile: int) -> None:
    module = parse(stack(3, products=True).text())
    ScheduleSystem(strategy="wavefront", distribute=distribute, time_tile=tile).run(module)
    for size in (1, tile, tile + 1, 100):
        assert explain_module(module, {"T": size}).waves == -(-size // tile) + 2


def test_the_input_products_of_a_tile_have_one_time() -> None:
    module = parse(stack(2, products=True).text())
    ScheduleSystem(strategy="layers", time_tile=4).run(module)
    times = scheduled(module, "schedule")
    assert len({vector(times["product1"], t, 8) for t in range(8)}) == 2
    assert len({vector(times["cell1"], t, 8) for t in range(8)}) == 8
