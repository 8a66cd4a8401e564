"""`iterate-layers`: the layers of a network are computed all at once, in sweeps, until nothing changes.

A network without a recurrence is a triangular system too, whose unknowns are what its layers give (arXiv 2002.03629):

    %a = layer(%x)        %a = layer(%x)                           known
    %b = layer(%a)        %b = layer(%a)
    %c = layer(%b)        %s = "parc.iterate"(%limit) ({
    %d = layer(%c)          %b0 = "parc.previous"(%b)
    %e = layer(%d)          %c0 = "parc.previous"(%zeros)
                            %d0 = "parc.previous"(%zeros)
                            %c = layer(%b0)                        final after one sweep
                            %d = layer(%c0)                        final after two
                            "parc.next"(%b), "parc.next"(%c), "parc.next"(%d)
                          })
                          %d = "parc.iterated"(%s)
                          %e = layer(%d)                           no other layer needs it
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import ClassVar

from torch_mlir import ir

from parc.codegen.irtools import find_function, walk
from parc.errors import CompileError
from parc.iterative.layer_blocks import blocks_of, grouped, singles, with_bottlenecks
from parc.iterative.layer_sweeps import Settings, solve_layers
from parc.iterative.layers import Network, find_layers
from parc.passbase import Pass
from parc.poly.dependences import dependences
from parc.poly.model import build, systems
from parc.solvers.recurrence import cycles

# The first two of blocks in a row are known, and no other needs the last.
_LEAST = 4
_SOLVERS = ("jacobi", "jacobi-gs", "gs-jacobi")


@dataclass
class IterateLayers(Pass):
    """Compute the layers of a network all at once, in sweeps, until nothing changes.

    With solver=jacobi each layer is a block; jacobi-gs sweeps over blocks of up to so many layers, each computed
    in order; gs-jacobi solves one block after the other, the layers of a block all at once. Nothing is done with other
    solvers, nor where there is a recurrence.

        %y = matmul %x, %w0          %y = matmul %x, %w0
        %z = matmul %y, %w1          %z = matmul %y, %w1
        %u = matmul %z, %w2          %s = "parc.iterate"(%limit) ({
        %v = matmul %u, %w3            %z0 = "parc.previous"(%z) {name = "1"}
                                       %u0 = "parc.previous"(%zeros) {name = "2"}
                                       %u = matmul %z0, %w2
                                       "parc.next"(%z) {name = "1"}
                                       "parc.next"(%u) {name = "2"}
                                       "parc.change"(largest |%u - %u0|)
                                     }) {solver = "jacobi", bound = affine_map<() -> (1)>, blocks = [...]}
                                     %u = "parc.iterated"(%s) {name = "2"}
                                     %v = matmul %u, %w3
    """

    name: ClassVar[str] = "iterate-layers"

    solver: str = "jacobi"
    tolerance: float = 1e-6
    block: int = 0
    limit: int = 0
    start: str = "zeros"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None or self.solver not in _SOLVERS or _is_iterated(module):
            return
        with module.context, main.location:
            network = find_layers(main)
            groups = [blocks_of(network, layers) for layers in self._groups(network)]
            if not any(blocks.swept for blocks in groups):
                if "parc.trained" not in module.operation.attributes:
                    raise self._nothing(network)
                return
            settings = Settings(self.solver, self.tolerance, self.limit, self.start, "" if self.block else "proposed ")
            solve_layers(network, groups, settings)

    def _groups(self, network: Network) -> list[list[tuple[int, ...]]]:
        """The blocks of each group that is solved by itself, one after the other."""
        count = len(network.layers)
        if not count:
            return []
        if self.solver == "jacobi":
            if self.block > 1:
                raise self._error(network, f"jacobi takes each layer by itself, not {self.block}: choose jacobi-gs")
            return [singles(range(count))]
        if not 0 <= self.block <= count:
            raise self._error(network, f"a block cannot have {self.block} of {count} layers: choose fewer, or 0")
        if self.solver == "jacobi-gs":
            return [grouped(network, self.block) if self.block else with_bottlenecks(network)]
        # Inside of blocks there are as many sweeps as layers at most, and the blocks are solved one after the other.
        most = self.block or ceil(count / max(1, round(sqrt(count) / 2)))
        return [singles(group) for group in grouped(network, most)]

    def _nothing(self, network: Network) -> CompileError:
        count = len(network.layers)
        few = f"there is nothing to sweep over in {count} layer{'s' * (count != 1)}"
        if self.block and count > 2:
            usual = f"at most {(count - 1) // (_LEAST - 1)}" if self.solver == "jacobi-gs" else f"at least {_LEAST}"
            return self._error(network, f"{few} with blocks of {self.block}: choose {usual}, or 0")
        return self._error(network, f"{few}, at least {_LEAST} that need each other: choose the strategy auto")

    def _error(self, network: Network, message: str) -> CompileError:
        where = network.layers[-1].op if network.layers else network.function
        return CompileError(message, where.location)


def _is_iterated(module: ir.Module) -> bool:
    """Is there an iteration already, or a recurrence that one could solve?"""
    if walk(module.operation, "parc.iterate"):
        return True
    for op in systems(module):
        system = build(op)
        if any(e.reads for e in system.equations) and cycles(system, dependences(system)):
            return True
    return False
