"""Crews: what they wait for, against points that are enumerated one by one; results with any number of threads."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from random_systems import Recurrence, recurrences, scheduled, stack, vector
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc import dialect, pipelines
from parc.codegen.irtools import walk
from parc.errors import CompileError
from parc.passes.contract_arrays import ContractArrays
from parc.passes.schedule import ScheduleSystem
from parc.poly.crews import Crews, check_crews, find_crews
from parc.poly.model import System, build, systems

SIZES = range(14)
REQUESTS = st.fixed_dictionaries({"strategy": st.sampled_from(["wavefront", "layers"]), "time_tile": st.integers(1, 4)})
Conflict = tuple[str, tuple[int, ...], int, tuple[int, ...], int]
"""An equation's name, its time and owner at a point, and those of a later point that touches the same place."""


def parse(text: str) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    return ir.Module.parse(text, context)


def scheduled_system(recurrence: Recurrence, request: dict[str, str | int], contract: bool) -> tuple[ir.Module, System]:
    module = parse(recurrence.text(last=[list(recurrence.equations)[-1]]))
    ScheduleSystem(distribute="points", **request).run(module)
    if contract:
        ContractArrays().run(module)
    return module, build(systems(module)[0])


def conflicts(recurrence: Recurrence, module: ir.Module, size: int) -> Iterator[Conflict]:
    """All pairs of points that touch one place of memory, at least one of them writing it, at T = size."""
    times, owners = scheduled(module, "schedule"), scheduled(module, "owner")
    places = {
        ir.StringAttr(op.attributes["name"]).value.removesuffix("_h"): op.attributes["storage"].value
        for op in walk(module.operation, "parc.unknown")
        if "storage" in op.attributes
    }

    def place(array: str, step: int) -> tuple[str, tuple[int, ...]]:
        element = step + recurrence.given
        return array, vector(places[array], element, size) if array in places else (element,)

    touched: dict[tuple[str, tuple[int, ...]], list[tuple[bool, str, tuple[int, ...], int]]] = {}
    for name, t in recurrence.points(size):
        when = (name, vector(times[name], t, size), vector(owners[name], t, size)[0])
        touched.setdefault(place(name, t), []).append((True, *when))
        for read in recurrence.equations[name]:
            touched.setdefault(place(read.source, read.step(t, size)), []).append((False, *when))
    for uses in touched.values():
        for writes, name, time, owner in uses:
            for also, _, later, other in uses:
                if (writes or also) and time < later:
                    yield name, time, owner, later, other


def needed(found: set[Conflict], owners: int) -> tuple[tuple[int, ...], frozenset[str]]:
    """The least that crews have to wait for."""
    waits = [1 << owner for owner in range(owners)]
    inside = set()
    for name, time, owner, later, other in found:
        if time[0] == later[0]:
            assert owner == other
            inside.add(name)
        else:
            waits[other] |= 1 << owner
    return tuple(waits), frozenset(inside)


@given(recurrence=recurrences(), request=REQUESTS, contract=st.booleans())
def test_crews_wait_just_for_what_touches_the_same_places(
    recurrence: Recurrence, request: dict[str, str | int], contract: bool
) -> None:
    module, system = scheduled_system(recurrence, request, contract)
    crews = find_crews(system, is_shared=True)
    # Points of a wave that are independent may have as many owners as there are steps.
    assume(crews is not None)
    assert crews is not None
    check_crews(system, crews)
    found = {conflict for size in SIZES for conflict in conflicts(recurrence, module, size)}
    assert (crews.waits, crews.inside) == needed(found, crews.owners)


@given(recurrence=recurrences(), request=REQUESTS, contract=st.booleans())
def test_one_wait_less_is_refused(recurrence: Recurrence, request: dict[str, str | int], contract: bool) -> None:
    _module, system = scheduled_system(recurrence, request, contract)
    crews = find_crews(system, is_shared=True)
    # Points of a wave that are independent may have as many owners as there are steps.
    assume(crews is not None)
    assert crews is not None
    for weaker in weakened(crews):
        with pytest.raises(CompileError, match="but does not wait for it"):
            check_crews(system, weaker)


def weakened(crews: Crews) -> Iterator[Crews]:
    for name in crews.inside:
        yield replace(crews, inside=crews.inside - {name})
    for owner, mask in enumerate(crews.waits):
        for other in range(crews.owners):
            if other != owner and mask >> other & 1:
                waits = [*crews.waits]
                waits[owner] &= ~(1 << other)
                yield replace(crews, waits=tuple(waits))


@pytest.mark.parametrize(("contract", "waits"), [(False, (1, 3, 6, 12)), (True, (3, 7, 14, 12))])
def test_layers_of_a_stack_wait_for_their_neighbours(contract: bool, waits: tuple[int, ...]) -> None:
    """A layer overwrites, where a few steps are kept, what the one above has read."""
    _module, system = scheduled_system(stack(4, products=True), {"strategy": "wavefront"}, contract)
    shared, alone = find_crews(system, is_shared=True), find_crews(system, is_shared=False)
    assert shared is not None and alone is not None
    assert shared.waits == alone.waits == waits
    assert (shared.inside, alone.inside) == ({f"product{i}" for i in range(4)}, set())


def test_members_are_divided_evenly() -> None:
    crews = Crews(4, (1, 2, 4, 8), frozenset(), is_shared=True)
    assert [crews.members(team) for team in (1, 3, 4, 7, 8, 132)] == [1, 1, 1, 1, 2, 33]
    assert replace(crews, is_shared=False).members(132) == 1


class Stack(nn.Module):
    """Layers of a torch cell, written as loops."""

    def __init__(self, cell: Callable[[int, int], nn.Module], layers: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.cells = nn.ModuleList([cell(units, units) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            state = x.new_zeros(x.shape[1], self.units)
            both = (state, state)
            outputs = []
            for t in range(x.shape[0]):
                if isinstance(cell, nn.LSTMCell):
                    both = cell(x[t], both)
                    state = both[0]
                else:
                    state = cell(x[t], state)
                outputs.append(state)
            x = torch.stack(outputs)
        return x


class Lookup(nn.Module):
    """Layers whose step looks up a row of a table, which is done by one thread."""

    def __init__(self, layers: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.weights = nn.ParameterList([torch.randn(units, units) / units**0.5 for _ in range(layers)])
        self.table = nn.Parameter(torch.randn(units, units))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            state = x.new_zeros(x.shape[1], self.units)
            outputs = []
            for t in range(x.shape[0]):
                state = torch.tanh(x[t] + state @ weight) + self.table[state.argmax(1)]
                outputs.append(state)
            x = torch.stack(outputs)
        return x


def compiled_with(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, schedule: str, split: str, threads: int, training: bool
) -> parc.Module:
    """A model, compiled with these options of the passes."""
    passes = {"schedule": f"schedule{{{schedule}}}", "split-products": split, "solve-affine": ""}
    steps = [passes.get(step.partition("{")[0], step) for step in pipelines.PIPELINES["schedule"]]
    monkeypatch.setitem(pipelines.PIPELINES, "schedule", tuple(filter(None, steps)))
    example = torch.randn(6, 3, 40, requires_grad=training)
    return parc.compile(model, example, threads=threads, training=training, dynamic_shapes=[{0: "T", 1: "B"}])


def results(compiled: parc.Module, model: nn.Module, training: bool) -> list[Tensor]:
    """Outputs and gradients."""
    found = []
    for steps_, rows in ((9, 3), (1, 1), (4, 11)):
        x = torch.randn(steps_, rows, 40, generator=torch.Generator().manual_seed(steps_), requires_grad=training)
        model.zero_grad()
        y = compiled(x)
        found.append(y.detach().clone())
        if training:
            (y * torch.linspace(0, 1, 40)).sum().backward()
            found += [x.grad.clone(), *(p.grad.clone() for p in model.parameters())]  # type: ignore[union-attr]
    return found


MODELS = {
    "lstm": (lambda: Stack(nn.LSTMCell, 2, 40), False, "split-products{inputs=false}", 1, 4),
    "rnn": (lambda: Stack(nn.RNNCell, 2, 40), True, "split-products", 4, 5),
    "lookup": (lambda: Lookup(2, 40), False, "split-products", 1, 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    make, training, split, tile, threads = MODELS[name]
    model = make()

    def run(schedule: str, threads: int) -> list[Tensor]:
        compiled = compiled_with(monkeypatch, model, schedule, split, threads, training)
        return results(compiled, model, training)

    expected = run("strategy=sequential", 1)
    found = run(f"strategy=wavefront distribute=points time_tile={tile}", threads)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("layers", [2, 4])
def test_cells_that_keep_their_inputs_have_as_many_waves(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, split = "strategy=wavefront distribute=points", "split-products{inputs=false}"
    compiled = compiled_with(monkeypatch, Stack(nn.LSTMCell, layers, 40), schedule, split, 2, training=False)
    for steps in (1, 2, 17):
        report = compiled.explain({"T": steps, "B": 2})
        assert (report.waves, report.steps, report.work) == (layers + steps - 1, layers + steps - 1, layers * steps)
