"""What parc says about the structure of a system: in `parc.explain` and by `parc-opt --emit=structure`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.poly.complexity import Cost, costs
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.formula import Number
from parc.poly.model import System, build, systems
from parc.poly.plan import sizes_for_reports
from parc.poly.spy import spy
from parc.poly.structure import Block, Component, Level, find_structure
from parc.poly.wavefront import Layer, waves
from parc.poly.words import listed


@dataclass(frozen=True)
class StructureReport:
    """The block matrix of one system, and what each way to solve it takes."""

    name: str
    """`block upper bidiagonal in 2 layers, each layer block upper bidiagonal in t (T rows)`."""
    is_affine: bool
    """Is the whole system affine in all its unknowns together?"""
    linearity: str
    """The same in words; a system that is not may have recurrences that are."""
    is_nested: bool
    """Is it bidiagonal, with blocks that are bidiagonal again?"""
    layers: Level | None
    """The matrix of the layers; None where there is one."""
    components: tuple[Component, ...]
    """The layers, in the order of its rows."""
    mixes_rows: tuple[str, ...]
    """The equations in which a row of a tile (of a batch) depends on other rows."""
    rows: Number
    """Block rows: points of equations."""
    nonzeros: Number
    """Blocks off the diagonal that are not zero."""
    density: float
    """Their share of a full triangle."""
    blocks: tuple[str, ...]
    """The blocks in words: `cell by cell: H by H, dense 64 x 64`."""
    costs: tuple[Cost, ...]
    """Work and span of each solver."""
    picture: str
    """The matrix as SVG, at small sizes."""

    def __str__(self) -> str:
        names = {c.name for c in self.components}
        layers = [f"  {', '.join(c.equations)}: {c.name}" for c in self.components if len(names) > 1]
        mixing = f"mix in {listed(self.mixes_rows)}" if self.mixes_rows else "do not mix"
        return "\n".join(
            [
                f"Structure: {self.name}",
                *layers,
                f"  {self.linearity}",
                f"  rows of the tiles (a batch) {mixing}",
                f"  {self.rows} block rows",
                f"  {self.nonzeros} blocks off the diagonal, {self.density:.2%} of the triangle",
                "Blocks",
                *(f"  {line}" for line in self.blocks or ("none",)),
                "Solvers, work in multiply-adds",
                *(f"  {cost}" for cost in self.costs),
            ]
        )


def explain_structure(
    system: System, flow: Sequence[Dependence], layers: Sequence[Layer] | None, sizes: Mapping[str, int]
) -> StructureReport:
    """The structure of a well-formed system, numbers at the given sizes; needs a current MLIR context."""
    structure = find_structure(system, flow, layers)
    # The report outlives the module: it keeps nothing that points into it.
    return StructureReport(
        name=structure.name,
        is_affine=structure.is_affine,
        linearity=structure.linearity,
        is_nested=structure.is_nested,
        layers=structure.layers,
        components=structure.components,
        mixes_rows=structure.mixes_rows,
        rows=Number.of(structure.rows, sizes),
        nonzeros=Number.of(structure.nonzeros, sizes),
        density=structure.density(sizes),
        blocks=tuple(dict.fromkeys(line for block in structure.blocks for line in _block_lines(system, block))),
        costs=costs(system, flow, structure, layers, sizes),
        picture=spy(system, structure, layers, sizes),
    )


def structure_text(module: ir.Module, sizes: Mapping[str, int]) -> str:
    """The structure of every system of a module, with or without a schedule, as text.

    sizes: values of symbols that the numbers are for; others have those that were named when a schedule was chosen.
    Raises CompileError for a system that is not well formed.
    """
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        parts = [_system_text(number, system, sizes_for_reports(built, sizes)) for number, system in enumerate(built)]
    return "\n\n".join(parts or ["There is no system."]) + "\n"


def _system_text(number: int, system: System, sizes: Mapping[str, int]) -> str:
    check_system(system)
    flow = dependences(system)
    at = ", ".join(f"{s}={sizes[s]}" for s in system.symbols)
    report = explain_structure(system, flow, waves(system, flow), sizes)
    count = len(system.equations)
    head = f"System {number}: {count} equation{'s' * (count > 1)}{f', numbers at {at}' if at else ''}"
    return f"{head}\n{report}"


def _block_lines(system: System, block: Block) -> Iterable[str]:
    unknowns = {u.op.results[0]: u.name for u in system.unknowns}
    ends = f"{block.sink} by {block.source}"
    for jacobian in block.jacobians:
        entries = {a.owner.operands[0] for a in jacobian.coefficients if not isinstance(a.owner, ir.Block)}
        names = [name for array, name in unknowns.items() if array in entries]
        jumps = jacobian.kind.name == "zero"
        more = f", {'jumps with' if jumps else 'entries depend on'} {', '.join(names)}" if names else ""
        more = ", constant" if jacobian.is_constant else more
        yield f"{ends}: {unknowns[jacobian.write.operands[1]]} by {block.array}, {jacobian.kind}{more}"
    if not block.jacobians:
        yield f"{ends}: zero"
