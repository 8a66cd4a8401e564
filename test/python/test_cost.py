"""The choices of the cost model, at sizes for which the answer was measured (docs/scheduling.md)."""

import pytest
from torch_mlir import ir

from parc import dialect
from parc.errors import UsageError
from parc.poly.cost import Estimate
from parc.poly.machine import Machine
from parc.poly.model import build, systems
from parc.poly.plan import Plan, Request, plan


def stack(layers: int, units: int) -> ir.Module:
    """Layers of input products and cells, each with as many weights as an LSTM of so many units."""
    context = ir.Context()
    dialect.load(context)
    gates = 4 * units
    state, tile, weight = f"tensor<?x?x{gates}xf32>", f"tensor<?x{gates}xf32>", f"tensor<{units}x{gates}xf32>"
    known = [f"%w{i}: {weight}, %u{i}: {weight}" for i in range(layers)]
    lines = [
        f"func.func @main(%T: index, %B: index, %x: {state}, %start: {tile}, {', '.join(known)}) {{",
        '%s = "parc.system"(%T, %B) ({',
    ]
    for i in range(layers):
        for name, extent in ((f"p{i}", "T"), (f"h{i}", "T + 1")):
            shape = f"affine_map<()[T, B] -> ({extent}, B, {gates})>"
            lines.append(f'%{name} = "parc.unknown"() {{name = "{name}", shape = {shape}}} : () -> {state}')
        lines.append(
            f'"parc.boundary"(%h{i}, %start) {{domain = affine_set<()[T, B] : (0 == 0)>, '
            f"to = affine_map<()[T, B] -> (0)>, of = affine_map<()[T, B] -> ()>}} : ({state}, {tile}) -> ()"
        )
    for i in range(layers):
        below = ("%x", "t") if i == 0 else (f"%h{i - 1}", "t + 1")
        lines += equation(f"product{i}", [below], f"%w{i}", (f"%p{i}", "t"), units)
        lines += equation(f"cell{i}", [(f"%h{i}", "t"), (f"%p{i}", "t")], f"%u{i}", (f"%h{i}", "t + 1"), units)
    lines.append('}) {symbols = ["T", "B"]} : (index, index) -> !parc.solution')
    return ir.Module.parse("\n".join([*lines, "return", "}"]), context)


def equation(name: str, reads: list[tuple[str, str]], weight: str, write: tuple[str, str], units: int) -> list[str]:
    """`write = first read * weight + second read`, of arrays and their indices."""
    gates = 4 * units
    state, tile, part = f"tensor<?x?x{gates}xf32>", f"tensor<?x{gates}xf32>", f"tensor<?x{units}xf32>"

    def at(index: str) -> str:
        return f"{{at = affine_map<(t)[T, B] -> ({index})>}}"

    lines = ['"parc.equation"() ({', "^bb0(%t: index):"]
    lines += [f'%r{i} = "parc.read"({a}) {at(j)} : ({state}) -> {tile}' for i, (a, j) in enumerate(reads)]
    lines += [
        f"%a = tensor.extract_slice %r0[0, 0] [%B, {units}] [1, 1] : {tile} to {part}",
        f"%zero = arith.constant 0.0 : f32 %e = tensor.empty(%B) : {tile}",
        f"%z = linalg.fill ins(%zero : f32) outs(%e : {tile}) -> {tile}",
        f"%m = linalg.matmul ins(%a, {weight} : {part}, tensor<{units}x{gates}xf32>) outs(%z : {tile}) -> {tile}",
        f"%sum = arith.addf %m, %r1 : {tile}" if len(reads) > 1 else "",
        f'"parc.write"({"%sum" if len(reads) > 1 else "%m"}, {write[0]}) {at(write[1])} : ({tile}, {state}) -> ()',
        f'}}) {{name = "{name}", domain = affine_set<(t)[T, B] : (t >= 0, T - 1 - t >= 0)>}} : () -> ()',
    ]
    return lines


def chosen(
    layers: int, steps: int, rows: int, units: int, threads: int, strategy: str = "auto", target: str = "cpu"
) -> Plan:
    module = stack(layers, units)
    with module.context, ir.Location.unknown():
        request = Request(strategy, threads=threads, sizes={"T": steps, "B": rows}, target=target)
        return plan(build(systems(module)[0]), request)


@pytest.mark.parametrize(("steps", "rows", "units"), [(128, 1, 256), (128, 1, 512), (128, 16, 512)])
def test_two_threads_split_the_units_of_a_layer_whose_weights_fill_the_cache(steps: int, rows: int, units: int) -> None:
    choice = chosen(4, steps, rows, units, threads=2).schedule.choice
    assert (choice.strategy, choice.distribute) == ("layers", "units")
    assert choice.tile > 1  # an input product of one step would read all its weights for one row


def test_one_thread_takes_layer_after_layer() -> None:
    result = chosen(4, 128, 1, 256, threads=1)
    assert result.schedule.choice.strategy == "layers"
    assert all(e.barriers == 0 for e in result.ranking)


def test_at_large_batches_wavefront_and_split_units_tie() -> None:
    ranking = chosen(4, 512, 32, 256, threads=2).ranking
    best = {s: next(e.seconds for e in ranking if e.choice.strategy == s) for s in ("layers", "wavefront")}
    assert best["wavefront"] == pytest.approx(best["layers"], rel=0.1)


def test_many_threads_take_small_layers_as_a_wavefront() -> None:
    assert chosen(8, 128, 1, 64, threads=16).schedule.choice.strategy == "wavefront"


def test_rows_are_shared_where_that_is_clearly_faster() -> None:
    small = chosen(1, 128, 256, 16, threads=16)
    assert small.schedule.choice.strategy == "rows"
    assert small.ranking[0].barriers == 0


def test_more_threads_never_make_the_prediction_slower() -> None:
    seconds = [chosen(4, 128, 16, 256, threads).ranking[0].seconds for threads in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)


def test_a_wavefront_that_is_asked_for_has_no_tiles() -> None:
    assert chosen(4, 128, 1, 256, threads=2, strategy="wavefront").schedule.choice.tile == 1


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "emulated"])
@pytest.mark.parametrize(
    ("layers", "steps", "rows", "units"), [(4, 128, 1, 512), (4, 128, 16, 512), (8, 512, 1, 256), (2, 1024, 8, 1024)]
)
def test_crews_of_blocks_take_stacks_as_a_wavefront(
    layers: int, steps: int, rows: int, units: int, target: str
) -> None:
    result = chosen(layers, steps, rows, units, threads=0 if target != "emulated" else 32, target=target)
    assert (result.schedule.choice.strategy, result.schedule.choice.distribute) == ("wavefront", "points")
    assert f"blocks of {target}" in result.why


def test_all_blocks_take_a_layer_alone() -> None:
    assert chosen(1, 512, 1, 512, threads=0, target="sm_90").schedule.choice.distribute == "units"


def test_members_of_a_crew_share_the_work_of_a_layer() -> None:
    def points(threads: int) -> Estimate:
        ranking = chosen(4, 128, 1, 512, threads, "wavefront", "sm_90").ranking
        return next(e for e in ranking if e.choice.distribute == "points")

    few, more = points(4), points(64)
    assert more.seconds < few.seconds / 4
    # A crew waits for itself too, between the input product and the cell.
    assert more.barriers == 2 * few.barriers


def test_there_is_no_machine_without_a_name() -> None:
    with pytest.raises(UsageError, match="sm_90"):
        Machine.of("sm_1")


def test_the_machine_is_read_from_the_system() -> None:
    machine = Machine.detect()
    assert machine.threads >= 1
    assert 1 << 15 <= machine.near_bytes <= 1 << 28
    assert Machine.detect(3).threads == 3
