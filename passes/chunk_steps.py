"""`chunk-steps`: a program for a chunk of the steps."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.chunks.program import make_chunk
from parc.passbase import Pass


@dataclass
class ChunkSteps(Pass):
    """Make `@main` compute a chunk of its steps: the last states become results, and the initial ones inputs.

    A call for T steps is then a call for the first of them, `continues=false`, and calls that continue it, each from
    the states that the one before ended with.

        func.func @main(%T, %x) -> %y                        h[0] = 0

        func.func @main(%T, %x, %state0) -> %y, %last        h[0] = state0, last = h[T]
    """

    name: ClassVar[str] = "chunk-steps"

    continues: bool = True

    def run(self, module: ir.Module) -> None:
        make_chunk(module, continues=self.continues)
