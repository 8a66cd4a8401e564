"""The command line of `parc-opt`: what it accepts, and its help."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

from parc.codegen.blocks.target import EMULATED, EXACT
from parc.codegen.blocks.tensor_core import CORES
from parc.errors import UsageError
from parc.gpu.arch import ARCHITECTURES, Arch, find_arch
from parc.iteration import STARTS, Iteration
from parc.pipelines import ALIASES, PIPELINES, Step, is_ours, own_pass, parse_pipeline, pass_names, pass_type

STAGES = ("torch", "linalg", *PIPELINES, "structure", "asm", "object", "ptx")

# The architecture to compile for when none is named, by the stages that are a GPU's alone.
_ARCH = "sm_90"
_GPU_STAGES = ("gpu", "host", "ptx")

_SWEEPS = Iteration()

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
  the same solved by sweeps over whole sequences, until no element changes by more than a tolerance:
    parc-opt model.onnx --emit=schedule --strategy=jacobi --tolerance=1e-5 --limit=20
  the block matrix of its systems, and what each way to solve them takes:
    parc-opt model.onnx --emit=structure --sizes=T=128,B=16
  the two programs of a training step, and how they are scheduled:
    parc-opt model.py:name --emit=adjoint --wrt=x,weight
    parc-opt model.py:name --emit=adjoint | parc-opt --emit=schedule
  one pass, then an upstream one, in the order given:
    parc-opt file.mlir --parc-wavefront=threads=2 --canonicalize
  the same as a pipeline:
    parc-opt file.mlir --pass-pipeline="builtin.module(schedule{strategy=wavefront threads=2},canonicalize)"
  the program for a GPU, its kernels as PTX, and the registers and memory that they take (no GPU is needed):
    parc-opt model.onnx --emit=gpu --arch=sm_90
    parc-opt model.onnx --emit=ptx --arch=sm_90 --precision=bf16 --ptxas-info
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
    iteration: Iteration | None
    threads: int
    sizes: Mapping[str, int]
    wrt: Sequence[str]
    target: str
    arch: Arch
    precision: str
    ptxas_info: bool
    print_after_all: bool
    timing: bool
    split: bool
    verify: bool
    bytecode: bool


def read_request(arguments: Sequence[str]) -> Request:
    """Understand the arguments; raises UsageError, and SystemExit for --help and where argparse complains."""
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
    steps += parse_pipeline(options.pass_pipeline)
    if options.threads < 0:
        raise UsageError(f"--threads is at least 1, or 0 for all of the machine, not {options.threads}")
    if options.ptxas_info and options.emit != "ptx":
        raise UsageError("--ptxas-info tells about kernels: it needs --emit=ptx")
    return Request(
        input=options.input,
        output=options.o,
        steps=tuple(steps),
        emit=options.emit,
        strategy=options.strategy,
        iteration=_iteration(options),
        threads=options.threads,
        sizes=_sizes(options.sizes),
        wrt=tuple(name.strip() for name in options.wrt.split(",") if name.strip()),
        target=_target(options.emit, options.arch),
        arch=find_arch(options.arch or _ARCH),
        precision=options.precision,
        ptxas_info=options.ptxas_info,
        print_after_all=options.mlir_print_ir_after_all,
        timing=options.mlir_timing,
        split=options.split_input_file,
        verify=options.verify_diagnostics,
        bytecode=options.emit_bytecode or options.o.endswith(".mlirbc"),
    )


def _step(name: str, options: str) -> Step:
    """The step that `--parc-<name>=<options>` or `--<upstream name>=<options>` stands for."""
    if not name.startswith("parc-"):
        return parse_pipeline(f"{name}{{{options}}}" if options else name)[0]
    name = name.removeprefix("parc-")
    if not is_ours(name):
        raise UsageError(f"parc has no pass '{name}'; --help lists them")
    return own_pass(name, options)


def _sizes(text: str) -> dict[str, int]:
    """`T=128,B=16` as a dictionary."""
    sizes = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if not value.isdecimal():
            raise UsageError(f"--sizes is written like T=128,B=16, not '{text}'")
        sizes[name.strip()] = int(value)
    return sizes


def _iteration(options: argparse.Namespace) -> Iteration | None:
    """How iterative strategies sweep; None where nothing is said about it."""
    given = {f.name: value for f in fields(Iteration) if (value := getattr(options, f.name)) is not None}
    if not given:
        return None
    if options.strategy != "auto":
        from parc.poly.schedules import ITERATIVE  # imports islpy, which most calls do without

        if options.strategy not in ITERATIVE:
            raise UsageError(
                f"{', '.join(f'--{name}' for name in given)}: the strategy '{options.strategy}' makes no sweeps; those "
                f"that do are {', '.join(ITERATIVE)}, and auto may choose them"
            )
    try:
        return Iteration(**given)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def _target(emit: str | None, arch: str) -> str:
    """What the stages are to compile for: a GPU where it is named or the last stage is a GPU's, else this machine."""
    if emit == "emulation":
        return EMULATED
    return arch or _ARCH if arch or emit in _GPU_STAGES else "cpu"


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
    add(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads to compile for, of a GPU blocks (default: all)",
    )
    add("--sizes", default="", metavar="T=N,..", help="sizes that the cost model chooses for; the result serves all")
    add("--wrt", default="", metavar="NAME,..", help="arguments to differentiate by, for adjoint (default: all)")
    add("--arch", default="", metavar="NAME", help=f"GPU to compile for: {', '.join(ARCHITECTURES)} (default: {_ARCH})")
    add("--precision", default=EXACT, choices=(EXACT, *CORES), help="what GPUs round factors of f32 products to")
    add("--ptxas-info", action="store_true", help="assemble the ptx, and put above it what each kernel takes of a GPU")
    add("--split-input-file", action="store_true", help="process the parts between '// -----' lines one by one")
    add("--verify-diagnostics", action="store_true", help="check errors against 'expected-error {{..}}', print no IR")
    add("--mlir-print-ir-after-all", action="store_true", help="print the IR after each pass to standard error")
    add("--mlir-timing", action="store_true", help="print the time of each pass to standard error")
    add("--emit-bytecode", action="store_true", help="write bytecode instead of text")
    _add_iteration(parser)
    return parser


def _add_iteration(parser: argparse.ArgumentParser) -> None:
    """The options of `Iteration`, under its names."""
    add = parser.add_argument_group(
        "iterative strategies",
        "jacobi, gauss-seidel, jacobi-gs, gs-jacobi, newton, quasi-newton: from a guess, they sweep over all steps at\n"
        "once until nothing changes any more. These options say how; with one of them, auto may choose one too.",
    ).add_argument
    add(
        "--tolerance",
        type=float,
        metavar="X",
        help=f"largest change that counts as none (default: {_SWEEPS.tolerance:g})",
    )
    add("--block", type=int, metavar="N", help="steps in a block of a block solver (default: by dependences and cost)")
    add("--limit", type=int, metavar="N", help="most sweeps; then it goes step by step (default: those that are exact)")
    add("--start", choices=STARTS, help=f"what the first sweep starts from (default: {_SWEEPS.start})")
    add(
        "--damping",
        type=float,
        metavar="X",
        help="of Newton's method, 0 to below 1: less use of derivatives (default: 0)",
    )


def _tables() -> str:
    """The passes and the pipelines, for --help."""
    width = max(map(len, pass_names()), default=0) + len("--parc-") + 2
    lines = ["passes:"]
    for name in pass_names():
        kind = pass_type(name)
        lines.append(f"  {'--parc-' + name:<{width}}{kind.summary()}")
        for option, (_, default) in kind.options().items():
            lines.append(f"  {'':<{width}}  {option}={default}")
    lines += ["", "short names:"]
    lines += [f"  {'--parc-' + name:<{width}}{step}" for name, step in ALIASES.items()]
    lines += ["", "pipelines (--emit):"]
    for stage, steps in PIPELINES.items():
        lines.append(f"  {stage:<10}{', '.join(steps)}")
    return "\n".join(lines)
