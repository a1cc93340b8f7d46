"""Batches of clips, the same whatever number of processes they are shared out to.

``DistributedSampler`` repeats clips to fill up ranks and cuts batches by rank, so that a run on two devices trains on
other batches than a run on one. Here the batches are drawn first and every rank takes its share of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mertools._checks import check_count

__all__ = ["ClipBatches"]


class ClipBatches(Sampler[list[int]]):
    """A ``batch_sampler``: shuffled batches of near-equal size, each shared out among the ranks.

    All clips are drawn once per epoch. There is no small last batch: 17 clips in batches of at most 8 make three
    batches of 6, 6 and 5. With ``shuffle=False`` the clips come in order, for evaluation.

    Args:
        num_clips: how many clips there are.
        batch_size: the largest number of clips of a batch, over all ranks together.
        rank: which share this process takes.
        world: number of processes.
        shuffle: draw an order for each epoch.
        seed: of the order.

    Examples:
        >>> ClipBatches(17, 8, shuffle=False).sizes
        [6, 6, 5]
        >>> list(ClipBatches(17, 8, rank=1, world=2, shuffle=False))[0]
        [1, 3, 5]
    """

    def __init__(
        self, num_clips: int, batch_size: int, *, rank: int = 0, world: int = 1, shuffle: bool = True, seed: int = 0
    ) -> None:
        self.num_clips, self.world = check_count("num_clips", num_clips), check_count("world", world)
        self.rank, self.seed = check_count("rank", rank, least=0), check_count("seed", seed, least=0)
        self.shuffle, self.epoch = shuffle, 0
        if self.rank >= self.world:
            raise ValueError(f"rank must be below world ({world}), got {rank}")
        count = -(-self.num_clips // check_count("batch_size", batch_size))
        # Sizes of all ranks' shares together, batch by batch: what a loss is to be averaged over.
        self.sizes = [len(part) for part in np.array_split(np.arange(self.num_clips), count)]
        if shuffle and self.sizes[-1] < self.world:
            raise ValueError(
                f"batch_size must leave each of the {world} ranks a clip, got {batch_size} for {num_clips} clips: "
                "make it larger or use fewer processes"
            )

    def set_epoch(self, epoch: int) -> None:
        """Draw another order; the same epoch draws the same one."""
        self.epoch = check_count("epoch", epoch, least=0)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.num_clips)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        for part in np.array_split(order, len(self.sizes)):
            share = part[self.rank :: self.world].tolist()
            if share:
                yield share
