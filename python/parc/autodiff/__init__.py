"""Differentiation: from a program to its backward pass (docs/training.md)."""

from parc.autodiff.function import differentiate, programs

__all__ = ["differentiate", "programs"]
