"""Programs that run a sequence chunk by chunk: what a chunk hands to the next one, and training by way of it.

Read in this order: `systems` (which systems go forward in time), `steps` (how the code around them follows time).
"""
