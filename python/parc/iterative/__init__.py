"""Iterative solvers: sweeps over a triangular system, each parallel, until nothing changes (docs/iterative.md).

"Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (arXiv 2002.03629) and its successors.
"""
