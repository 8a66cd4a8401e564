"""The first bytes of an arena: what a program and those who run it tell each other."""

STATUS = 0
"""i64: the number of the check that failed in a call, 0 for none."""
BARRIERS = 16
"""i32: how many blocks have come to barriers of the grid; programs of thread blocks only, as are the following."""
LEAVERS = 20
"""i32: how many blocks have come to their end; the last one sets all counts to 0 again."""
FLAGS = 64
"""i32 for each block: how often it has arrived."""
_LINE = 64


MOST_BLOCKS = 1024
"""Of a grid."""


def header_bytes(blocks: int = 0) -> int:
    """The size of the header, a multiple of a cache line, for a grid of so many blocks; for the CPU it is one line.

    An arena starts with zeros there.
    """
    return FLAGS + -(-4 * blocks // _LINE) * _LINE


LARGEST_HEADER = header_bytes(MOST_BLOCKS)
