"""`parc.LoadedModule`: a saved program, called as the model that it was compiled from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parc.compiled import Compiled, refuse_transforms
from parc.deploy.manifest import Manifest
from parc.errors import CallError
from parc.iteration import Iterations
from parc.iteration_state import IterationState
from parc.memory import Memory
from parc.parameters import Parameters, container
from parc.runtime.executable import Executable


class LoadedModule(nn.Module):
    """A loaded program with its parameters and buffers, by the names that they had in the model.

    Weights can be read and replaced (`load_state_dict`, `copy_`): the next call uses what they are then.  They lie in
    the file's pages until something writes to them, and the file does not change then.  There are no gradients.
    """

    _manifest: Manifest
    _program: Compiled
    _live: Parameters
    _iterations: IterationState

    def __init__(self, manifest: Manifest, executable: Executable, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        types = manifest.image.signature.parameters
        tensors = [
            nn.Parameter(t, requires_grad=False) if p.kind == "parameter" else t
            for t, p in zip(parameters, manifest.parameters, strict=True)
        ]
        owner = container(
            [(n, t, p.kind != "constant") for t, p in zip(tensors, manifest.parameters, strict=True) for n in p.names]
        )
        # Names in the model may be those of this class's methods: its registries are used, not its attributes.
        shared = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
        self.__dict__.update({name: owner.__dict__[name] for name in shared}, training=False)
        iterations = IterationState()
        program = Compiled(executable, manifest.image.signature)
        program.share(iterations)
        named = dict(zip((t.name for t in types), tensors, strict=True))
        self.__dict__.update(
            _manifest=manifest,
            _program=program,
            _iterations=iterations,
            _live=Parameters(types, named, owner, executable.device),
        )

    def forward(self, *args: object, **kwargs: object) -> Any:
        """Call the program; `CallError` for arguments that do not fit."""
        inputs = self._manifest.structure.flatten(args, kwargs)
        refuse_transforms(inputs)
        symbols, parameters = self._program.sizes(inputs), self._live.current()
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *parameters.tensors)):
            raise CallError(
                "a loaded program computes no gradients: call it under torch.no_grad(), or compile the model itself"
            )
        return self._manifest.structure.pack(self._program(symbols, inputs, parameters))

    @property
    def iterations(self) -> dict[str, Iterations]:
        """How each iteration went in the last call, as of `parc.Module`."""
        return self._iterations.last

    def start_from(self, guesses: Mapping[str, Tensor] | None) -> None:
        """Say what the next call's iterations start from, as of `parc.Module`."""
        self._iterations.guess(guesses)

    def memory(self, *args: object, **kwargs: object) -> Memory:
        """What a call with these arguments takes, as planned."""
        return self._program.memory(self._program.sizes(self._manifest.structure.flatten(args, kwargs)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a loaded program cannot be copied or pickled: load its file again")

    def __repr__(self) -> str:
        image = self._manifest.image
        inputs = ", ".join(f"{t.name}: {t}" for t in image.signature.inputs)
        results = ", ".join(map(str, image.signature.results))
        return f"parc.LoadedModule({self._manifest.name}({inputs}) -> {results}, {image.target})"
