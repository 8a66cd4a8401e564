"""What is found to be a cell, and what is not."""

import pytest
from equations import cell_of, matmul, pointwise, read, system, zeros
from torch_mlir import ir

from parc.codegen.analysis import analyse_cell
from parc.codegen.cell import Apply, Constant, Contraction, Load, Output, Product, Reduction
from parc.codegen.irtools import walk
from parc.codegen.simplify import sigmoid_argument

GENERAL = {
    "a product with a tile that the body computes": """
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %y = linalg.exp ins(%x_t : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
      %h_new = linalg.matmul ins(%y, %w : tensor<?x8xf32>, tensor<8x8xf32>) outs(%x_t : tensor<?x8xf32>)
        -> tensor<?x8xf32>""",
    "a step over elements": """
      %l = tensor.extract_slice %g[0, 0] [%B, 8] [1, 2] : tensor<?x16xf32> to tensor<?x8xf32>
      %h_new = linalg.exp ins(%l : tensor<?x8xf32>) outs(%x_t : tensor<?x8xf32>) -> tensor<?x8xf32>""",
    "a division by what may be zero past the end": """
      %e = tensor.empty(%B) : tensor<?x8xi32>
      %i = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
        ins(%x_t : tensor<?x8xf32>) outs(%e : tensor<?x8xi32>) {
      ^bb0(%a: f32, %o: i32):
        %n = arith.fptosi %a : f32 to i32
        %one = arith.constant 1 : i32
        %q = arith.divsi %one, %n : i32
        linalg.yield %q : i32
      } -> tensor<?x8xi32>
      %z = tensor.empty(%B) : tensor<?x8xf32>
      %h_new = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
        ins(%i : tensor<?x8xi32>) outs(%z : tensor<?x8xf32>) {
      ^bb0(%a: i32, %o: f32):
        %f = arith.sitofp %a : i32 to f32
        linalg.yield %f : f32
      } -> tensor<?x8xf32>""",
    "an operation on indices": """
      %e = tensor.empty(%B) : tensor<?x8xf32>
      %h_new = linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]}
        outs(%e : tensor<?x8xf32>) {
      ^bb0(%o: f32):
        %i = linalg.index 1 : index
        %n = arith.index_cast %i : index to i32
        %y = arith.sitofp %n : i32 to f32
        linalg.yield %y : f32
      } -> tensor<?x8xf32>""",
}


@pytest.mark.parametrize("body", GENERAL.values(), ids=GENERAL.keys())
def test_general_equations_are_no_cells(body: str) -> None:
    known = {"x": "?x?x8xf32", "g": "?x16xf32", "w": "8x8xf32"}
    assert cell_of(system(read("x_t", "x", "?x8xf32") + body, known, {"h": "?x8xf32"}))[1] is None


def test_cell_of_a_product_with_bias() -> None:
    body = (
        read("x_t", "x", "?x3xf32")
        + zeros("z", "?x8xf32")
        + matmul("p", "x_t", "?x3xf32", "w", "3x8xf32", "z", "?x8xf32")
    )
    body += pointwise(
        "h_new", "%y = arith.addf %p_v, %b_v : f32", [("p", "?x8xf32", "id"), ("b", "8xf32", "row")], "?x8xf32"
    )
    _, cell = cell_of(system(body, {"x": "?x?x3xf32", "w": "3x8xf32", "b": "8xf32"}, {"h": "?x8xf32"}))
    assert cell is not None
    assert [o.kind for o in cell.operands] == ["read", "weight", "vector", "write"]
    total, bias, result = cell.nodes
    assert total == Contraction((Product(read=0, read_column=0, weight=1, row=0, column=0, depth=3),))
    assert bias == Load(operand=2, column=0, stride=1)
    assert isinstance(result, Apply) and (result.name, result.arguments) == ("arith.addf", (0, 1))
    assert cell.outputs == (Output(operand=3, column=0, node=2),)


def test_equal_cells_share_a_key() -> None:
    body = (
        read("x_t", "x", "?x8xf32")
        + "%h_new = linalg.exp ins(%x_t : tensor<?x8xf32>) outs(%x_t : tensor<?x8xf32>) -> tensor<?x8xf32>\n"
    )
    first = cell_of(system(body, {"x": "?x?x8xf32"}, {"h": "?x8xf32"}))
    module = first[0]
    other = ir.Module.parse(
        system(body, {"v": "8xf32", "x": "?x?x8xf32"}, {"k": "?x8xf32"}).replace("%h_new", "%k_new"), module.context
    )
    second = analyse_cell(walk(other.operation, "parc.equation")[0])
    assert first[1] is not None and second is not None
    assert first[1].key == second.key


def test_reciprocal_of_one_plus_exp_is_a_sigmoid() -> None:
    with ir.Context():
        f32, one = ir.F32Type.get(), ir.FloatAttr.get(ir.F32Type.get(), 1.0, loc=ir.Location.unknown())
        nodes = [
            Load(0, 0, 1),
            Constant(one),
            Apply("arith.negf", (), (0,), f32),
            Apply("math.exp", (), (2,), f32),
            Apply("arith.addf", (), (1, 3), f32),
            Apply("arith.divf", (), (1, 4), f32),
        ]
        assert sigmoid_argument(nodes, 5) == 0
        assert sigmoid_argument(nodes, 4) is None


def test_parts_that_are_read_set_the_units() -> None:
    """Of [x, m] + g every half is an expression of its own."""
    body = read("x_t", "x", "?x8xf32") + read("m_t", "m", "?x8xf32")
    body += "%xm = tensor.concat dim(1) %x_t, %m_t : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x16xf32>\n"
    code = "%y = arith.addf %xm_v, %g_v : f32"
    body += pointwise("h_new", code, [("xm", "?x16xf32", "id"), ("g", "?x16xf32", "id")], "?x16xf32")
    known = {"x": "?x?x8xf32", "m": "?x?x8xf32", "g": "?x16xf32"}
    _, cell = cell_of(system(body, known, {"h": "?x16xf32"}))
    assert cell is not None
    assert (cell.units, [output.column for output in cell.outputs]) == (8, [0, 8])


def test_a_gate_of_one_unit_is_a_reduction() -> None:
    """sigmoid(h w) * h, where w has one column: the sum is the same for all units."""
    body = read("x_t", "x", "?x8xf32") + zeros("z", "?xf32")
    body += """%s = linalg.matvec ins(%x_t, %w : tensor<?x8xf32>, tensor<8xf32>)
      outs(%z : tensor<?xf32>) -> tensor<?xf32>
    """
    code = "%y = arith.mulf %s_v, %x_t_v : f32"
    body += pointwise("h_new", code, [("s", "?xf32", "column"), ("x_t", "?x8xf32", "id")], "?x8xf32")
    _, cell = cell_of(system(body, {"x": "?x?x8xf32", "w": "8xf32"}, {"h": "?x8xf32"}))
    assert cell is not None and not cell.products
    (reduction,) = (n for n, node in enumerate(cell.nodes) if isinstance(node, Reduction))
    assert not cell.varies[reduction]
