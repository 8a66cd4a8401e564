"""Programs that run a sequence chunk by chunk: what a chunk hands to the next one, and training by way of it.

Read in this order: `complete` and `systems` (which systems go forward in time), `steps` (how the code around them
follows time), `program` (a chunk of a program), `sums` and `reverse` (a chunk from its end), `training`.
"""
