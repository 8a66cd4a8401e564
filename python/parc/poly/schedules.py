"""The schedules of a system: points of one space, made from the waves of its layers.

Every strategy is a time vector for each equation and a way to share the work (docs/architecture.md, "Schedules"):

    strategy              time vector                                              distribute
    sequential            (layer, time, equation)                                  units
    layers                (layer, time, level)                                     units
    layers, tile of n     (layer, time floordiv n, phase, time mod n, level)       units
    rows                  the same as layers                                       rows
    wavefront             (wave, level)                                            points, units
    wavefront, tile of n  (time floordiv n + shift, phase, time mod n, level)      points, units

Coordinates that are the same number everywhere are left out.  A *phase* separates what is before the recurrence of a
layer, whose points in one tile have equal time so that they become one matrix product, from the recurrence itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import SET, to_map
from parc.poly.dependences import Dependence
from parc.poly.model import Equation, System
from parc.poly.wavefront import Layer, Times, time_distances

SOLVERS = ("scan", "recursive-doubling", "cyclic-reduction", "nested-scan")
"""Rewrites of affine recurrences that bring their own schedules (`parc.solvers`)."""
ITERATIVE = ("jacobi", "gauss-seidel", "jacobi-gs", "gs-jacobi", "newton", "quasi-newton")
"""Solutions by sweeps within a tolerance (`parc.iterative`), whose systems are scheduled like any others."""
STRATEGIES = ("sequential", "layers", "rows", "wavefront", *SOLVERS, *ITERATIVE)
DISTRIBUTIONS = ("units", "points", "rows")


@dataclass(frozen=True)
class Choice:
    """One schedule of the space."""

    strategy: str
    distribute: str
    tile: int = 1
    """How many steps of a layer's time are one tile; 1 when time is not tiled."""

    def __str__(self) -> str:
        return ", ".join([self.strategy, *([f"tiles of {self.tile}"] if self.tile > 1 else []), self.distribute])


@dataclass(frozen=True)
class Schedule:
    """Time vectors and owners for all equations of a system, as MLIR affine maps by the equation's name."""

    choice: Choice
    time: Mapping[str, ir.AffineMap]
    owner: Mapping[str, ir.AffineMap]
    """Empty unless points are distributed."""


def make(system: System, dependences: Sequence[Dependence], layers: Sequence[Layer], choice: Choice) -> Schedule:
    """One schedule; needs a current MLIR context.  It is legal if `legality.check_schedule` says so."""
    tile = choice.tile
    if choice.strategy == "sequential":
        times = _sequential(layers)
    elif choice.strategy == "wavefront":
        times = _tiled_waves(system, dependences, layers, tile) if tile > 1 else _waves(layers)
    else:
        times = _layer_order(layers, tile)
    owners = _owners(layers, choice) if choice.distribute == "points" else {}
    return Schedule(choice, affine_maps(system, _without_constants(times)), affine_maps(system, owners))


def affine_maps(system: System, vectors: Mapping[str, Sequence[ir.AffineExpr]]) -> dict[str, ir.AffineMap]:
    """Maps from the instances of equations, by name, to vectors of expressions."""
    symbols = len(system.symbols)
    return {
        name: ir.AffineMap.get(system.equation(name).domain.dim(SET), symbols, list(vector))
        for name, vector in vectors.items()
    }


def with_schedule(system: System, schedule: Schedule) -> System:
    """The same system as its attributes would describe it with this schedule."""

    def map_(maps: Mapping[str, ir.AffineMap], e: Equation) -> isl.Map | None:
        return to_map(maps[e.name], e.domain, "", location=e.op.location) if e.name in maps else None

    equations = tuple(replace(e, time=map_(schedule.time, e), owner=map_(schedule.owner, e)) for e in system.equations)
    choice = schedule.choice
    return replace(system, equations=equations, distribute=choice.distribute, strategy=choice.strategy)


_Times = dict[str, list[ir.AffineExpr]]


def _number(value: int) -> ir.AffineExpr:
    return ir.AffineExpr.get_constant(value)


def _sequential(layers: Sequence[Layer]) -> _Times:
    return {
        name: [_number(number), layer.local.wave[name].expr(), _number(position)]
        for number, layer in enumerate(layers)
        for position, name in enumerate(sorted(layer.group.equations, key=layer.local.level.__getitem__))
    }


def _layer_order(layers: Sequence[Layer], tile: int) -> _Times:
    def inside(layer: Layer, name: str) -> list[ir.AffineExpr]:
        if tile > 1:
            return _in_tiles(layer, layer.local, name, tile, 0)
        return [layer.local.wave[name].expr(), _number(layer.local.level[name])]

    return {
        name: [_number(number), *inside(layer, name)]
        for number, layer in enumerate(layers)
        for name in layer.group.equations
    }


def _waves(layers: Sequence[Layer]) -> _Times:
    return {
        name: [layer.whole.wave[name].expr(), _number(layer.whole.level[name])]
        for layer in layers
        for name in layer.group.equations
    }


def _tiled_waves(system: System, dependences: Sequence[Dependence], layers: Sequence[Layer], tile: int) -> _Times:
    """Waves of tiles: a layer's tiles come in order, each after the tiles of other layers that it reads."""
    times = [layer.local for layer in layers]
    shifts = _tile_shifts(system, dependences, layers, times, tile)
    if shifts is None:
        # A layer that waits for all of another one: only the waves' own times, with their symbols, keep them apart.
        times = [layer.whole for layer in layers]
        shifts = _tile_shifts(system, dependences, layers, times, tile)
        assert shifts is not None, "waves keep dependences between layers, so their distances are bounded"
    return {
        name: _in_tiles(layer, time, name, tile, shift)
        for layer, time, shift in zip(layers, times, shifts, strict=True)
        for name in layer.group.equations
    }


def _tile_shifts(
    system: System,
    dependences: Sequence[Dependence],
    layers: Sequence[Layer],
    times: Sequence[Times],
    tile: int,
) -> list[int] | None:
    """For each layer the number to add to its tiles so that they come after those they read; None if there is none."""
    number = {name: i for i, layer in enumerate(layers) for name in layer.group.equations}
    waves = {name: wave for time in times for name, wave in time.wave.items()}
    shifts = [0] * len(layers)
    for dependence in sorted(dependences, key=lambda d: number[d.sink]):
        source, sink = number[dependence.source], number[dependence.sink]
        if source == sink:
            continue
        distances = time_distances(system, dependence, waves)
        least = distances.project_out_all_params().dim_min_val(0)
        if not least.is_int():
            return None
        # floor(b / n) - floor(a / n) >= floor((b - a) / n)
        shifts[sink] = max(shifts[sink], shifts[source] + 1 - least.to_python() // tile)
    return shifts


def _in_tiles(layer: Layer, times: Times, name: str, tile: int, shift: int) -> list[ir.AffineExpr]:
    """(tile + shift, phase, time inside the tile, level); outside the recurrence all of a tile has one time."""
    expr, core = times.wave[name].expr(), layer.group.core
    inside = [_number(0), _number(0)]
    if name in core:
        level = times.level[name] - min(times.level[n] for n in core)
        inside = [ir.AffineExpr.get_mod(expr, tile), _number(level)]
    return [ir.AffineExpr.get_floor_div(expr, tile) + shift, _number(layer.phase[name]), *inside]


def _owners(layers: Sequence[Layer], choice: Choice) -> _Times:
    """One worker a layer, or one for each first index where the points of a wave can be dealt out."""
    waves = choice.strategy == "wavefront"
    return {
        name: [ir.AffineExpr.get_dim(0) + number if waves and layer.is_dealt(choice.tile) else _number(number)]
        for number, layer in enumerate(layers)
        for name in layer.group.equations
    }


def _without_constants(times: _Times) -> _Times:
    """Leave out the coordinates that are one and the same number for all equations (but never all of them)."""
    columns = list(zip(*times.values(), strict=True))

    def varies(column: Sequence[ir.AffineExpr]) -> bool:
        return len(set(column)) > 1 or not isinstance(column[0], ir.AffineConstantExpr)

    kept = [i for i, column in enumerate(columns) if varies(column)] or [0]
    return {name: [vector[i] for i in kept] for name, vector in times.items()}
