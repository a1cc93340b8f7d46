import numpy as np
import pytest

import mertools as mt


@pytest.mark.parametrize(("clips", "size", "world"), [(17, 8, 1), (17, 8, 2), (31, 7, 3), (5, 5, 5), (40, 64, 4)])
def test_the_batches_are_the_same_for_any_number_of_ranks(clips, size, world):
    alone = mt.ClipBatches(clips, size, seed=3)
    alone.set_epoch(2)
    shares = [mt.ClipBatches(clips, size, rank=rank, world=world, seed=3) for rank in range(world)]
    for share in shares:
        share.set_epoch(2)
    whole = list(alone)
    assert [len(batch) for batch in whole] == alone.sizes
    assert max(alone.sizes) <= size
    assert max(alone.sizes) - min(alone.sizes) <= 1
    assert sorted(clip for batch in whole for clip in batch) == list(range(clips))
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(clip for part in parts for clip in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_epoch_draws_its_own_order():
    batches = mt.ClipBatches(30, 8, seed=1)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0)
    assert list(batches) == first
    assert list(mt.ClipBatches(30, 8, seed=2)) != first


def test_in_order_for_evaluation_every_clip_once():
    shares = [mt.ClipBatches(5, 3, rank=rank, world=4, shuffle=False) for rank in range(4)]
    assert sorted(clip for share in shares for batch in share for clip in batch) == list(range(5))
    assert list(shares[3]) == []


def test_bad_settings():
    with pytest.raises(ValueError, match=r"rank must be below world \(2\), got 2"):
        mt.ClipBatches(8, 4, rank=2, world=2)
    with pytest.raises(ValueError, match=r"each of the 4 ranks a clip, got 3 for 9 clips"):
        mt.ClipBatches(9, 3, world=4)
    for name in ("num_clips", "batch_size", "world", "rank", "seed"):
        settings = {"num_clips": 4, "batch_size": 2, name: -1}
        with pytest.raises(ValueError, match=f"{name} must be"):
            mt.ClipBatches(**settings)
    with pytest.raises(ValueError, match="epoch must be"):
        mt.ClipBatches(4, 2).set_epoch(-1)


def test_numbers_of_numpy_are_numbers():
    numbers = {"rank": np.int64(1), "world": np.int32(2), "seed": np.uint8(3)}
    batches = mt.ClipBatches(np.int64(17), np.int16(8), **numbers)
    assert list(batches) == list(mt.ClipBatches(17, 8, rank=1, world=2, seed=3))
    assert {type(value) for value in (batches.num_clips, batches.rank, batches.world, batches.seed)} == {int}
