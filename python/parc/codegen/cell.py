"""What one element of an equation's tiles is: a scalar expression over loads and products.

The body of a `parc.equation` is linalg on tiles `[rows, units]`.  Element (row b, unit j) of every tile it
writes becomes an expression: a list of nodes in which arguments come before their users.  `codegen/analysis.py`
finds the cell of an equation, `codegen/kernel.py` emits its code.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch_mlir import ir

Axis = Literal["unit", "depth"]


@dataclass(frozen=True)
class KernelOperand:
    """One array that a kernel takes, as `(memref<?xT>, offset)`.

    * `read`: a tile `[rows, columns]` with a row stride of `extents[-1]` (a `[rows]` tile has extents `(rows, 1)`);
      `repeat` rows of the cell in a row share each of its rows;
    * `vector`: the same at every point; its rows repeat after `repeat` rows of the cell (1 for a bias or a scalar);
    * `weight`: the matrix `[K, N]` (`[N, K]` if `transposed`) of products, passed packed (`codegen/packing.py`);
    * `write`: a tile `[rows, units]`.
    """

    kind: Literal["read", "vector", "weight", "write"]
    array: ir.Value
    access: ir.AffineMap | None  # iteration point -> leading indices of `array`; None: the whole array, offset 0
    extents: tuple[int | None, ...]  # of the tile; None where dynamic
    transposed: bool = False
    repeat: int = 1

    @property
    def columns(self) -> int:
        """Elements of a row of the tile; a scalar is a row of one."""
        return (self.extents[-1] or 0) if self.extents else 1


@dataclass(frozen=True)
class Load:
    """Element `column + stride * j + depth_stride * k` of row b of an operand; k counts within a reduction.

    The stride is 0 (the same for every unit) or 1; so is the depth stride, unless the reduction differs by unit.
    """

    operand: int
    column: int
    stride: int
    depth_stride: int = 0


@dataclass(frozen=True)
class Constant:
    """A scalar constant; the attribute has its type."""

    value: ir.Attribute


@dataclass(frozen=True)
class Product:
    """`sum over k < depth of read[b, read_column + k] * weight[row + k, column + j]`."""

    read: int
    read_column: int
    weight: int
    row: int
    column: int
    depth: int


@dataclass(frozen=True)
class Contraction:
    """A sum of products that one accumulator takes up, in this order."""

    products: tuple[Product, ...]


@dataclass(frozen=True)
class Apply:
    """An elementwise arith or math operation; `arguments` are positions in the cell's nodes."""

    name: str
    attributes: tuple[tuple[str, ir.Attribute], ...]
    arguments: tuple[int, ...]
    type: ir.Type


@dataclass(frozen=True)
class Reduction:
    """The node `start` and the values of the node `argument` for all k < depth, combined by an arith operation."""

    name: str
    attributes: tuple[tuple[str, ir.Attribute], ...]
    argument: int
    depth: int
    start: int
    type: ir.Type


Node = Load | Constant | Contraction | Apply | Reduction


def arguments_of(node: Node) -> tuple[int, ...]:
    """The nodes that a node is computed from."""
    if isinstance(node, Reduction):
        return node.argument, node.start
    return node.arguments if isinstance(node, Apply) else ()


@dataclass(frozen=True)
class Output:
    """Element `column + j` of row b of a written operand is the value of a node."""

    operand: int
    column: int
    node: int


@dataclass(frozen=True)
class Cell:
    """An equation as rows x units of expressions."""

    dtype: ir.Type
    units: int
    operands: tuple[KernelOperand, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    key: tuple[object, ...] = field(default=(), compare=False)  # equal keys: one kernel serves both

    @property
    def products(self) -> tuple[Product, ...]:
        """Every product of the cell, in the order of its nodes."""
        return tuple(p for n in self.nodes if isinstance(n, Contraction) for p in n.products)

    @cached_property
    def varies(self) -> tuple[frozenset[Axis], ...]:
        """For every node, whether it differs by unit j and by the k of the reduction around it."""
        found: list[frozenset[Axis]] = []
        for node in self.nodes:
            axes = frozenset[Axis]().union(*(found[a] for a in arguments_of(node)))
            if isinstance(node, Load):
                axes |= {"unit"} if node.stride else set()
                axes |= {"depth"} if node.depth_stride else set()
            elif isinstance(node, Contraction):
                axes |= {"unit"}
            elif isinstance(node, Reduction):
                axes -= {"depth"}
            found.append(axes)
        return tuple(found)
