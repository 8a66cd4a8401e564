"""Give every equation its time: find a system's dependences, choose a schedule and prove it."""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from parc.errors import CompileError
from parc.passbase import Pass
from parc.poly.legality import check_schedule
from parc.poly.model import build, systems
from parc.poly.plan import Plan, Request, default_sizes, plan
from parc.poly.schedules import ITERATIVE, SOLVERS, with_schedule


@dataclass
class ScheduleSystem(Pass):
    """Choose a time and a thread for every point of each system, and prove it against the exact dependences.

    Two layers, each equation at its step t of the sequence (strategy=wavefront):

        "parc.equation"() ({...}) {name = "cell0", domain = ...}
        "parc.equation"() ({...}) {name = "cell1", domain = ...}
      }) {symbols = ["T", "B"]}

    become, cell1 one wave behind cell0:

        "parc.equation"() ({...}) {name = "cell0", ..., schedule = affine_map<(t)[T, B] -> (t)>}
        "parc.equation"() ({...}) {name = "cell1", ..., schedule = affine_map<(t)[T, B] -> (t + 1)>}
      }) {symbols = ["T", "B"], strategy = "wavefront", distribute = "units"}

    It is chosen for so many threads of this machine, or thread blocks of a GPU (`target=sm_90 threads=132`).
    """

    name: ClassVar[str] = "schedule"

    strategy: str = "auto"
    distribute: str = ""
    time_tile: int = 0
    target: str = "cpu"
    threads: int = 0
    sizes: str = ""

    def run(self, module: ir.Module) -> None:
        sizes = parse_sizes(self.sizes)
        request = Request(self.strategy, self.distribute, self.time_tile, self.threads, sizes, self.target)
        with module.context, ir.Location.unknown():
            built = [build(op) for op in systems(module)]
            # A solver gives its equations their times itself.
            built = [system for system in built if system.strategy not in (*SOLVERS, *ITERATIVE)]
            defaults = default_sizes(built)
            for system in built:
                chosen = plan(system, request, defaults)
                check_schedule(with_schedule(system, chosen.schedule))
                _write(system.op, chosen)


def _write(system: ir.Operation, chosen: Plan) -> None:
    """Set the attributes of a scheduled system."""
    schedule, index = chosen.schedule, ir.IndexType.get()
    why = chosen.why
    if "considered" in system.attributes:  # by passes before this one
        why += f"; {ir.StringAttr(system.attributes['considered']).value}"
        del system.attributes["considered"]
    system.attributes["why"] = ir.StringAttr.get(why)
    system.attributes["sizes"] = ir.DictAttr.get(
        {symbol: ir.IntegerAttr.get(index, size) for symbol, size in chosen.sizes.items()}
    )
    system.attributes["strategy"] = ir.StringAttr.get(schedule.choice.strategy)
    system.attributes["distribute"] = ir.StringAttr.get(schedule.choice.distribute)
    for op in system.regions[0].blocks[0].operations:
        if op.operation.name != "parc.equation":
            continue
        name = ir.StringAttr(op.attributes["name"]).value
        op.attributes["schedule"] = ir.AffineMapAttr.get(schedule.time[name])
        if name in schedule.owner:
            op.attributes["owner"] = ir.AffineMapAttr.get(schedule.owner[name])
        elif "owner" in op.attributes:
            del op.attributes["owner"]


def parse_sizes(text: str) -> dict[str, int]:
    """`T=128,B=16` as a dictionary."""
    sizes = {}
    for item in text.replace(",", " ").split():
        key, _, value = item.partition("=")
        if not value.isdigit():
            raise CompileError(f"sizes are written like T=128,B=16, not '{item}'")
        sizes[key] = int(value)
    return sizes
