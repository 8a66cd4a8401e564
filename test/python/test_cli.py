"""The tables and the parser behind `parc-opt`, and how its errors are told."""

from pathlib import Path

import pytest
from torch_mlir import ir

import parc.passes
from parc import dialect
from parc.errors import CompileError
from parc.passbase import Pass
from parc.pipelines import (
    ALIASES,
    PIPELINES,
    is_past,
    parse_pipeline,
    pass_names,
    pass_type,
    run_pipeline,
    stage_of,
    stage_steps,
    stages_after,
)
from parc.tools.diagnostics import Diagnostic, expectations, mismatches
from parc.tools.opt import main

TESTS = Path(__file__).parents[1]
DIALECT_TESTS = TESTS / "dialect"


@pytest.mark.parametrize("name", pass_names())
def test_every_pass_file_holds_the_pass_of_its_name(name: str) -> None:
    kind = pass_type(name)
    assert kind.name == name
    assert kind.summary().endswith(".")
    assert isinstance(kind.from_text(""), Pass)


@pytest.mark.parametrize("name", pass_names())
def test_every_pass_is_shown_by_a_test(name: str) -> None:
    runs = [path.read_text() for path in (TESTS / "passes").glob(f"{name.replace('-', '_')}*.mlir")]
    names = [name, *(alias for alias, step in ALIASES.items() if step.startswith(name))]
    assert any(f"--parc-{known}" in text for text in runs for known in names)


@pytest.mark.parametrize("stage", PIPELINES)
def test_every_step_of_every_pipeline_exists(stage: str) -> None:
    upstream = [step for step in stage_steps(stage) if isinstance(step, str)]
    with ir.Context():
        run_pipeline(ir.Module.create(ir.Location.unknown()), upstream)


def test_pass_files_and_installed_passes_agree() -> None:
    files = {f.stem for folder in parc.passes.__path__ for f in Path(folder).glob("[!_]*.py")}
    assert files == {name.replace("-", "_") for name in pass_names()}


def test_a_pipeline_is_parsed_into_steps() -> None:
    text = "builtin.module( name-sizes , func.func(canonicalize{max-iterations=3},cse),canonicalize)"
    first, *upstream = parse_pipeline(text)
    assert isinstance(first, pass_type("name-sizes"))
    assert upstream == ["func.func(canonicalize{max-iterations=3},cse)", "canonicalize"]
    assert parse_pipeline("") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cse,,cse", "an empty step"),
        ("func.func(cse", "left open"),
        ("cse)", "unbalanced"),
        ("func.func(name-sizes)", "works on the whole module"),
        ("name-sizes{x=1}", "has no option 'x'"),
        ("name-sizes{x=1", "left open"),
    ],
)
def test_a_malformed_pipeline_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pipeline(text)


def test_an_unknown_step_stops_before_any_pass_runs() -> None:
    with ir.Context():
        module = ir.Module.parse("func.func private @unused()")
        with pytest.raises(ValueError, match="in the step 'nonsense'"):
            run_pipeline(module, ["symbol-dce", "nonsense"])
        assert "@unused" in str(module)


def test_a_failing_upstream_pass_is_a_compile_error_with_its_place() -> None:
    text = """func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = math.tanh %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}"""
    with ir.Context():
        module = ir.Module.parse(text)
        with pytest.raises(CompileError, match=r"^-:2:8: op was not bufferized"):
            run_pipeline(module, ["canonicalize", "one-shot-bufferize"])


def test_stages_follow_each_other() -> None:
    assert stages_after(None, "loops") == ["system", "schedule", "loops"]
    assert stages_after("system", "loops") == ["schedule", "loops"]
    assert stages_after("loops", "loops") == []
    assert stages_after(None, "adjoint") == ["system", "adjoint"]
    assert stages_after("adjoint", "loops") == ["schedule", "loops"]
    assert is_past("schedule", "adjoint") and not is_past("system", "adjoint") and not is_past(None, "llvm")
    assert stages_after(None, "linalg") == []


@pytest.mark.parametrize(
    ("file", "stage"), [("rnn.mlir", "system"), ("schedule.mlir", "schedule"), ("team.mlir", "loops")]
)
def test_the_stage_of_a_module_is_seen_in_its_operations(file: str, stage: str) -> None:
    context = ir.Context()
    dialect.load(context)
    assert stage_of(ir.Module.parse((DIALECT_TESTS / file).read_text(), context)) == stage


def test_plain_linalg_is_at_no_stage_and_llvm_at_the_last() -> None:
    with ir.Context():
        assert stage_of(ir.Module.parse("func.func @main() { return }")) is None
        assert stage_of(ir.Module.parse("llvm.func @main() { llvm.return }")) == "llvm"


def test_expectations_name_lines() -> None:
    source = "a // expected-error {{x}}\n// expected-error @below {{y}}\n// expected-error @+2 {{z}}\nb\nc\n"
    source += "// expected-error @above {{v}}\n// expected-error @unknown {{w}}"
    assert [(e.line, e.text) for e in expectations(source)] == [(1, "x"), (4, "y"), (5, "z"), (5, "v"), (0, "w")]


def test_unexpected_and_missing_errors_are_both_told() -> None:
    expected = expectations("// expected-error @below {{one}}\n\n")
    told = mismatches(expected, [Diagnostic("number one", "-", 2, 1), Diagnostic("another", "-", 2, 1)])
    assert [(d.message, d.line) for d in told] == [("unexpected error: another", 2)]
    told = mismatches(expected, [Diagnostic("one", "-", 3, 1)])
    assert [d.message for d in told] == ["unexpected error: one", 'expected error "one" was not produced']


def test_a_bug_in_a_pass_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(self: Pass, module: ir.Module) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(pass_type("name-sizes"), "run", fail)
    path = tmp_path / "a.mlir"
    path.write_text("func.func @main() { return }")
    assert main([str(path), "--parc-name-sizes"]) == 1
    assert "internal error: KeyError: 'lost' (this is a bug in parc" in capsys.readouterr().err


def test_a_passs_error_shows_the_line_of_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(self: Pass, module: ir.Module) -> None:
        raise CompileError("not this function", module.body.operations[0].location)

    monkeypatch.setattr(pass_type("name-sizes"), "run", refuse)
    path = tmp_path / "a.mlir"
    path.write_text("\n  func.func @main() { return }")
    assert main([str(path), "--parc-name-sizes"]) == 1
    assert capsys.readouterr().err == (
        f"{path}:2:3: error: not this function\n    func.func @main() {{ return }}\n    ^\n"
    )
