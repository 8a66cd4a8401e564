"""The extents of tensors, followed through the operations that define them to what says them.

There are two kinds: expressions of a system's symbols (`recurrence/extents.py`), which analyses look at, and index
values (`autodiff/extents.py`), which new operations take.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch_mlir import ir

from parc.codegen.irtools import defining_op
from parc.codegen.sizes import Size

E = TypeVar("E")


class Extents(ABC, Generic[E]):
    """The extents of tensors, one rule for each operation; a subclass says what an extent is."""

    def of(self, value: ir.Value) -> list[E]:
        """The extents of a tensor."""
        type_ = value.type
        if type_.has_static_shape:
            return [self.number(s) for s in type_.shape]
        op = defining_op(value)
        found = self._of_argument(value) if op is None else self._of_result(value, op.operation)
        if found is None:
            return self.unknown(value)
        # What the type says is simpler than what can be derived.
        return [e if type_.is_dynamic_dim(d) else self.number(type_.shape[d]) for d, e in enumerate(found)]

    @abstractmethod
    def number(self, size: int) -> E:
        """The extent that is this number."""

    @abstractmethod
    def named(self, size: ir.Value) -> E:
        """The extent that an index value of the program says."""

    @abstractmethod
    def sum(self, terms: Sequence[E]) -> E:
        """The extent of tensors in a row."""

    @abstractmethod
    def product(self, factors: Sequence[E]) -> E:
        """The extent of dimensions made one."""

    @abstractmethod
    def apply(self, shape: ir.AffineMap, symbols: Sequence[ir.Value]) -> list[E]:
        """The extents that a map says, with these values for its symbols."""

    @abstractmethod
    def unknown(self, value: ir.Value) -> list[E]:
        """The extents of a tensor where no rule says them; its type is dynamic."""

    def _of_argument(self, value: ir.Value) -> list[E] | None:
        """By the argument's `parc.shape`, which is in terms of the function's symbols, its first arguments."""
        function = value.owner.owner.operation
        if function.name != "func.func" or "arg_attrs" not in function.attributes:
            return None
        attributes = list(function.attributes["arg_attrs"])
        # A function that is being built may have new arguments behind those with attributes.
        number = ir.BlockArgument(value).arg_number
        own = attributes[number] if number < len(attributes) else {}
        if "parc.shape" not in own:
            return None
        shape = own["parc.shape"].value
        return self.apply(shape, list(value.owner.arguments)[: shape.n_symbols])

    def _of_result(self, value: ir.Value, op: ir.Operation) -> list[E] | None:
        if op.name.startswith("linalg."):
            return self.of(op.operands[len(op.operands) - len(op.results) + value.result_number])
        if op.name in ("tensor.empty", "tensor.splat", "tensor.generate", "tensor.expand_shape"):
            sizes = iter([v for v in op.operands if isinstance(v.type, ir.IndexType)])
            type_ = value.type
            return [self._size(next(sizes) if type_.is_dynamic_dim(d) else s) for d, s in enumerate(type_.shape)]
        if op.name.startswith(("arith.", "math.")):
            tensors = [v for v in op.operands if isinstance(v.type, ir.RankedTensorType)]
            return self.of(tensors[0]) if tensors else None
        rules: dict[str, Callable[[ir.Operation], list[E] | None]] = {
            "tensor.extract_slice": self._of_slice,
            "tensor.insert_slice": lambda op: self.of(op.operands[1]),
            "tensor.insert": lambda op: self.of(op.operands[1]),
            "tensor.cast": lambda op: self.of(op.operands[0]),
            "builtin.unrealized_conversion_cast": lambda op: self.of(op.operands[0]),
            "tensor.concat": self._of_concat,
            "tensor.collapse_shape": self._of_collapse,
            "tensor.pad": self._of_pad,
            "parc.read": lambda op: self.of(op.operands[0])[len(op.attributes["at"].value.results) :],
            "parc.unknown": lambda op: self.apply(op.attributes["shape"].value, list(op.parent.operands)),
            "parc.array": self._of_array,
            "parc.previous": lambda op: self.of(op.operands[0]),
            "parc.iterated": self._of_iterated,
        }
        return rules[op.name](op) if op.name in rules else None

    def _size(self, size: Size) -> E:
        return self.number(size) if isinstance(size, int) else self.named(size)

    def _of_slice(self, op: ir.Operation) -> list[E]:
        """The sizes, without the unit dimensions that the result's type leaves out: it keeps the first that fit."""
        shape = list(op.results[0].type.shape)
        kept: list[E] = []
        for size in mixed(op, "sizes"):
            if size != 1 or shape[len(kept) : len(kept) + 1] == [1]:
                kept.append(self._size(size))
        return kept

    def _of_concat(self, op: ir.Operation) -> list[E]:
        dim = ir.IntegerAttr(op.attributes["dim"]).value
        extents = self.of(op.operands[0])
        extents[dim] = self.sum([extents[dim], *(self.of(piece)[dim] for piece in list(op.operands)[1:])])
        return extents

    def _of_collapse(self, op: ir.Operation) -> list[E]:
        source = self.of(op.operands[0])
        return [self.product([source[d.value] for d in group]) for group in op.attributes["reassociation"]]

    def _of_pad(self, op: ir.Operation) -> list[E]:
        low, high = ([self._size(s) for s in mixed(op, name)] for name in ("low", "high"))
        return [self.sum(three) for three in zip(low, self.of(op.operands[0]), high, strict=True)]

    def _of_iterated(self, op: ir.Operation) -> list[E] | None:
        """Those of what the iteration starts from."""
        for member in op.operands[0].owner.operation.regions[0].blocks[0].operations:
            if member.operation.name == "parc.previous" and member.attributes["name"] == op.attributes["name"]:
                return self.of(member.operation.operands[0])
        return None

    def _of_array(self, op: ir.Operation) -> list[E] | None:
        system = op.operands[0].owner.operation
        for member in system.regions[0].blocks[0].operations:
            if member.operation.name == "parc.unknown" and member.attributes["name"] == op.attributes["name"]:
                return self.apply(member.attributes["shape"].value, list(system.operands))
        return None


def mixed(op: ir.Operation, name: str) -> list[Size]:
    """A list of static and dynamic sizes: `name` is "offsets", "sizes" or "strides" of a slice, "low" or "high"."""
    names = ("low", "high") if op.name == "tensor.pad" else ("offsets", "sizes", "strides")
    segments = list(op.attributes["operandSegmentSizes"])
    # The lists are the last segments; what comes before them are the tensors.
    first = sum(segments[: len(segments) - len(names) + names.index(name)])
    dynamic = iter(list(op.operands)[first:])
    mark = ir.ShapedType.get_dynamic_size()
    return [next(dynamic) if s == mark else s for s in op.attributes[f"static_{name}"]]
