"""Direct solvers of affine recurrences `x[p] = A[p] x[p - 1] + b[p]`, as rewrites of a system into another one.

`recurrence` recognises one, `affine` splits an equation's body into A and b, `system` writes equations, and each
algorithm is a file: `chunks` (parallel scan of chunks, and cyclic reduction as its chunks of two) and `doubling`
(recursive doubling).  What they write is checked and scheduled like any other system (docs/solvers.md).
"""
