"""What code for thread blocks needs to know of a GPU: how many blocks, of how many threads, with how much memory."""

from dataclasses import dataclass, replace

from torch_mlir import ir

from parc.codegen.blocks.tensor_core import CORES, TensorCore
from parc.errors import UsageError
from parc.gpu.arch import find_arch

WARP = 32
"""Threads that run in step."""
WORKGROUP = "#gpu.address_space<workgroup>"
"""The memory space that the threads of a block share."""


@dataclass(frozen=True)
class BlockTarget:
    """A persistent grid: `blocks` blocks of `threads` threads each, all resident at once, one to a multiprocessor."""

    name: str
    blocks: int
    threads: int
    shared_bytes: int
    """Shared memory that one block can have."""
    core: TensorCore | None = None
    """What multiplies f32 factors, rounded; None is exact."""
    is_persistent: bool = True
    """Does one launch run the whole program? Else there is one for all that is between two barriers."""


_THREADS = 256
"""Of a block: each can have all 255 registers that an instruction can name."""
EXACT = "f32"
"""The precision of products that are not rounded."""
PERSISTENT, WAVES = FORMS = ("persistent", "waves")
"""How often a program is launched."""
EMULATED = "emulated"
# Small, so that programs run in reasonable time one thread after another.
_EMULATED = BlockTarget(EMULATED, 4, 64, 48 << 10)


def find_target(name: str, blocks: int = 0, precision: str = EXACT, form: str = PERSISTENT) -> BlockTarget | None:
    """The GPU of this name, with so many blocks (0: as many as it has multiprocessors); None for "cpu".

    UsageError, with the list, for a name, a precision of products or a form that parc does not know.
    """
    if form not in FORMS:
        raise UsageError(f"GPU programs have no form '{form}': {', '.join(FORMS)}")
    if precision != EXACT and precision not in CORES:
        raise UsageError(f"products have no precision '{precision}': {EXACT}, {', '.join(CORES)}")
    if name == "cpu":
        return None
    target = _EMULATED
    if name != EMULATED:
        arch = find_arch(name)
        target = BlockTarget(name, arch.sms, _THREADS, arch.shared_per_block)
    return replace(target, blocks=blocks or target.blocks, core=CORES.get(precision), is_persistent=form == PERSISTENT)


def workgroup(type_: ir.MemRefType) -> ir.MemRefType:
    """The type in shared memory."""
    return ir.MemRefType.get(type_.shape, type_.element_type, memory_space=ir.Attribute.parse(WORKGROUP))


def any_bytes(*, workgroup: bool = False) -> ir.MemRefType:
    """The type of memory without a type."""
    space = ir.Attribute.parse(WORKGROUP) if workgroup else None
    byte = ir.IntegerType.get_signless(8)
    return ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], byte, memory_space=space)


def is_workgroup(type_: ir.Type) -> bool:
    """Whether a value of this type is a buffer in shared memory."""
    return isinstance(type_, ir.MemRefType) and str(type_.memory_space) == WORKGROUP
