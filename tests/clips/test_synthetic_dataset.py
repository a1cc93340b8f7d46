import hashlib
import sys

import cv2
import pytest
import torch

import mertools as mt


def contents(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_the_readers_take_it_for_casme2(tmp_path):
    synthetic = mt.synthetic_dataset(tmp_path / "synthetic", subjects=3, clips=2, size=32, num_frames=33)
    table = mt.read_annotations(synthetic.table, synthetic.dataset)
    clips = mt.apply_protocol(table, "megc2019")
    assert clips.counts == {"negative": 6, "positive": 6, "surprise": 6}
    assert sorted(set(clips.subjects)) == ["01", "02", "03"]
    assert table.problems == []
    assert mt.check_dataset(synthetic.table, synthetic.frames, synthetic.dataset).problems == ()
    units = mt.facs_labels(["+".join(clip.action_units) for clip in clips.clips])
    assert sorted({tuple(torch.nonzero(row).flatten().tolist()) for row in units}) == [(0, 1), (2,), (8,)]


def test_the_table_tells_the_truth(tmp_path):
    synthetic = mt.synthetic_dataset(
        tmp_path / "synthetic", subjects=2, clips=1, size=48, noise=0, jitter=0, amplitude=4
    )
    table = mt.read_annotations(synthetic.table, synthetic.dataset)
    found = mt.ClipDataset(mt.apply_protocol(table, "megc2019"), synthetic.frames, training=False, size=48)
    for index in range(len(found)):
        onset, apex, offset = found.key_positions(index)
        folder = mt.FrameFolders(synthetic.frames).find(found.clips[index])
        frames = torch.stack([torch.from_numpy(cv2.imread(f"{folder.path}/{name}")).float() for name in folder.names])
        robust = mt.select_keyframes(frames.permute(0, 3, 1, 2)[None])
        assert abs(int(robust.apex) - apex) <= 3
        assert abs(int(robust.onset) - onset) <= 3
        assert abs(int(robust.offset) - offset) <= 3


def test_the_same_seed_makes_the_same_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mt.synthetic_dataset(tmp_path / name, subjects=2, clips=1, size=32, num_frames=32, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a["annotations.csv"] != c["annotations.csv"]


def test_dfews_layout_has_five_folds_and_keeps_subjects_apart(tmp_path):
    synthetic = mt.synthetic_dataset(tmp_path / "synthetic", layout="dfew", subjects=7, clips=1, size=32, num_frames=32)
    table = mt.read_annotations(synthetic.table, synthetic.dataset)
    folds = mt.fixed_folds(mt.apply_protocol(table, "dfew"))
    assert list(folds) == ["1", "2", "3", "4", "5"]
    clips = mt.apply_protocol(table, "dfew").clips
    person = {f"{number:05}": (number - 1) // 3 for number in range(1, 22)}
    tested = []
    for train, test in folds.values():
        sides = [{person[clips[i].clip] for i in side} for side in (train, test)]
        assert not sides[0] & sides[1]
        tested += [clips[i].clip for i in test]
    assert sorted(tested) == sorted(person)
    assert len(list((synthetic.frames / "00001").iterdir())) == 32


def test_nothing_is_written_over_and_nothing_half(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something"):
        mt.synthetic_dataset(tmp_path / "full")
    module = sys.modules[mt.synthetic_dataset.__module__]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_casme2_table", stop)
    with pytest.raises(KeyboardInterrupt):
        mt.synthetic_dataset(tmp_path / "new", subjects=2, clips=1, size=32, num_frames=32)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match="layout must be one of 'casme2', 'dfew', got 'samm'"):
        mt.synthetic_dataset(tmp_path, layout="samm")
    with pytest.raises(ValueError, match="subjects must be an integer of at least 5"):
        mt.synthetic_dataset(tmp_path, layout="dfew", subjects=4)
    with pytest.raises(ValueError, match="num_frames must be an integer of at least 32"):
        mt.synthetic_dataset(tmp_path, num_frames=31)
    with pytest.raises(ValueError, match="noise must be finite"):
        mt.synthetic_dataset(tmp_path, noise=-1)
    assert list(tmp_path.iterdir()) == []
