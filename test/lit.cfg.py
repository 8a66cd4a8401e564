"""lit configuration: files with RUN lines, which use `parc-opt`, `filecheck` and, for the native runtime, `%cxx`."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lit.formats

root = Path(__file__).resolve().parent.parent

config.name = "parc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".cpp", ".mlir", ".py", ".test"]
config.excludes = ["Inputs", "conftest.py", "lit.cfg.py", "python", "sanitize.py"]
config.test_source_root = str(root / "test")

# The tools of this tree, with the Python (and its filecheck) that runs lit.
tools = [str(root / "tools"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
config.environment["PATH"] = os.pathsep.join(tools)
config.environment["PYTHONPATH"] = str(root / "python")
config.substitutions.append(("%python", sys.executable))

cxx = os.environ.get("CXX") or shutil.which("c++") or "c++"
config.substitutions += [("%cxx", cxx), ("%native", str(root / "python" / "parc" / "runtime" / "native"))]


def works_with_thread_sanitizer() -> bool:
    """Whether programs built with ThreadSanitizer run here: it needs a library, and a kernel whose layout it knows."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "main"
        source = program.with_suffix(".cpp")
        source.write_text("int main() { return 0; }")
        build = subprocess.run([cxx, "-fsanitize=thread", str(source), "-o", str(program)], capture_output=True)
        return build.returncode == 0 and subprocess.run([str(program)], capture_output=True).returncode == 0


if works_with_thread_sanitizer():
    config.available_features.add("thread-sanitizer")
