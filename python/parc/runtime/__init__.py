"""What a compiled program needs when it runs: the thread team and the native library that holds it."""

from parc.runtime.team import Team, library_path

__all__ = ["Team", "library_path"]
