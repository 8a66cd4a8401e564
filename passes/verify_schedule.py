"""Check that every system is well formed and that its schedule keeps all dependences."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.passbase import Pass
from parc.poly.legality import verify
from parc.poly.model import build, systems


@dataclass
class VerifySchedule(Pass):
    """Refuse a system that is not well formed, or whose schedule breaks a dependence; change nothing.

    With `cell1[t]` reading what `cell0[t]` writes, the schedules

        cell0: affine_map<(t)[T] -> (t)>     cell1: affine_map<(t)[T] -> (t)>

    are refused: `cell1[t=0] must run after cell0[t=0] (reads H0[1]) but is scheduled at (0), and cell0[t=0] at (0)`.
    """

    name: ClassVar[str] = "verify-schedule"

    def run(self, module: ir.Module) -> None:
        for op in systems(module):
            verify(build(op))
