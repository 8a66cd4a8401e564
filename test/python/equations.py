"""Equations as text: what cells and kernels are tested on."""

from torch_mlir import ir

from parc import dialect
from parc.codegen.analysis import analyse_cell
from parc.codegen.cell import Cell
from parc.codegen.irtools import walk


def system(body: str, known: dict[str, str], written: dict[str, str]) -> str:
    """A module with one equation; `known` and `written` map array names to types without the leading time dimension."""
    arguments = ", ".join(f"%{name}: tensor<{shape}>" for name, shape in known.items())

    def unknown(name: str, shape: str) -> str:
        extents = ", ".join("B" if e == "?" else e for e in shape.split("x")[:-1])
        map_ = f"affine_map<()[T, B] -> (T + 1, {extents})>"
        return f'%{name} = "parc.unknown"() {{name = "{name}", shape = {map_}}} : () -> tensor<?x{shape}>'

    writes = "\n".join(
        f'"parc.write"(%{n}_new, %{n}) {{at = affine_map<(t)[T, B] -> (t + 1)>}} : (tensor<{s}>, tensor<?x{s}>) -> ()'
        for n, s in written.items()
    )
    unknowns = "\n".join(unknown(*item) for item in written.items())
    return f"""
      #id = affine_map<(i, j) -> (i, j)>
      #row = affine_map<(i, j) -> (j)>
      #column = affine_map<(i, j) -> (i)>
      func.func @main(%T: index, %B: index, {arguments}) {{
        %0 = "parc.system"(%T, %B) ({{
          {unknowns}
          "parc.equation"() ({{
          ^bb0(%t: index):
            {body}
            {writes}
          }}) {{name = "cell", domain = affine_set<(t)[T, B] : (t >= 0, -t + T - 1 >= 0)>}} : () -> ()
        }}) {{symbols = ["T", "B"]}} : (index, index) -> !parc.solution
        return
      }}"""


def read(result: str, array: str, shape: str) -> str:
    """The tile of `array` at t."""
    types = f"(tensor<?x{shape}>) -> tensor<{shape}>"
    return f'%{result} = "parc.read"(%{array}) {{at = affine_map<(t)[T, B] -> (t)>}} : {types}\n'


def zeros(name: str, shape: str) -> str:
    """An empty tile `%<name>_e` and a zero one `%<name>`."""
    element, sizes = shape.split("x")[-1], "%B" if "?" in shape else ""
    return f"""%{name}_e = tensor.empty({sizes}) : tensor<{shape}>
      %{name}_0 = arith.constant 0.0 : {element}
      %{name} = linalg.fill ins(%{name}_0 : {element}) outs(%{name}_e : tensor<{shape}>) -> tensor<{shape}>
    """


def matmul(result: str, left: str, left_shape: str, right: str, right_shape: str, out: str, out_shape: str) -> str:
    types = f"tensor<{left_shape}>, tensor<{right_shape}>"
    outs = f"outs(%{out} : tensor<{out_shape}>) -> tensor<{out_shape}>"
    return f"%{result} = linalg.matmul ins(%{left}, %{right} : {types}) {outs}\n"


def pointwise(result: str, code: str, inputs: list[tuple[str, str, str]], shape: str) -> str:
    """A `linalg.generic` of (name, type, map) inputs; `code` has their values as %<name>_v and gives %y."""
    element = shape.split("x")[-1]
    maps = ", ".join([*(f"#{m}" for _, _, m in inputs), "#id"])
    names, types = ", ".join(f"%{n}" for n, _, _ in inputs), ", ".join(f"tensor<{s}>" for _, s, _ in inputs)
    arguments = ", ".join(f"%{n}_v: {s.split('x')[-1]}" for n, s, _ in inputs)
    return f"""%{result}_out = tensor.empty(%B) : tensor<{shape}>
      %{result} = linalg.generic {{indexing_maps = [{maps}], iterator_types = ["parallel", "parallel"]}}
        ins({names} : {types}) outs(%{result}_out : tensor<{shape}>) {{
      ^bb0({arguments}, %init: {element}):
        {code}
        linalg.yield %y : {element}
      }} -> tensor<{shape}>
    """


def columns(result: str, value: str, shape: str, start: int, count: int) -> str:
    element, source = shape.split("x")[-1], f"tensor<{shape}>"
    return (
        f"%{result} = tensor.extract_slice %{value}[0, {start}] [%B, {count}] [1, 1] : "
        f"{source} to tensor<?x{count}x{element}>\n"
    )


def sigmoid(result: str, argument: str, element: str) -> str:
    return f"""%{result}_n = arith.negf %{argument} : {element}
      %{result}_x = math.exp %{result}_n : {element}
      %{result}_1 = arith.constant 1.0 : {element}
      %{result}_d = arith.addf %{result}_x, %{result}_1 : {element}
      %{result} = arith.divf %{result}_1, %{result}_d : {element}
    """


def cell_of(text: str) -> tuple[ir.Module, Cell | None]:
    """The module, which must outlive the cell, and the cell of its only equation."""
    context = ir.Context()
    dialect.load(context)
    module = ir.Module.parse(text, context)
    return module, analyse_cell(walk(module.operation, "parc.equation")[0])
