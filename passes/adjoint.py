"""`adjoint`: the backward pass of a program, as a program."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.autodiff.function import differentiate
from parc.passbase import Pass


@dataclass
class Adjoint(Pass):
    """Make `@main` return what its backward pass needs, and write that pass as `@backward`.

    A system becomes its adjoint, which runs the other way; `h[t+1] = tanh(c[t])` with `c[t] = p[t] + h[t] U` saves c:

        "parc.equation"() ({...}) {name = "cell", domain = ...}

        "parc.boundary"(%d, %zero) d[T] = 0
        "parc.equation"() ({
          %g = "parc.read"(%dH) h[t+1] + "parc.read"(%d) d[t+1] * Ut
          "parc.write"(%g * (1 - tanh(c)^2), %d) d[t]
        }) {name = "cell_adjoint", domain = ...}

    Behind it, the gradient of U is the product of the stacked states and cotangents, `sum over t of h[t]^T d[t]`.
    `wrt` names the arguments to differentiate for, with commas; all floating-point ones when empty.
    """

    name: ClassVar[str] = "adjoint"

    wrt: str = ""

    def run(self, module: ir.Module) -> None:
        differentiate(module, [name for name in self.wrt.split(",") if name])
