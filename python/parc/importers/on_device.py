"""Models on a GPU: imported from the CPU, where traces run, and compared with the original on the GPU."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from parc.errors import CallError
from parc.importers.imported import Imported, Original

Load = Callable[[Sequence[object], Mapping[str, object]], Imported]


def import_on(
    device: torch.device, model: object, args: Sequence[object], kwargs: Mapping[str, object], load: Load
) -> Imported:
    """What `load` makes of a model and its arguments that are on `device`; its parameters are those on the device.

    A module's tensors are on the CPU meanwhile.  CallError for a module that is not on the device.
    """
    cpu = torch.device("cpu")
    args, kwargs = (torch.utils._pytree.tree_map_only(Tensor, lambda t: t.to(cpu), a) for a in (args, kwargs))
    if not isinstance(model, nn.Module):
        imported = load(args, kwargs)
        parameters = {name: t.to(device) for name, t in imported.parameters.items()}
        return replace(imported, parameters=parameters, original=_from(device, imported.original))
    with _on_cpu(model, device):
        imported = load(args, kwargs)
    # Buffers are other tensors now.
    now = dict(_tensors(model))
    parameters = {name: now[name] if name in now else t.to(device) for name, t in imported.parameters.items()}
    return replace(imported, parameters=parameters, original=_with_inputs_on(device, imported.original))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


@contextmanager
def _on_cpu(model: nn.Module, device: torch.device) -> Iterator[None]:
    for name, tensor in _tensors(model):
        if tensor.device != device:
            raise CallError(f"'{name}' is on {tensor.device}, and the target is {device}: move the model there first")
    model.cpu()
    try:
        yield
    finally:
        model.to(device)


def _with_inputs_on(device: torch.device, original: Original | None) -> Original | None:
    """The same, of a program that runs on the device."""
    if original is None:
        return None
    inputs = original.inputs
    return replace(original, inputs=lambda sizes: [t.to(device) for t in inputs(sizes)])


def _from(device: torch.device, original: Original | None) -> Original | None:
    """The same, of a program that runs on the CPU."""
    if original is None:
        return None
    moved, run = _with_inputs_on(device, original), original.run
    assert moved is not None
    return replace(moved, run=lambda inputs: [t.to(device) for t in run([t.cpu() for t in inputs])])
