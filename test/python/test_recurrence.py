"""Raised programs mean what the model computes: their equations, executed one by one, against the model itself."""

import re
from collections.abc import Sequence

import interpreter
import loops
import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from torch_mlir import ir

from parc import dialect
from parc.errors import CompileError
from parc.importers import Imported, import_model
from parc.pipelines import parse_pipeline, run_pipeline, stage_steps

#: Lengths below, at and beyond the traced ones.
LENGTHS = (1, 3, 11)


def raise_program(program: loops.Program) -> tuple[Imported, torch.nn.Module]:
    """The program's `@main` with systems, and the module."""
    torch.manual_seed(0)
    context = ir.Context()
    dialect.load(context)
    module = program.module()
    example = program.arguments(dict.fromkeys(program.symbols(), 4))
    imported = import_model(module, example, {}, context, dynamic_shapes=program.dynamic_shapes())
    run_pipeline(imported.module, stage_steps("system"))
    return imported, module


def symbols_of(module: ir.Module) -> list[str]:
    """The names of the symbols of `@main`, in order."""
    attributes = ir.SymbolTable(module.operation)["main"].attributes["arg_attrs"]
    return [a["parc.name"].value for a in attributes if "parc.kind" in a and a["parc.kind"].value == "symbol"]


def check(imported: Imported, model: torch.nn.Module, program: loops.Program, lengths: Sequence[int]) -> None:
    """Execute the raised program at these lengths and compare with the model."""
    symbols = symbols_of(imported.module)
    for length in lengths:
        sizes = {name: length if name == "T" else 2 + k for k, name in enumerate(program.symbols())}
        inputs = program.arguments(sizes)
        with torch.no_grad():
            expected = [t.numpy() for t in pytree.tree_leaves(model(*inputs))]
        tensors = [t.detach().numpy() for t in (*inputs, *imported.parameters.values())]
        results = interpreter.evaluate(imported.module, [sizes[s] for s in symbols], tensors)
        for result, reference in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5, err_msg=f"at {sizes}")


@pytest.mark.parametrize("name", loops.REGULAR)
def test_regular_loops_are_raised_right(name: str) -> None:
    program = loops.REGULAR[name]
    imported, model = raise_program(program)
    assert '"parc.system"' in str(imported.module)
    check(imported, model, program, LENGTHS)
    run_pipeline(imported.module, parse_pipeline("split-products,canonicalize,cse"))
    check(imported, model, program, LENGTHS[1:2])


@pytest.mark.parametrize("name", loops.REFUSED)
def test_other_loops_are_refused_at_their_line(name: str) -> None:
    program, message = loops.REFUSED[name]
    with pytest.raises(CompileError, match=re.escape(message)) as caught:
        raise_program(program)
    code = program.function.__code__
    line = re.match(r".*loops\.py:(\d+)", str(caught.value))
    assert line is not None and code.co_firstlineno <= int(line[1]) <= max(n for *_, n in code.co_lines() if n)


def test_stacks_of_layers_are_one_system() -> None:
    """Layers stay schedulable against each other: one system with an equation a layer, whatever the loop order."""
    for name, equations in (("tied_layers_time_outer", 3), ("tied_layers_layer_outer", 3)):
        imported, _ = raise_program(loops.REGULAR[name])
        text = str(imported.module)
        assert text.count('"parc.system"') == 1
        assert text.count('"parc.equation"') == equations


def test_raising_is_deterministic() -> None:
    texts = {str(raise_program(loops.REGULAR["tied_layers_time_outer"])[0].module) for _ in range(2)}
    assert len(texts) == 1
