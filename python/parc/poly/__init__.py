"""The polyhedral view of a system: exact dependences, legality, schedules and their cost, on islpy.

Read in this order: `affine` (MLIR affine <-> isl), `model` (a system as isl sets and maps), `dependences` (who needs
whom, is the system well formed), `timing` (the smallest affine time, by Farkas' lemma), `wavefront` (the schedules),
`legality` (is a schedule right), `count` (work and span), `cost` (which schedule is fastest); then `patterns`,
`linearity` and `blocks` (what the blocks of a system's matrix are), `structure` (where they are), `complexity` (what
each way to solve it takes).
"""
