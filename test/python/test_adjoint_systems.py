"""Systems that run backwards in time, as backward passes do: their cells, their schedules and their results.

Layers of a gated cell, `h[t] = sigmoid(a[t]) * tanh(b[t])`, of which the forward pass saved `g = [a, b]`.  The adjoint
of a layer needs the cotangents of the step after it, `d[t + 1] U^T`, and those of the layer above it, `d'[t] W^T`.
"""

import numpy as np
import pytest
from interpreter import evaluate
from torch_mlir import ir

from parc import dialect
from parc.codegen.analysis import analyse_cell
from parc.codegen.cell import Cell, Contraction
from parc.codegen.irtools import walk
from parc.jit import cpu_executable
from parc.passes.schedule import ScheduleSystem
from parc.pipelines import parse_pipeline, run_pipeline, stage_steps
from parc.report import explain_module
from parc.runtime import Team
from parc.runtime.executable import Buffer

# Values of one gate have its name, `i` or `j`, for the @.
GATE = """
      %@ = linalg.generic {indexing_maps = [#id, #id, #id, #id], iterator_types = ["parallel", "parallel"]}
        ins(%dh, %a, %b : TILE, TILE, TILE) outs(%e : TILE) {
      ^bb0(%@g: f32, %@a: f32, %@b: f32, %@o: f32):
        %@n = arith.negf %@a : f32
        %@x = math.exp %@n : f32
        %@q = arith.addf %@x, %one : f32
        %@s = arith.divf %one, %@q : f32
        %@t = math.tanh %@b : f32
        DERIVATIVE
        %@r = arith.mulf %@g, %@d : f32
        linalg.yield %@r : f32
      } -> TILE"""
BY_A = """%@c = arith.subf %one, %@s : f32
        %@f = arith.mulf %@s, %@c : f32
        %@d = arith.mulf %@f, %@t : f32"""
BY_B = """%@c = arith.mulf %@t, %@t : f32
        %@f = arith.subf %one, %@c : f32
        %@d = arith.mulf %@f, %@s : f32"""


def at(index: str) -> str:
    return f"{{at = affine_map<(t)[T, B] -> ({index})>}}"


def adjoint(layer: int, layers: int, units: int) -> str:
    """One layer's equation."""
    tile, wide = f"tensor<?x{units}xf32>", f"tensor<?x{2 * units}xf32>"
    state, gates = f"tensor<?x?x{units}xf32>", f"tensor<?x?x{2 * units}xf32>"

    def product(name: str, array: str, index: str, weight: str) -> str:
        return f"""
      %{name}_d = "parc.read"(%{array}) {at(index)} : ({gates}) -> {wide}
      %{name} = linalg.matmul ins(%{name}_d, %{weight} : {wide}, tensor<{2 * units}x{units}xf32>)
        outs(%zeros : {tile}) -> {tile}"""

    def part(name: str, start: int) -> str:
        return f"%{name} = tensor.extract_slice %g_t[0, {start}] [%B, {units}] [1, 1] : {wide} to {tile}\n"

    def gate(name: str, derivative: str) -> str:
        return GATE.replace("DERIVATIVE", derivative).replace("TILE", tile).replace("@", name)

    above = product("m", f"d{layer + 1}", "t", "W") if layer + 1 < layers else ""
    given = f'%m = "parc.read"(%gradient) {at("t + 1")} : ({state}) -> {tile}'
    return f"""
    "parc.equation"() ({{
    ^bb0(%t: index):
      {product("own", f"d{layer}", "t + 1", "U")}
      {above or given}
      %dh = linalg.add ins(%own, %m : {tile}, {tile}) outs(%e : {tile}) -> {tile}
      %g_t = "parc.read"(%g{layer}) {at("t")} : ({gates}) -> {wide}
      {part("a", 0)} {part("b", units)}
      {gate("i", BY_A)} {gate("j", BY_B)}
      %all = tensor.concat dim(1) %i, %j : ({tile}, {tile}) -> {wide}
      "parc.write"(%all, %d{layer}) {at("t")} : ({wide}, {gates}) -> ()
    }}) {{name = "adjoint{layer}", domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>}} : () -> ()"""


def stack(layers: int, units: int) -> str:
    """gradient [T + 1, B, units], the saved gates of each layer [T, B, 2 units] -> cotangents of layer 0's gates."""
    tile, wide = f"tensor<?x{units}xf32>", f"tensor<?x{2 * units}xf32>"
    gates = f"tensor<?x?x{2 * units}xf32>"
    weight = f"tensor<{2 * units}x{units}xf32>"
    shape = f"affine_map<()[T, B] -> (T + 1, B, {2 * units})>"
    saved = "".join(
        f", %g{i}: {gates} {{parc.shape = affine_map<()[T, B] -> (T, B, {2 * units})>}}" for i in range(layers)
    )
    unknowns = "\n".join(
        f'%d{i} = "parc.unknown"() {{name = "d{i}", shape = {shape}}} : () -> {gates}' for i in range(layers)
    )
    boundaries = "\n".join(
        f'"parc.boundary"(%d{i}, %end) {{domain = affine_set<()[T, B] : (0 == 0)>, to = affine_map<()[T, B] -> (T)>, '
        f"of = affine_map<()[T, B] -> ()>}} : ({gates}, {wide}) -> ()"
        for i in range(layers)
    )
    return f"""
    #id = affine_map<(i, j) -> (i, j)>
    func.func @main(%T: index {{parc.kind = "symbol", parc.name = "T"}},
        %B: index {{parc.kind = "symbol", parc.name = "B"}},
        %gradient: tensor<?x?x{units}xf32> {{parc.shape = affine_map<()[T, B] -> (T + 1, B, {units})>}}{saved},
        %U: {weight} {{parc.kind = "parameter", parc.name = "U"}},
        %W: {weight} {{parc.kind = "parameter", parc.name = "W"}})
        -> ({gates} {{parc.shape = {shape}}}) {{
      %zero = arith.constant 0.0 : f32
      %one = arith.constant 1.0 : f32
      %e = tensor.empty(%B) : {tile}
      %zeros = linalg.fill ins(%zero : f32) outs(%e : {tile}) -> {tile}
      %wide = tensor.empty(%B) : {wide}
      %end = linalg.fill ins(%zero : f32) outs(%wide : {wide}) -> {wide}
      %s = "parc.system"(%T, %B) ({{
        {unknowns}
        {boundaries}
        {"".join(adjoint(i, layers, units) for i in reversed(range(layers)))}
      }}) {{symbols = ["T", "B"]}} : (index, index) -> !parc.solution
      %d = "parc.array"(%s) {{name = "d0"}} : (!parc.solution) -> {gates}
      return %d : {gates}
    }}"""


def split(layers: int, units: int) -> ir.Module:
    context = ir.Context()
    dialect.load(context)
    module = ir.Module.parse(stack(layers, units), context)
    run_pipeline(module, parse_pipeline("split-products,canonicalize,cse"))
    return module


def cells(module: ir.Module) -> dict[str, Cell | None]:
    found = walk(module.operation, "parc.equation")
    return {ir.StringAttr(e.attributes["name"]).value: analyse_cell(e) for e in found}


def test_the_adjoint_of_a_cell_is_a_cell_of_as_many_units() -> None:
    module = split(2, 24)  # outlives its cells
    found = cells(module)
    assert set(found) == {"adjoint1", "adjoint0_in0", "adjoint0"}
    for name in ("adjoint1", "adjoint0"):
        cell = found[name]
        assert cell is not None
        assert (cell.units, [o.column for o in cell.outputs]) == (24, [0, 24])
        assert [p.depth for n in cell.nodes if isinstance(n, Contraction) for p in n.products] == [48]


def test_activations_are_recomputed_once() -> None:
    module = split(1, 8)
    cell = cells(module)["adjoint0"]
    assert cell is not None
    names = [node.name for node in cell.nodes if hasattr(node, "name")]
    assert (names.count("parc.sigmoid"), names.count("math.tanh"), names.count("math.exp")) == (1, 1, 0)


@pytest.mark.parametrize("layers", [1, 2, 4, 6])
def test_a_backward_stack_has_as_many_waves_as_a_forward_one(layers: int) -> None:
    module = split(layers, 8)
    ScheduleSystem(strategy="wavefront").run(module)
    for steps in (1, 2, 17):
        report = explain_module(module, {"T": steps, "B": 2})
        assert (report.waves, report.span) == (layers + steps - 1, layers + steps - 1)


SCHEDULES = [
    {"strategy": "auto", "sizes": "T=128,B=16"},
    {"strategy": "layers", "time_tile": 4},
    {"strategy": "rows", "time_tile": 1},
    {"strategy": "wavefront", "distribute": "units"},
    {"strategy": "wavefront", "distribute": "points", "time_tile": 4},
]


@pytest.mark.parametrize("options", SCHEDULES, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_results_do_not_depend_on_the_schedule_or_the_threads(options: dict[str, str | int]) -> None:
    layers, units = 3, 20
    module = split(layers, units)
    ScheduleSystem(threads=2, **options).run(module)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(2 * units, units)).astype("f") / 6 for _ in "UW"]
    programs = []
    for threads in (1, 2, 3):
        lowered = ir.Module.parse(str(module), module.context)
        run_pipeline(lowered, [*stage_steps("loops"), *stage_steps("llvm")])
        programs.append(cpu_executable(lowered, Team(threads)))
    for steps, batch in ((9, 7), (1, 1), (13, 3), (0, 2)):
        shapes = [(steps + 1, batch, units), *[(steps, batch, 2 * units)] * layers]
        inputs = [rng.normal(size=shape).astype("f") for shape in shapes]
        (expected,) = evaluate(module, (steps, batch), [*inputs, *weights])
        results = []
        for program in programs:
            prepared = program.prepare([Buffer.of(w) for w in weights], 2)
            result = np.full((steps + 1, batch, 2 * units), np.nan, "f")
            program.run((steps, batch), [Buffer.of(a) for a in (*inputs, *weights, *prepared, result)])
            results.append(result)
        np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-5)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)
