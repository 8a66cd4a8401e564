"""The way into the compiler: torch programs and model files become modules of traces.

`import_model` takes what is in memory, `import_path` what is in a file; both return an `Imported`.
"""

from parc.importers.imported import Imported
from parc.importers.sources import import_model, import_path

__all__ = ["Imported", "import_model", "import_path"]
