"""`parc-opt`: runs parc's passes and pipelines on a model or on IR."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine

from parc import dialect
from parc.errors import ParcError
from parc.pipelines import (
    PIPELINES,
    Step,
    parse_pipeline,
    pass_names,
    pass_type,
    run_pipeline,
    stage_of,
    stage_steps,
    stages_after,
)
from parc.runtime import library_path
from parc.runtime.executable import OPT_LEVEL
from parc.tools.diagnostics import Diagnostic, diagnostics, expectations, mismatches

STAGES = ("torch", "linalg", *PIPELINES, "asm", "object")
_SPLIT = re.compile(r"^// -----.*\n", re.MULTILINE)
_BYTECODE = b"ML\xefR"

_DESCRIPTION = """\
Runs parc's passes on a model or on IR, and prints what comes out.

INPUT is one of
  file.mlir, file.mlirbc    IR as text or bytecode; - reads standard input
  model.pt2, model.onnx     a saved model
  model.py:name             a function of no arguments that returns the module, or (module, example inputs)

examples:
  what the compiler sees in a model, and the schedule that it picks:
    parc-opt model.onnx --emit=system
    parc-opt model.onnx --emit=schedule --strategy=wavefront
  one pass, then an upstream one, in the order given:
    parc-opt file.mlir --parc-schedule="strategy=wavefront threads=2" --canonicalize
  the same as a pipeline:
    parc-opt file.mlir --pass-pipeline="builtin.module(schedule{strategy=wavefront threads=2},canonicalize)"
  any stage starts from the text of an earlier one:
    parc-opt model.pt2 --emit=schedule -o s.mlir && parc-opt s.mlir --emit=loops
"""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    input: str
    output: str
    steps: tuple[Step, ...]
    emit: str | None
    strategy: str
    threads: int
    print_after_all: bool
    timing: bool
    split: bool
    verify: bool
    bytecode: bool


class UsageError(Exception):
    """The command line does not make sense."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 0, 1 for an error in the input, 2 for one in the command line."""
    try:
        return _run(_request(list(sys.argv[1:] if arguments is None else arguments)))
    except UsageError as error:
        print(f"parc-opt: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(request: Request) -> int:
    try:
        chunks = _chunks(request)
    except OSError as error:
        print(f"parc-opt: error: cannot read {request.input}: {error.strerror or error}", file=sys.stderr)
        return 1
    outputs: list[bytes] = []
    failed = False
    for chunk in chunks:
        source = chunk.decode(errors="replace") if chunk and not chunk.startswith(_BYTECODE) else ""
        problems: list[Diagnostic] = []
        try:
            outputs.append(_process(chunk, request))
        except (ir.MLIRError, ParcError, OSError) as error:
            problems = diagnostics(error)
        except ValueError as error:
            raise UsageError(str(error)) from None
        except Exception as error:  # noqa: BLE001
            if os.environ.get("PARC_TRACEBACK"):
                traceback.print_exc()
            hint = "this is a bug in parc; PARC_TRACEBACK=1 shows where"
            problems = [Diagnostic(f"internal error: {type(error).__name__}: {error} ({hint})")]
        if request.verify:
            problems = mismatches(expectations(source), problems)
        for problem in problems:
            print(problem.render(request.input, source), file=sys.stderr)
        failed = failed or bool(problems)
    if not request.verify:
        _write(request.output, b"// -----\n".join(outputs))
    return int(failed)


def _chunks(request: Request) -> list[bytes | None]:
    """The texts to process: more than one with --split-input-file, None for an input that an importer reads."""
    if request.input != "-" and Path(request.input).suffix not in (".mlir", ".mlirbc"):
        return [None]
    data = sys.stdin.buffer.read() if request.input == "-" else Path(request.input).read_bytes()
    if not request.split or data.startswith(_BYTECODE):
        return [data]
    text = data.decode()
    chunks, line = [], 0
    for part in _SPLIT.split(text):
        # Empty lines in front keep the line numbers of the whole file.
        chunks.append(("\n" * line + part).encode())
        line += part.count("\n") + 1
    return list(chunks)


def _process(chunk: bytes | None, request: Request) -> bytes:
    """From one input to what is written for it."""
    context = ir.Context()
    dialect.load(context)
    with context, ir.Location.unknown():
        if chunk is None:
            from parc.importers import import_path  # imports torch, which IR input does without

            module = import_path(request.input, context, dialect="torch" if request.emit == "torch" else "linalg")
        else:
            # MLIR takes bytes for bytecode or text without a copy, but only with the right type.
            module = ir.Module.parse(chunk if chunk.startswith(_BYTECODE) else chunk.decode(), context)
        steps = list(request.steps)
        if request.emit not in (None, "torch", "linalg"):
            last = "llvm" if request.emit in ("asm", "object") else request.emit
            for stage in stages_after(stage_of(module), last or ""):
                steps += stage_steps(stage, strategy=request.strategy, threads=request.threads)
        run_pipeline(module, steps, print_after_all=request.print_after_all, timing=request.timing)
        if request.emit in ("asm", "object"):
            return _machine_code(module, as_text=request.emit == "asm")
        if request.bytecode:
            return _bytecode(module)
        return f"{module}\n".encode()


def _bytecode(module: ir.Module) -> bytes:
    with tempfile.TemporaryFile() as file:
        module.operation.write_bytecode(file)
        file.seek(0)
        return file.read()


def _machine_code(module: ir.Module, as_text: bool) -> bytes:
    """The object file that the JIT makes for this machine, or its disassembly."""
    objdump = shutil.which("objdump")
    if as_text and not objdump:
        raise ParcError("--emit=asm needs objdump (GNU binutils or LLVM); --emit=object does without")
    engine = ExecutionEngine(module, OPT_LEVEL, [str(library_path())], enable_pic=True)
    # The engine compiles at the first look-up; without one it would look for functions that were inlined away.
    if not any(engine.raw_lookup(name) for name in _public_functions(module)):
        raise ParcError("the module has no public function to compile")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.o"
        engine.dump_to_object_file(str(path))
        if not as_text:
            return path.read_bytes()
        command = [str(objdump), "--disassemble", "--no-show-raw-insn", str(path)]
        return subprocess.run(command, check=True, capture_output=True).stdout


def _public_functions(module: ir.Module) -> list[str]:
    """The functions of a module in the LLVM dialect that have a body and can be called from outside."""
    functions = (op for op in module.body.operations if op.operation.name == "llvm.func")
    return [
        ir.StringAttr(op.attributes["sym_name"]).value
        for op in functions
        if op.operation.regions[0].blocks and "sym_visibility" not in op.attributes
    ]


def _write(path: str, data: bytes) -> None:
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif data:
        Path(path).write_bytes(data)


def _request(arguments: list[str]) -> Request:
    parser = _parser()
    known = [option for action in parser._actions for option in action.option_strings]
    if not {"-h", "--help"}.isdisjoint(arguments):
        parser.epilog = _tables()
    ours, steps = [], []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.startswith("--") and len(name) > 2 and name not in known:
            steps.append(_step(name.removeprefix("--"), value))
        else:
            ours.append(argument)
    options = parser.parse_args(ours)
    try:
        steps += parse_pipeline(options.pass_pipeline)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Request(
        input=options.input,
        output=options.o,
        steps=tuple(steps),
        emit=options.emit,
        strategy=options.strategy,
        threads=options.threads,
        print_after_all=options.mlir_print_ir_after_all,
        timing=options.mlir_timing,
        split=options.split_input_file,
        verify=options.verify_diagnostics,
        bytecode=options.emit_bytecode or options.o.endswith(".mlirbc"),
    )


def _step(name: str, options: str) -> Step:
    """The step that `--parc-<name>=<options>` or `--<upstream name>=<options>` stands for."""
    try:
        if not name.startswith("parc-"):
            return parse_pipeline(f"{name}{{{options}}}" if options else name)[0]
        name = name.removeprefix("parc-")
        if name not in pass_names():
            raise ValueError(f"parc has no pass '{name}'; --help lists them")
        return pass_type(name).from_text(options)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parc-opt",
        usage="parc-opt INPUT [--parc-PASS[=OPTIONS]...] [--UPSTREAM-PASS[=OPTIONS]...] [options]",
        description=_DESCRIPTION,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=120, max_help_position=30),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", nargs="?", default="-", metavar="INPUT", help="a model or IR, as above (default: standard input)")
    add("-o", default="-", metavar="FILE", help="write to FILE; a name in .mlirbc means bytecode")
    add("--emit", choices=STAGES, help="run the pipelines up to this stage and print what it made")
    add("--pass-pipeline", default="", metavar="TEXT", help="run these passes, after those given one by one")
    add("--strategy", default="auto", metavar="NAME", help="the schedule to use (default: auto, by the cost model)")
    add("--threads", type=int, default=0, metavar="N", help="threads to compile for (default: all of the machine)")
    add("--split-input-file", action="store_true", help="process the parts between '// -----' lines one by one")
    add("--verify-diagnostics", action="store_true", help="check errors against 'expected-error {{..}}', print no IR")
    add("--mlir-print-ir-after-all", action="store_true", help="print the IR after each pass to standard error")
    add("--mlir-timing", action="store_true", help="print the time of each pass to standard error")
    add("--emit-bytecode", action="store_true", help="write bytecode instead of text")
    return parser


def _tables() -> str:
    """The passes and the pipelines, for --help."""
    width = max(map(len, pass_names()), default=0) + len("--parc-") + 2
    lines = ["passes:"]
    for name in pass_names():
        kind = pass_type(name)
        lines.append(f"  {'--parc-' + name:<{width}}{kind.summary()}")
        for option, (_, default) in kind.options().items():
            lines.append(f"  {'':<{width}}  {option}={default}")
    lines += ["", "pipelines (--emit):"]
    for stage, steps in PIPELINES.items():
        lines.append(f"  {stage:<10}{', '.join(steps)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
