"""lit configuration: `.mlir` and `.py` files with RUN lines, which use `parc-opt` and `filecheck`."""

import os
import sys
from pathlib import Path

import lit.formats

root = Path(__file__).resolve().parent.parent

config.name = "parc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".py", ".test"]
config.excludes = ["Inputs", "conftest.py", "lit.cfg.py", "python"]
config.test_source_root = str(root / "test")

# The tools of this tree, with the Python (and its filecheck) that runs lit.
tools = [str(root / "tools"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
config.environment["PATH"] = os.pathsep.join(tools)
config.environment["PYTHONPATH"] = str(root / "python")
config.substitutions.append(("%python", sys.executable))
