"""`parc.importers.on_device`: models that are on another device, here torch's "meta", which every machine has."""

import pytest
import torch
from torch import Tensor, nn

from parc.errors import CallError
from parc.importers.imported import Imported, Original
from parc.importers.on_device import import_on

META = torch.device("meta")


class Scale(nn.Module):
    """A parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.zeros(3))


def stand_in(model: nn.Module, seen: list[Tensor]) -> Imported:
    """What an importer gives: it looks at the model's tensors while it runs."""
    seen += [*model.parameters(), *model.buffers()]
    original = Original(lambda inputs: inputs, lambda sizes: [torch.ones(sizes["T"])], ({"T": 2},))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), "lifted": torch.ones(2)}
    return Imported(None, None, tensors, model, original=original)  # type: ignore[arg-type]


def test_a_module_is_on_the_cpu_while_it_is_imported() -> None:
    model = Scale()
    places: list[str] = []
    arguments: list[object] = []

    def load(args: object, kwargs: object) -> Imported:
        arguments.append(args)
        seen: list[Tensor] = []
        imported = stand_in(model, seen)
        places.extend(t.device.type for t in seen)
        return imported

    imported = import_on(torch.device("cpu"), model, (torch.ones(1),), {}, load)
    assert places == ["cpu", "cpu"]
    assert imported.parameters["weight"] is model.weight
    assert imported.parameters["shift"] is model.shift
    assert isinstance(arguments[0], tuple)


def test_the_program_of_a_file_has_its_parameters_on_the_device() -> None:
    imported = import_on(META, "model.onnx", (), {}, lambda args, kwargs: stand_in(Scale(), []))
    assert {t.device.type for t in imported.parameters.values()} == {"meta"}
    assert imported.original is not None
    (value,) = imported.original.inputs({"T": 4})
    assert value.device == META


def test_a_module_elsewhere_is_refused() -> None:
    with pytest.raises(CallError, match="'weight' is on cpu, and the target is meta: move the model there first"):
        import_on(META, Scale(), (), {}, lambda args, kwargs: stand_in(Scale(), []))
