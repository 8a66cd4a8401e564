"""Storage of unknown arrays: what may share memory, against an enumeration; contracted programs against whole ones."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_systems import Point, Recurrence, recurrences, scheduled, stack, vector
from torch_mlir import ir

from parc import dialect
from parc.codegen.irtools import walk
from parc.errors import CompileError
from parc.jit import cpu_executable
from parc.passes.contract_arrays import ContractArrays
from parc.passes.schedule import ScheduleSystem
from parc.passes.verify_schedule import VerifySchedule
from parc.pipelines import run_pipeline, stage_steps
from parc.runtime import Team
from parc.runtime.executable import Buffer

SIZES = range(12)
REQUESTS = st.one_of(
    st.fixed_dictionaries({"strategy": st.sampled_from(["layers", "rows"]), "time_tile": st.integers(1, 4)}),
    st.fixed_dictionaries(
        {
            "strategy": st.just("wavefront"),
            "distribute": st.sampled_from(["units", "points"]),
            "time_tile": st.integers(1, 4),
        }
    ),
)


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def storage(module: ir.Module) -> dict[str, ir.AffineMap]:
    """The `storage` of every unknown that has one, by its equation's name."""
    return {
        ir.StringAttr(op.attributes["name"]).value.removesuffix("_h"): op.attributes["storage"].value
        for op in walk(module.operation, "parc.unknown")
        if "storage" in op.attributes
    }


class Enumerated:
    """A scheduled system at one size: who defines and reads which element when."""

    def __init__(self, system: Recurrence, module: ir.Module, size: int, results: Sequence[tuple[str, int]]) -> None:
        times, owners = scheduled(module, "schedule"), scheduled(module, "owner")
        self.points_are_shared = bool(owners)
        self.given, self.size = system.given, size

        def stamp(point: Point) -> tuple[int, tuple[int, ...], int]:
            name, t = point
            owner = vector(owners[name], t, size)[0] if owners else 0
            return 1, vector(times[name], t, size), owner

        nothing = tuple(0 for _ in next(iter(times.values())).results)
        self.writes = {(name, t + self.given): stamp((name, t)) for name, t in system.points(size)}
        self.writes |= {(name, i): (0, nothing, 0) for name in system.equations for i in range(self.given)}
        self.uses = {element: [when] for element, when in self.writes.items()}
        for name, t in system.points(size):
            for read in system.equations[name]:
                self.uses[read.source, read.step(t, size) + self.given].append(stamp((name, t)))
        for element in results:
            self.uses[element].append((2, nothing, 0))

    def before(self, one: tuple[int, tuple[int, ...], int], other: tuple[int, tuple[int, ...], int]) -> bool:
        """Does the first surely come before the second? Inside a wave of shared points only one's own order is sure."""
        if self.points_are_shared and (one[0], one[1][0]) == (other[0], other[1][0]) and one[2] != other[2]:
            return False
        return one[:2] < other[:2]

    def clashes(self, places: dict[str, ir.AffineMap]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
        """Pairs of elements of one array with one place that are in use together."""
        for name, map_ in places.items():
            elements = range(self.size + self.given)
            for i in elements:
                for j in range(i):
                    if vector(map_, i, self.size) == vector(map_, j, self.size):
                        pair = ((name, i), (name, j))
                        if not any(
                            all(self.before(use, self.writes[b]) for use in self.uses[a]) for a, b in (pair, pair[::-1])
                        ):
                            yield pair


def results(system: Recurrence, size: int, whole: Sequence[str], last: Sequence[str]) -> list[tuple[str, int]]:
    elements = [(name, i) for name in whole for i in range(size + system.given)]
    return elements + [(name, size + system.given - 1) for name in last]


@given(system=recurrences(), request=REQUESTS, data=st.data())
def test_what_shares_memory_is_never_in_use_together(system: Recurrence, request: dict, data: st.DataObject) -> None:
    names = list(system.equations)
    whole, last = [n for n in names if data.draw(st.integers(0, 3)) == 0], [data.draw(st.sampled_from(names))]
    module = parse(system.text(whole=whole, last=last))
    ScheduleSystem(**request).run(module)
    ContractArrays().run(module)
    places = storage(module)
    assert not set(whole) & set(places)
    for size in SIZES:
        enumerated = Enumerated(system, module, size, results(system, size, whole, last))
        assert not list(enumerated.clashes(places))


@given(system=recurrences(), request=REQUESTS, data=st.data())
def test_given_storage_is_legal_just_if_nothing_in_use_is_overwritten(
    system: Recurrence, request: dict, data: st.DataObject
) -> None:
    sizes = st.integers(1, 6)
    places = {n: f"(i + {data.draw(st.integers(0, 1))}) mod {data.draw(sizes)}" for n in system.equations}
    module = parse(system.text(storage=places))
    ScheduleSystem(**request).run(module)
    clashes = [clash for size in range(16) for clash in Enumerated(system, module, size, ()).clashes(storage(module))]
    if clashes:
        with pytest.raises(CompileError, match="in the place of"):
            VerifySchedule().run(module)
    else:
        VerifySchedule().run(module)


class Program:
    """A scheduled module of a random system, compiled."""

    def __init__(self, module: ir.Module, threads: int) -> None:
        copy = ir.Module.parse(str(module), module.context)
        run_pipeline(copy, [*stage_steps("loops"), *stage_steps("llvm")])
        self.executable = cpu_executable(copy, Team(threads))

    def __call__(self, size: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        random = np.random.default_rng(size)
        inputs = [random.standard_normal(shape).astype(np.float32) for shape in ((size, 2, 8), (2, 8))]
        found = [np.full(shape, np.nan, np.float32) for shape in shapes]
        self.executable.run((size,), [Buffer.of(a) for a in (*inputs, *found)])
        return found


def compare(system: Recurrence, request: dict, whole: Sequence[str], last: Sequence[str], threads: int) -> None:
    """Contracted or not, a program computes the same, bit by bit."""
    module = parse(system.text(whole=whole, last=last))
    ScheduleSystem(**request).run(module)
    plain = Program(module, 1)
    ContractArrays().run(module)
    contracted = Program(module, threads)
    for size in (1, 2, 3, 8, 9, 13):
        shapes = [(size + system.given, 2, 8)] * len(whole) + [(2, 8)] * len(last)
        for one, other in zip(plain(size, shapes), contracted(size, shapes), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 3])
@given(system=recurrences(), request=REQUESTS, data=st.data())
def test_contracted_programs_compute_the_same(
    threads: int, system: Recurrence, request: dict, data: st.DataObject
) -> None:
    names = list(system.equations)
    compare(system, request, [data.draw(st.sampled_from(names))], names, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [1, 4])
@pytest.mark.parametrize("distribute", ["units", "points"])
def test_stacks_keep_a_few_steps(distribute: str, tile: int, threads: int) -> None:
    system = stack(3, products=True)
    request = {"strategy": "wavefront", "distribute": distribute, "time_tile": tile}
    compare(system, request, [], ["cell2"], threads)
    module = parse(system.text(last=["cell2"]))
    ScheduleSystem(**request).run(module)
    ContractArrays().run(module)
    assert set(storage(module)) == set(system.equations)
