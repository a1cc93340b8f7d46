import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mertools as mt
from mertools.annotations.dataset import _FrameCache

CLIPS = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven clips of moving faces, annotated a little off."""
    import cv2

    root = tmp_path_factory.mktemp("frames")
    clips = []
    for i in range(CLIPS):
        made = mt.synthetic_clip(num_frames=60, onset=12, apex=24, offset=46, size=48, noise=1, seed=i)
        folder = root / f"sub{i:02d}" / "EP"
        folder.mkdir(parents=True)
        for k, image in enumerate(made.frames.permute(0, 2, 3, 1).numpy()[..., ::-1]):
            cv2.imwrite(str(folder / f"img{k + 100}.png"), image)
        clips.append(
            mt.ClipAnnotation(
                "casme2", f"{i:02d}", "EP", 111, 130, 149, "disgust", ("disgust",), row=i + 2, table="t.csv",
                folders=(f"sub{i:02d}/EP",),
            )
        )  # fmt: skip
    return clips, root


def make(data, clips=None, **options):
    options = {"training": True, "size": 40, **options}
    return mt.ClipDataset(mt.apply_protocol(clips or data[0], "casme2-5"), data[1], **options)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(torch.as_tensor(a[name]), torch.as_tensor(b[name]), atol=0, rtol=0)


def test_evaluation_is_the_annotation_untouched(data):
    dataset = make(data, training=False, mean=(0, 0, 0), std=(1, 1, 1), size=48)
    frames = mt.read_clip(data[1] / "sub03" / "EP")
    sample = dataset[3]
    assert dataset.key_positions(3) == (11, 30, 49)
    for name, position in (("onset", 11), ("apex", 30), ("offset", 49)):
        torch.testing.assert_close(sample[name], frames[position].float() / 255)
    assert (sample["target"], sample["index"]) == (2, 3)


def test_training_reselects_as_the_selector_does(data):
    dataset = make(data, augment=None, mean=(0, 0, 0), std=(1, 1, 1), size=48)
    frames = mt.read_clip(data[1] / "sub03" / "EP")
    keys = mt.FrameSelector()(frames[None], 11, 30, 49)
    found = tuple(int(key) for key in keys[:3])
    assert dataset.key_positions(3) == found
    assert found != (11, 30, 49)
    torch.testing.assert_close(dataset[3]["apex"], frames[found[1]].float() / 255)


def test_clips_to_leave_alone(data):
    clips = [replace(data[0][0], reselect=False), *data[0][1:]]
    dataset = make(data, clips, leave_alone=[("sub1", "ep")])
    assert [dataset.key_positions(i) == (11, 30, 49) for i in range(3)] == [True, True, False]
    assert make(data, selector=None).key_positions(2) == (11, 30, 49)


def test_when_key_frames_are_reselected(data):
    annotated = (11, 30, 49)
    found = make(data, size=48).key_positions(3)
    assert make(data, size=48, reselect="never").key_positions(3) == annotated
    for training in (True, False):
        assert make(data, size=48, training=training, reselect="always").key_positions(3) == found != annotated
    assert make(data, size=48, training=False).key_positions(3) == annotated
    with pytest.raises(ValueError, match="reselect must be one of 'training', 'always', 'never', got True"):
        make(data, reselect=True)


def test_the_robust_search_as_selector(data):
    dataset = make(data, selector=mt.FrameSelector(refine=True), size=48)
    onset, apex, offset = dataset.key_positions(0)
    assert 0 <= onset < apex <= offset < 60


def test_all_frames_of_a_clip_are_augmented_alike(data):
    twice = [replace(clip, apex=clip.onset) for clip in data[0]]  # the same frame in two places
    dataset = make(data, twice, selector=None, num_frames=None, augment=mt.ClipAugment(padding=5))
    plain = make(data, twice, training=False)
    seen = set()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for i in range(CLIPS):
            sample = dataset[i]
            assert torch.equal(sample["onset"], sample["apex"])
            assert not torch.equal(sample["onset"], plain[i]["onset"])
            seen.add(float(sample["onset"].sum()))
    assert len(seen) == 3 * CLIPS  # and every clip of every epoch differently


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_the_same_whatever_the_workers(data, workers, persistent):
    alone = make(data, motion="flow")
    dataset = make(data, motion="flow")
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=persistent)
    for epoch in (0, 5):
        dataset.set_epoch(epoch)
        alone.set_epoch(epoch)
        for batch in loader:
            for i, index in enumerate(batch["index"].tolist()):
                same({k: v[i] for k, v in batch.items()}, {k: torch.as_tensor(v) for k, v in alone[index].items()})


def test_spawned_workers(data):
    dataset = make(data)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    dataset.set_epoch(3)
    batch = next(iter(loader))
    same({k: v[2] for k, v in batch.items()}, {k: torch.as_tensor(v) for k, v in dataset[2].items()})
    assert dataset._selected[:4, 0].tolist() == [1] * 4  # what a worker selected is known here too


def test_epochs_and_seeds_differ_and_repeat(data):
    dataset, other = make(data), make(data, seed=1)
    first = dataset[0]["onset"]
    assert not torch.equal(first, other[0]["onset"])
    dataset.set_epoch(1)
    assert not torch.equal(first, dataset[0]["onset"])
    dataset.set_epoch(0)
    assert torch.equal(first, dataset[0]["onset"])
    same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


@pytest.mark.parametrize("mode", ["nearest", "linear", "tim"])
def test_clips_of_t_frames(data, mode):
    dataset = make(
        data, training=False, num_frames=11, mode=mode, mean=(0, 0, 0), std=(1, 1, 1), size=48, motion="strain"
    )
    sample = dataset[2]
    assert sample["frames"].shape == (11, 3, 48, 48)
    assert sample["motion"].shape == (11, 3, 48, 48)
    frames = mt.read_clip(data[1] / "sub02" / "EP")[11:50]
    torch.testing.assert_close(sample["frames"], mt.resample_clip(frames, 11, mode=mode).float() / 255)


def test_clips_without_key_frames_are_whole(data):
    bare = [replace(clip, onset=None, apex=None, offset=None) for clip in data[0]]
    dataset = make(data, bare, num_frames=5)
    assert dataset.key_positions(0) == (0, 29, 59)
    assert dataset[0]["frames"].shape == (5, 3, 40, 40)
    with pytest.raises(ValueError, match=r"t.csv, row 2 \(00/EP\): onset and apex and offset missing"):
        make(data, bare)


def test_flow_is_that_of_the_frames(data):
    dataset = make(data, training=False, mean=(0, 0, 0), std=(1, 1, 1), motion="strain")
    sample = dataset[0]
    flow = mt.optical_flow(sample["onset"], sample["apex"])
    torch.testing.assert_close(sample["motion"][:2], flow)
    torch.testing.assert_close(sample["motion"][2], mt.optical_strain(flow))


def test_the_cache_keeps_its_budget_and_changes_nothing(data):
    none, small, large = (make(data, cache_bytes=size) for size in (0, 5 * 40 * 40 * 3, 1 << 30))
    for _ in range(2):
        for i in range(CLIPS):
            same(none[i], small[i])
            same(none[i], large[i])
    assert none._cache.used == 0
    assert small._cache.used == 5 * 40 * 40 * 3
    assert large._cache.used == sum(frame.nbytes for frame in large._cache._kept.values())
    assert isinstance(large._cache, _FrameCache)


def test_cached_frames_are_not_decoded_again(data, monkeypatch):
    import mertools.annotations.dataset

    dataset = make(data)
    first = dataset[0]
    monkeypatch.setattr(mertools.annotations.dataset, "decode_frames", None)
    same(dataset[0], first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apex": None}, r"t.csv, row 2 \(00/EP\): apex missing: repair='apex-midpoint'"),
        ({"apex": 160}, r"onset 111, apex 160, offset 149 are out of order"),
        ({"offset": 170}, r"t.csv, row 2 \(00/EP\): frame 170 is not in"),
    ],
)
def test_rows_that_cannot_be_used_are_named(data, changes, message):
    with pytest.raises(ValueError, match=message):
        make(data, [replace(data[0][0], **changes)])


def test_an_annotation_of_one_frame_is_refused_before_the_first_epoch(data):
    still = [data[0][0], replace(data[0][1], onset=130, apex=130, offset=130)]
    with pytest.raises(ValueError, match=r"t.csv, row 3 \(01/EP\): onset and offset are the same frame, 130"):
        make(data, still)
    for options in (
        {"reselect": "never"},
        {"leave_alone": [("01", "EP")]},
        {"training": False},
        {"num_frames": 5, "selector": None},
    ):
        dataset = make(data, still, **options)
        assert dataset.key_positions(1) == (30, 30, 30)
        assert dataset[1]["target"] == 2
    assert make(data, still, selector=mt.FrameSelector(refine=True)).key_positions(1)[0] < 30  # it looks around


def test_numbers_of_numpy(data):
    options = {"size": 40, "num_frames": 5, "seed": 3, "cache_bytes": 1 << 20}
    dataset = make(data, **{name: np.int64(value) for name, value in options.items()})
    dataset.set_epoch(np.int32(2))
    same(dataset[np.int64(1)], (lambda other: other.set_epoch(2) or other[1])(make(data, **options)))
    assert isinstance(dataset.epoch, int)
    assert make(data, size=(np.int64(40), np.int16(40)))[np.int8(-1)]["onset"].shape == (3, 40, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be"),
        ({"num_frames": 0}, "num_frames must be"),
        ({"motion": "tvl1"}, "motion must be one of"),
        ({"mode": "best"}, "mode must be one of"),
        ({"size": (3,)}, "size must be"),
        ({"mean": (1, 2)}, "mean must be three numbers"),
        ({"std": (1, 0, 1)}, "std must be positive"),
        ({"cache_bytes": -1}, "cache_bytes must be"),
    ],
)
def test_bad_options(data, options, message):
    with pytest.raises(ValueError, match=message):
        make(data, **options)


def test_plain_annotations_are_refused(data):
    with pytest.raises(TypeError, match="what apply_protocol returns, got list"):
        mt.ClipDataset(data[0], data[1], training=True)
    with pytest.raises(IndexError, match="within the 7 clips, got 7"):
        make(data)[7]
    assert make(data)[-1]["index"] == 6
