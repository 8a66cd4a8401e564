"""`parc-opt`: runs parc's passes and pipelines on a model or on IR."""

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from torch_mlir import ir

from parc import dialect
from parc.errors import ParcError, UsageError
from parc.pipelines import is_past, run_pipeline, stage_of, stage_steps, stages_after
from parc.tools.command_line import Request, read_request
from parc.tools.diagnostics import Diagnostic, diagnostics, expectations, mismatches

_SPLIT = re.compile(r"^// -----.*\n", re.MULTILINE)
_BYTECODE = b"ML\xefR"
# The last pipeline of what is no pipeline itself.
_LAST = {"structure": "schedule", "asm": "llvm", "object": "llvm", "ptx": "gpu"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status: 0, 1 for an error in the input, 2 for one in the command line."""
    try:
        return _run(read_request(sys.argv[1:] if arguments is None else arguments))
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
        return _complain(f"cannot read {request.input}: {error.strerror or error}")
    except UnicodeDecodeError:
        return _complain(f"{request.input} is neither text in UTF-8 nor MLIR bytecode")
    outputs: list[bytes] = []
    failed = False
    for chunk in chunks:
        source = chunk.decode(errors="replace") if chunk and not chunk.startswith(_BYTECODE) else ""
        problems: list[Diagnostic] = []
        try:
            outputs.append(_process(chunk, request))
        except UsageError:
            raise
        except (ir.MLIRError, ParcError, OSError) as error:
            problems = diagnostics(error)
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
        try:
            _write(request.output, b"// -----\n".join(outputs))
        except BrokenPipeError:
            raise
        except OSError as error:
            return _complain(f"cannot write {request.output}: {error.strerror or error}")
    return int(failed)


def _complain(message: str) -> int:
    print(f"parc-opt: error: {message}", file=sys.stderr)
    return 1


def _chunks(request: Request) -> list[bytes | None]:
    """The texts to process: more than one with --split-input-file, None for an input that an importer reads."""
    if request.input != "-" and Path(request.input).suffix not in (".mlir", ".mlirbc"):
        return [None]
    data = sys.stdin.buffer.read() if request.input == "-" else Path(request.input).read_bytes()
    if data.startswith(_BYTECODE):
        return [data]
    text = data.decode()
    if not request.split:
        return [data]
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

            stage = "torch" if request.emit == "torch" else "linalg"
            module = import_path(request.input, context, stage=stage).module
        else:
            # MLIR takes bytes for bytecode or text without a copy, but only with the right type.
            text = chunk if chunk.startswith(_BYTECODE) else chunk.decode()
            module = _parse_torch(text, request) if b"torch." in chunk else ir.Module.parse(text, context)
        steps = list(request.steps)
        if request.emit not in (None, "torch", "linalg"):
            last = _LAST.get(request.emit, request.emit)
            done = stage_of(module)
            if is_past(done, last):
                raise ParcError(f"the input is past --emit={last}: it is at the stage '{done}'")
            for stage in stages_after(done, last):
                steps += stage_steps(
                    stage,
                    strategy=request.strategy,
                    iteration=request.iteration,
                    threads=request.threads,
                    sizes=request.sizes,
                    wrt=request.wrt,
                    target=request.target,
                    precision=request.precision,
                )
        run_pipeline(module, steps, print_after_all=request.print_after_all, timing=request.timing)
        if request.emit in ("asm", "object"):
            from parc.tools.machine_code import machine_code  # needs the native runtime, which IR does without

            return machine_code(module, as_text=request.emit == "asm")
        if request.emit == "ptx":
            return _ptx(module, request).encode()
        if request.emit == "structure":
            from parc.structure_report import structure_text  # imports islpy, which other stages may do without

            return structure_text(module, request.sizes).encode()
        if request.bytecode:
            return _bytecode(module)
        return f"{_schedule_comment(module) if request.emit == 'schedule' else ''}{module}\n".encode()


def _parse_torch(text: str | bytes, request: Request) -> ir.Module:
    """Parse what may be in the torch dialect, and lower it where a later stage is asked for."""
    from torch_mlir.dialects import torch as torch_dialect  # takes a second to import

    torch_dialect.register_dialect(ir.Context.current)
    module = ir.Module.parse(text)
    if request.emit not in (None, "torch"):
        from parc.importers.mlir_file import lower_torch

        lower_torch(module)
    return module


def _ptx(module: ir.Module, request: Request) -> str:
    """The kernels as PTX, below a comment on what they take if that is asked for."""
    from parc.gpu.device_code import compile_device, resource_table  # loads the GPU dialects

    code = compile_device(module, request.arch, cubin=request.ptxas_info)
    comment = [f"// {line}\n" for line in resource_table(code).splitlines()] if request.ptxas_info else []
    return "".join(comment) + code.ptx


def _schedule_comment(module: ir.Module) -> str:
    """What the schedule of each system amounts to, as comment lines."""
    from parc.report import schedule_comment  # imports islpy, which other stages may do without

    return schedule_comment(module)


def _bytecode(module: ir.Module) -> bytes:
    with tempfile.TemporaryFile() as file:
        module.operation.write_bytecode(file)
        file.seek(0)
        return file.read()


def _write(path: str, data: bytes) -> None:
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif data:
        Path(path).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
