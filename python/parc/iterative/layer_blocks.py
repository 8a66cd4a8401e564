"""How the layers of a network are put together to blocks, and after how many sweeps over blocks each is final."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import islpy as isl

from parc.iterative.layers import Network


@dataclass(frozen=True)
class Blocks:
    """Blocks of layers that are swept over together: each is computed layer by layer, from the last sweep's others."""

    layers: tuple[tuple[int, ...], ...]
    """The numbers of each block's layers, in order."""
    needs: tuple[frozenset[int], ...]
    """For each block, the others of these that it needs."""
    depths: tuple[int, ...]
    """For each block, after how many sweeps it is final.

    0 for those that are known before: blocks that need no others, and those that need only such. What they are
    computed from is the same in every sweep.
    """

    def is_needed(self, block: int) -> bool:
        """Does another one of these need a block?"""
        return any(block in needs for needs in self.needs)

    @property
    def known(self) -> tuple[int, ...]:
        """The blocks that are computed before the sweeps."""
        return tuple(b for b, depth in enumerate(self.depths) if not depth)

    @property
    def swept(self) -> tuple[int, ...]:
        """The blocks that sweeps compute; those that no other needs come after."""
        return tuple(b for b, depth in enumerate(self.depths) if depth and self.is_needed(b))

    @property
    def bound(self) -> int:
        """After so many sweeps all are final; 0 where there is nothing to sweep over."""
        return max((self.depths[b] for b in self.swept), default=0)


def blocks_of(network: Network, layers: Sequence[Sequence[int]]) -> Blocks:
    """The blocks with these layers, of which each needs earlier ones only."""
    home = {number: block for block, numbers in enumerate(layers) for number in numbers}
    needs = tuple(
        frozenset(home[n] for number in numbers for n in network.layers[number].needs if n in home) - {block}
        for block, numbers in enumerate(layers)
    )
    chains: list[int] = []
    for those in needs:
        chains.append(max((chains[b] + 1 for b in those), default=0))
    depths = tuple(max(0, chain - 1) for chain in chains)
    check_depths(needs, depths)
    return Blocks(tuple(tuple(numbers) for numbers in layers), needs, depths)


def check_depths(needs: Sequence[frozenset[int]], depths: Sequence[int]) -> None:
    """Prove that after k sweeps, from whatever start, all blocks with a depth of at most k are final.

    By induction over k: what a deeper block than 0 needs is final one sweep earlier; those of depth 0 need no others.
    """
    read = isl.Map("{ block[b] -> block[n] : 1 = 0 }")
    depth = isl.Map("{ block[b] -> [d] : 1 = 0 }")
    for block, (those, value) in enumerate(zip(needs, depths, strict=True)):
        depth = depth.union(isl.Map(f"{{ block[{block}] -> [{value}] }}"))
        for needed in those:
            read = read.union(isl.Map(f"{{ block[{block}] -> block[{needed}] }}"))
    final = depth.apply_range(isl.Map("{ [d] -> sweep[k] : d <= k and 0 <= k }")).reverse()
    known = depth.intersect_range(isl.Set("{ [d] : d <= 0 }")).domain()
    before = isl.Map("{ sweep[k] -> sweep[k - 1] : k >= 1 }").apply_range(final)
    text = "a block is said to be final before what it needs is"
    assert known.apply(read).is_subset(known), text
    assert final.subtract_range(known).apply_range(read).is_subset(before), text


def singles(layers: Iterable[int]) -> list[tuple[int, ...]]:
    """Each layer by itself."""
    return [(n,) for n in layers]


def with_bottlenecks(network: Network) -> list[tuple[int, ...]]:
    """Each layer by itself, but for those that only the next one needs, to give fewer numbers: they are one with it.

    Such are the wide first convolutions of the layers of a DenseNet-BC. In longer blocks a sweep takes more steps, and
    hardly fewer sweeps are enough.
    """
    found: list[tuple[int, ...]] = []
    for n, layer in enumerate(network.layers):
        is_open = bool(found) and len(found[-1]) == 1
        if is_open and network.only_use(n - 1) == n and network.layers[n - 1].width > layer.width:
            found[-1] = (n - 1, n)
        else:
            found.append((n,))
    return found


def grouped(network: Network, most: int) -> list[tuple[int, ...]]:
    """Groups of up to so many layers, cut where the fewest numbers cross from one group to others."""
    count = len(network.layers)
    last_uses = [network.last_use(n) for n in range(count)]
    # The best way to group the layers before each `end`: numbers that cross, unevenness, where to cut.
    best: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (0,))]
    for end in range(1, count + 1):
        options = []
        for first in range(max(0, end - most), end):
            crossing, unevenness, cuts = best[first]
            width = sum(network.layers[n].width for n in range(first, end) if last_uses[n] >= end)
            options.append((crossing + width, unevenness + (end - first) ** 2, (*cuts, end)))
        best.append(min(options))
    return [tuple(range(first, end)) for first, end in pairwise(best[count][2])]


def described(network: Network, blocks: Blocks) -> list[str]:
    """A line on each block: its layers, when it is final and what it needs."""
    names = [_name(network, numbers) for numbers in blocks.layers]
    return [f"{name}: {_describe(blocks, b, names)}" for b, name in enumerate(names)]


def _name(network: Network, numbers: Sequence[int]) -> str:
    first, last = (network.layers[n].name for n in (numbers[0], numbers[-1]))
    return first if len(numbers) == 1 else f"{first} to {last}"


def _describe(blocks: Blocks, block: int, names: Sequence[str]) -> str:
    needs = [names[n] for n in sorted(blocks.needs[block])]
    count = len(blocks.layers[block])
    if not blocks.depths[block]:
        when = "computed before the sweeps"
    elif not blocks.is_needed(block):
        when = "computed after the sweeps"
    else:
        when = f"final after {blocks.depths[block]} sweep{'s' * (blocks.depths[block] > 1)}"
    few = ", ".join(needs[:2]) + (f" and {len(needs) - 2} more" if len(needs) > 2 else "")
    return f"{count} layer{'s' * (count > 1)}, {when}{f'; needs {few}' if needs else ''}"
