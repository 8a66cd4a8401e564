"""The memory part of a report: what a call takes, and what a training step saves and computes again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import find_function, terminator
from parc.memory import Memory, Need, bytes_text
from parc.signature import Signature, TensorType

RECOMPUTED = "parc.recomputed"
"""Attribute of a backward program: for each equation, and "main", what it computes again."""
_OTHER = 16
"""What sizes are taken for that nothing is known about."""


class Measured(Protocol):
    """A program whose memory is planned, with machine code or without."""

    @property
    def signature(self) -> Signature: ...

    def memory(self, symbols: tuple[int, ...]) -> Memory: ...


@dataclass(frozen=True)
class SavedArray:
    """One value that the forward pass leaves for the backward one."""

    name: str
    """The system's array that it is, or the operation that it comes from."""
    type: str
    """Element type, and extents as functions of the sizes: `float32[T, B, 16]`."""
    bytes: int

    def __str__(self) -> str:
        return f"{self.name}: {self.type} = {bytes_text(self.bytes)}"


@dataclass(frozen=True)
class StepMemory:
    """The memory of one training step, in bytes."""

    plan: str
    """`full save`, how it goes through the sequence in chunks, or `refused`."""
    why: str
    saved: tuple[SavedArray, ...]
    """Of one chunk, where there are several."""
    read: tuple[str, ...]
    """Inputs and parameters that the backward pass takes as they are."""
    recomputed: Mapping[str, tuple[str, ...]]
    """What the backward pass computes again: the operations of each equation, and of the code around ("main")."""
    forward: int
    """What the forward pass works in."""
    backward: int
    results: int
    gradients: int
    need: Need
    """What a limit counts."""

    def __str__(self) -> str:
        lines = [f"Plan      {self.plan}: {self.why}", f"Saved     {bytes_text(self.need.saved)}"]
        lines += [f"  {array}" for array in self.saved]
        if self.read:
            lines.append(f"  as they are: {', '.join(self.read)}")
        lines.append("Computed again")
        again = [f"  {name}{': ' if ops else ''}{', '.join(ops)}" for name, ops in self.recomputed.items()]
        lines += again or ["  nothing"]
        lines.append(
            f"Working   {bytes_text(self.need.working)}: forward {bytes_text(self.forward)}, "
            f"backward {bytes_text(self.backward)}"
        )
        lines.append(
            f"Step      {bytes_text(self.need.total)}, and {bytes_text(self.results)} of results, "
            f"{bytes_text(self.gradients)} of gradients"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class MemoryReport:
    """What a call takes at the report's sizes; `step` is what a training step takes, where there is one."""

    sizes: Mapping[str, int]
    call: Memory
    step: StepMemory | None = None

    def __str__(self) -> str:
        """One line for a call; all of a training step; and what blocks of a GPU have in shared memory."""
        call = self.call
        text = f"Memory    {bytes_text(call.results)} of results, {bytes_text(call.arena)} to work in"
        if self.step is not None:
            text = str(self.step)
        return text if call.block is None else f"{text}\nBlocks    {call.block}"


def sizes_of(signature: Signature, *known: Mapping[str, int]) -> dict[str, int]:
    """The values of a program's symbols; the first mapping that has one says it."""
    found = {name: size for sizes in reversed(known) for name, size in sizes.items()}
    return {name: found.get(name, _OTHER) for name in signature.symbols}


def step_memory(
    forward: Measured, backward: Measured, modules: tuple[ir.Module, ir.Module], symbols: tuple[int, ...], why: str
) -> StepMemory:
    """The memory, at these sizes, of a step that saves all; of its programs and their scheduled modules."""
    ours, theirs = forward.signature, backward.signature
    count = _result_count(modules[0])
    results, types = ours.results[:count], ours.results[count:]
    given = sum(t.dtype.is_floating_point for t in results) + len(types)
    working = [program.memory(symbols).arena for program in (forward, backward)]
    return StepMemory(
        "full save",
        why,
        saved=_saved_arrays(types, modules[0], symbols),
        read=tuple(t.name for t in (*theirs.inputs[given:], *theirs.parameters)),
        recomputed=_recomputed(modules[1]),
        forward=working[0],
        backward=working[1],
        results=sum(t.bytes(symbols) for t in results),
        gradients=sum(t.bytes(symbols) for t in theirs.results),
        need=Need(sum(t.bytes(symbols) for t in types), max(working)),
    )


def _result_count(forward: ir.Module) -> int:
    """How many results a forward program has besides the saved values."""
    attributes = [ir.DictAttr(a) for a in _main(forward).attributes["res_attrs"]]
    kinds = [ir.StringAttr(a["parc.kind"]).value for a in attributes if "parc.kind" in a]
    return len(attributes) - sum(kind in ("saved", "solution", "statistic") for kind in kinds)


def _saved_arrays(types: Sequence[TensorType], forward: ir.Module, symbols: tuple[int, ...]) -> tuple[SavedArray, ...]:
    """What a forward program saves: what comes behind its results."""
    first = _result_count(forward)
    values = list(terminator(_main(forward).entry_block).operands)[first : first + len(types)]
    return tuple(SavedArray(_origin(v), str(t), t.bytes(symbols)) for v, t in zip(values, types, strict=True))


def _recomputed(backward: ir.Module) -> dict[str, tuple[str, ...]]:
    """What a backward program computes again, from its attribute."""
    main = _main(backward)
    if RECOMPUTED not in main.attributes:
        return {}
    return {
        named.name: tuple(ir.StringAttr(word).value for word in ir.ArrayAttr(named.attr))
        for named in ir.DictAttr(main.attributes[RECOMPUTED])
    }


def _origin(value: ir.Value) -> str:
    """What a saved value is, through views of it: a system's array by its name, else an argument or an operation."""
    from parc.autodiff.words import words  # only now: inference does without differentiation

    while True:
        if isinstance(value.owner, ir.Block):
            attributes = ir.DictAttr(value.owner.owner.operation.attributes["arg_attrs"][value.arg_number])
            return ir.StringAttr(attributes["parc.name"]).value if "parc.name" in attributes else "an argument"
        op = value.owner.operation
        if op.name in ("parc.array", "parc.iterated"):
            return ir.StringAttr(op.attributes["name"]).value
        if op.name == "linalg.generic":
            return ", ".join(words([op])) or op.name
        if not op.name.startswith("tensor.") or not len(op.operands):
            return op.name
        value = op.operands[0]


def _main(module: ir.Module) -> func.FuncOp:
    main = find_function(module, "main")
    assert main is not None
    return main
