"""Dependent steps of programs with sweeps, counted in their schedules."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch_mlir import ir

from parc.iteration_report import sweep_of
from parc.poly import count
from parc.poly.model import build, systems
from parc.poly.plan import sizes_for_reports


@dataclass(frozen=True)
class Steps:
    """Steps that follow each other, of a program at some sizes; those of one step are independent."""

    once: int
    """Of what is not swept over."""
    sweep: Mapping[str, int]
    """Of one sweep of each iteration, the first one, by the iteration's name."""

    def total(self, sweeps: Mapping[str, int]) -> int:
        """All of them, for so many sweeps of each iteration."""
        return self.once + sum(sweeps[name] * steps for name, steps in self.sweep.items())


def count_steps(module: ir.Module, sizes: Mapping[str, int]) -> Steps:
    """The time vectors of the schedules of a module's systems at these sizes of its symbols.

    What is computed only where sweeps do not converge does not count.
    """
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        all_sizes = sizes_for_reports(built, sizes)
        once, sweep = 0, dict[str, int]()
        for system in built:
            steps = count.steps(system).at(all_sizes)
            iteration = sweep_of(system.op)
            if iteration is None:
                once += steps
            elif iteration[1]:
                sweep[iteration[0]] = sweep.get(iteration[0], 0) + steps
        return Steps(once, sweep)
