"""Runs a few programs on this machine's GPU under NVIDIA's compute-sanitizer; `make gpu` does.

python test/gpu/sanitize.py              all checks; ends with an error where there is no GPU or no sanitizer
python test/gpu/sanitize.py --look       only says whether there is a GPU
python test/gpu/sanitize.py --programs   the programs alone: what the sanitizer looks at
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "synccheck")
"""What is looked for: accesses out of bounds, races in shared memory, and barriers that not all threads come to."""
_NAME = "compute-sanitizer"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--look", action="store_true")
    parser.add_argument("--programs", action="store_true")
    options = parser.parse_args()
    missing = no_gpu()
    if missing:
        print(f"no GPU to check programs on: {missing}\nThe same tests run on the emulator: make test", file=sys.stderr)
        return 1
    if options.look:
        return 0
    if options.programs:
        run_programs()
        return 0
    sanitizer = find_sanitizer()
    if sanitizer is None:
        print(
            f"{_NAME} is neither in PATH nor below CUDA_HOME: it comes with the CUDA toolkit "
            "(https://docs.nvidia.com/compute-sanitizer)",
            file=sys.stderr,
        )
        return 1
    failed = [tool for tool in TOOLS if not passes(sanitizer, tool)]
    print(f"{_NAME}: {'errors found by ' + ', '.join(failed) if failed else 'no errors'}")
    return int(bool(failed))


def no_gpu() -> str:
    """Why there is no GPU; empty if there is one."""
    from parc import DeviceError
    from parc.runtime.cuda.device import find_device

    try:
        find_device()
    except DeviceError as error:
        return str(error)
    return ""


def find_sanitizer() -> Path | None:
    """The tool, from PATH or from the CUDA toolkit."""
    found = shutil.which(_NAME)
    if found:
        return Path(found)
    roots = [Path(root) for name in ("CUDA_HOME", "CUDA_PATH") if (root := os.environ.get(name))]
    places = [root / folder / _NAME for root in (*roots, Path("/usr/local/cuda")) for folder in ("bin", _NAME)]
    return next((place for place in places if place.is_file()), None)


def passes(sanitizer: Path, tool: str) -> bool:
    """Run the programs under one of the tools."""
    print(f"{_NAME} --tool {tool}", flush=True)
    # Each tensor is an allocation of its own: beyond its end there is no other one's memory.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [str(sanitizer), "--tool", tool, "--error-exitcode", "1", sys.executable, __file__, "--programs"]
    return subprocess.run(command, env=environment).returncode == 0


def run_programs() -> None:
    """Programs of every form, forwards and backwards, with results that are checked."""
    import torch
    from torch import nn

    import parc

    class Integrator(nn.Module):
        """`h[t] = a h[t-1] + x[t]`, which scans solve."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.linspace(-0.9, 0.9, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h, states = torch.zeros_like(x[0]), []
            for xt in x:
                h = self.a * h + xt
                states.append(h)
            return torch.stack(states)

    torch.manual_seed(0)
    programs: list[tuple[nn.Module, str, str]] = [
        (nn.LSTM(16, 40, 2), "wavefront", "highest"),
        (nn.GRU(16, 24), "rows", "highest"),
        (nn.RNN(16, 40, 2), "layers", "high"),
        (Integrator(), "scan", "highest"),
    ]
    for model, strategy, precision in programs:
        torch.set_float32_matmul_precision(precision)
        x = torch.randn(6, 3, 16, device="cuda", requires_grad=True)
        compiled = parc.compile(model.cuda(), (x,), target="cuda", strategy=strategy, training=True)
        for steps in (1, 9):
            part = torch.randn(steps, 3, 16, device="cuda", requires_grad=True)
            results = compiled(part)
            first = results[0] if isinstance(results, tuple) else results
            first.sum().backward()
            assert part.grad is not None and bool(part.grad.isfinite().all())
        torch.cuda.synchronize()
        print(f"{type(model).__name__}: {strategy}, products {precision}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
