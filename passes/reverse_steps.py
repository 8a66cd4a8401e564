"""`reverse-steps`: a program for a chunk of the steps, solved from its last states."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.chunks.reverse import reverse_steps
from parc.passbase import Pass


@dataclass
class ReverseSteps(Pass):
    """Make `@main`, which continues from states (`chunk-steps`), compute these states from the last ones.

    Its inputs of that kind are then the last states; its results are the first ones, and what it saves. A state that is
    no sum of an old state and of what follows from others is refused.

        a[0] = %state0, b[0] = %state1    a[t+1] = a[t] + f(b[t]),   b[t+1] = b[t] + g(a[t+1])

        a[T] = %state0, b[T] = %state1    b[t] = b[t+1] - g(a[t+1]), a[t] = a[t+1] - f(b[t])
    """

    name: ClassVar[str] = "reverse-steps"

    def run(self, module: ir.Module) -> None:
        reverse_steps(module)
