"""Names of what operations compute, for reports."""

from collections.abc import Iterable

from torch_mlir import ir

from parc.codegen.irtools import walk


def words(ops: Iterable[ir.Operation]) -> list[str]:
    """What operations on tensors compute, each kind once: the scalar operations in their bodies, `tanh` or `mul`.

    Views, and what only moves or fills, are nothing.
    """
    found: dict[str, None] = {}
    for op in ops:
        for inner in walk(op) if op.name == "linalg.generic" else ():
            dialect, _, name = inner.operation.name.partition(".")
            if dialect == "math" or (dialect == "arith" and name != "constant"):
                found[_plain(name)] = None
        if op.name.startswith("linalg.") and op.name not in ("linalg.generic", "linalg.fill", "linalg.transpose"):
            found[op.name.partition(".")[2]] = None
    return list(found)


def _plain(name: str) -> str:
    """`addf` without the letter of its type."""
    return name if name == "erf" else name.removesuffix("f")
