"""From a torch program and one example call to traces at small sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch_mlir import ir

from parc.call_structure import CallStructure
from parc.errors import CompileError
from parc.importers.imported import Imported, Original
from parc.importers.shapes import InputShapes, attempt, declared, inferred
from parc.importers.torch_model import Program, emit, parameter_names
from parc.importers.torch_trace import Recording, user_line
from parc.template import Slot, Template

# The compiled program is compared with the original at sizes that much over the traced ones: lengths go past the
# longest time tile, the others past the rows of a register tile.
_FAR_TIME, _FAR_OTHER = 33, 5
_NEAR = 4


def import_torch(
    function: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    context: ir.Context,
    *,
    dynamic_shapes: object = None,
    stage: str = "linalg",
) -> Imported:
    """Trace a module or function at a few small sizes.

    `dynamic_shapes` is `torch.export`'s, with plain names allowed for dimensions; without it the dynamic dimensions
    are found by trial.  Raises `CompileError` at the user's line for what cannot be compiled.
    """
    program = Program.of(function, args, kwargs)
    shapes = inferred(program) if dynamic_shapes is None else declared(program, dynamic_shapes)
    sizes = shapes.trace_sizes()
    first = _record(program, shapes.at(sizes[0]))
    recordings = [first, *(_record(program, shapes.at(s), first.captured) for s in sizes[1:])]
    results = _result_template(recordings, sizes, shapes)
    parameters = parameter_names(program, first.captured)
    symbols = [s.name for s in shapes.symbols]
    inputs = dict(zip(program.names, program.examples, strict=True))
    outputs = {f"result{i}": t for i, t in enumerate(first.results)}
    return Imported(
        module=emit(recordings, sizes, symbols, program.names, parameters, context, stage),
        structure=CallStructure(program.signature, program.roots, program.defaults, program.arguments, results),
        parameters=dict(zip(parameters, first.captured, strict=True)),
        owner=program.module,
        least={symbol: _least(program, shapes, i) for i, symbol in enumerate(symbols)},
        sizes=shapes.values([t.shape for t in program.examples]),
        original=_original(program, shapes),
        unsigned=frozenset(name for name, t in [*inputs.items(), *outputs.items()] if t.dtype is torch.uint8),
        mode_matters=program.module is not None and _mode_matters(program, program.module, shapes.at(sizes[0]), first),
    )


def _record(program: Program, shapes: Sequence[Sequence[int]], known: Sequence[Tensor] = ()) -> Recording:
    """A recording with the captured tensors `known`, and no other unless it is the first."""
    try:
        recording = program.record(shapes, known)
    except CompileError:
        raise
    except Exception as e:  # whatever the user's program raises
        raise CompileError(
            f"the model fails at the input shapes {_shapes_text(program, shapes)}: {e}", user_line(e)
        ) from e
    if known and len(recording.captured) != len(known):
        extra = parameter_names(program, recording.captured)[len(known)]
        where = _shapes_text(program, shapes)
        raise CompileError(f"the model uses the tensor '{extra}' at the input shapes {where} but not at smaller ones")
    return recording


def _shapes_text(program: Program, shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{name}: {list(shape)}" for name, shape in zip(program.names, shapes, strict=True))


def _result_template(
    recordings: Sequence[Recording], sizes: Sequence[tuple[int, ...]], shapes: InputShapes
) -> Template:
    """The structure of the result, which has to be the same at every size."""
    first = recordings[0]
    if not first.results:
        raise CompileError("the model returns no tensor")
    constants = [leaf.value for leaf in first.outputs if leaf.index is None]
    for recording, size in zip(recordings[1:], sizes[1:], strict=True):
        where = ", ".join(f"{s.name}={v}" for s, v in zip(shapes.symbols, size, strict=True))
        if recording.output_spec != first.output_spec:
            raise CompileError(
                f"the structure of the model's result depends on the sizes (at {where} it has "
                f"{len(recording.outputs)} values, at the sizes before {len(first.outputs)}): return torch.stack(...) "
                "of a list that grows"
            )
        if [leaf.value for leaf in recording.outputs if leaf.index is None] != constants:
            raise CompileError(f"the model returns a plain number that depends on the sizes (it differs at {where})")
    leaves = [Slot(f"result{leaf.index}") if leaf.index is not None else leaf.value for leaf in first.outputs]
    return Template(pytree.tree_unflatten(leaves, first.output_spec))


def _least(program: Program, shapes: InputShapes, which: int) -> int:
    """The least value of one symbol at which the program runs, the others at their base."""
    base = [s.base for s in shapes.symbols]
    for value in range(base[which]):
        if attempt(program, shapes.at([value if i == which else b for i, b in enumerate(base)])) is not None:
            return value
    return base[which]


def _original(program: Program, shapes: InputShapes) -> Original:
    names = [s.name for s in shapes.symbols]
    # Of floating-point examples only the element type matters: the caller's data and graph are not held on to.
    examples = [e.new_empty(0) if e.is_floating_point() else e.detach() for e in program.examples]
    program = replace(program, examples=())

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]), _one_thread():
            leaves = pytree.tree_leaves(program.call(tensors))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def inputs(sizes: Mapping[str, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        targets = shapes.at([sizes[name] for name in names])
        return [_random(e, s, generator) for e, s in zip(examples, targets, strict=True)]

    far = {s.name: s.base + (_FAR_TIME if s.timelike else _FAR_OTHER) for s in shapes.symbols}
    near = {s.name: s.base + _NEAR for s in shapes.symbols}
    empty = [{n: 0 if n == zero else near[n] for n in names} for zero in names]
    return Original(run, inputs, (far, near, dict.fromkeys(names, 1), *empty) if names else ({},))


def _random(example: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Values for an input: normal ones for floating point, else drawn from the example, whose range is known to fit."""
    if example.dtype.is_floating_point or example.dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=example.dtype)
    if not example.numel():
        return torch.zeros(shape, dtype=example.dtype)
    picks = torch.randint(example.numel(), shape, generator=generator)
    return example.detach().reshape(-1)[picks]


@contextmanager
def _one_thread() -> Iterator[None]:
    """At small sizes torch's threads only cost time, on a busy machine seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _mode_matters(program: Program, module: nn.Module, shapes: Sequence[Sequence[int]], first: Recording) -> bool:
    """Whether the module computes something else when training is switched on or off (dropout, batch norm)."""
    with _other_mode(module):
        try:
            other = attempt(program, shapes)
        except CompileError:  # such as dropout, which draws random numbers
            return True
    return other is None or other.operations != first.operations


@contextmanager
def _other_mode(module: nn.Module) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    for part, training in before:
        part.training = not training
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
