"""Inputs that change or fail while they are read: the run stops or skips as documented, and says which file."""

import errno
import io
import os
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

if sys.platform == "win32":
    pytest.skip("forks, signals and permissions are POSIX's", allow_module_level=True)

import faults
import torch
from audit_data import make_dataset
from torch.utils.data import DataLoader

import mertools as mt
from mertools.clips import read as clips_module
from mertools.clips.read import clip_frames


@pytest.fixture
def data(tmp_path):
    make_dataset(tmp_path, 2, size=24)
    return tmp_path


def frames_of(data):
    return data / "sub01" / "EP00"


def dataset(data, **options):
    table = mt.read_annotations(data / "codes.csv", "casme2")
    return mt.ClipDataset(mt.apply_protocol(table, "casme2-5"), data, training=True, size=24, **options)


def audited(data):
    return mt.audit_annotations(data / "codes.csv", mt.FrameFolders(data), "casme2", searches=["annotated"])


READERS = {
    "FrameFolder": lambda data, then: _listed(data, then).read(),
    "ClipDataset": lambda data, then: _made(dataset(data), then)[0],
    "read_clip": lambda data, then: _while_listing(then, lambda: mt.read_clip(frames_of(data))),
    "select_keyframes": lambda data, then: _while_listing(then, lambda: mt.select_keyframes(str(frames_of(data)))),
    "published windows": lambda data, then: _while_listing(
        then, lambda: mt.select_keyframes(str(frames_of(data)), onset=5, apex=20, offset=40)
    ),
}


def _listed(data, then):
    found = mt.FrameFolders(data).find(mt.read_annotations(data / "codes.csv", "casme2")[0])
    then()
    return found


def _made(made, then):
    then()
    return made


def _while_listing(then, read):
    """``then`` after the folder has been listed and before its frames are read."""
    listing = clips_module._folder_images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "_folder_images", lambda path: _made(listing(path), then))
        return read()


@pytest.fixture(params=READERS)
def read(request):
    return READERS[request.param]


def each(data):
    """Every frame of the clip: some of them is among those that are read."""
    return sorted(frames_of(data).glob("*.png"))


def test_a_frame_that_disappears_after_it_was_listed(data, read):
    with pytest.raises(FileNotFoundError, match=r"EP00.img\d+\.png"):
        read(data, lambda: [path.unlink() for path in each(data)])


def test_a_folder_that_is_renamed_after_it_was_listed(data, read):
    with pytest.raises(FileNotFoundError, match=r"EP00.img\d+\.png"):
        read(data, lambda: frames_of(data).rename(data / "other"))


def test_a_frame_that_is_cut_off_after_it_was_listed(data, read):
    with pytest.raises(ValueError, match=r"EP00.img\d+\.png"):
        read(data, lambda: [os.truncate(path, path.stat().st_size // 2) for path in each(data)])


def test_a_frame_that_is_replaced_by_one_of_another_size(data):
    def replaced():
        for path in each(data)[1:]:
            cv2.imwrite(str(path), np.zeros((30, 20, 3), np.uint8))

    for name in ("FrameFolder", "read_clip", "select_keyframes"):
        with pytest.raises(ValueError, match=r"EP00.img101\.png is 30x20 and the frames before it are 24x24"):
            READERS[name](data, replaced)
        make_dataset(data / name, 2, size=24)
        data = data / name
    assert dataset(data)[0]["onset"].shape == (3, 24, 24)  # it resizes every frame


def test_an_audit_skips_the_clip_and_says_why(data):
    gone = each(data)
    clean = audited(data)
    folders = mt.FrameFolders(data)
    for path in gone:
        path.unlink()
    found = mt.audit_annotations(data / "codes.csv", folders, "casme2", searches=["annotated"])
    assert "No such file" in found.clips[0].error
    assert "EP00" in found.clips[0].error
    assert found.clips[1].found == clean.clips[1].found


def test_a_folder_that_may_not_be_listed_is_named(data):
    if os.getuid() != 0:
        pytest.skip("to become somebody else takes root")
    clip = mt.read_annotations(data / "codes.csv", "casme2")[0]
    data.chmod(0o755)
    for folder in data.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    frames_of(data).parent.chmod(0o700)

    def look():
        mt.FrameFolders(data).find(clip)

    ended = faults.trial(look, before=faults.as_nobody)
    assert ended.how.startswith("OSError")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", _no_listing(os.scandir, frames_of(data).parent))
        with pytest.raises(
            FileNotFoundError, match=r"1 folders could not be read, the first: .*Permission denied.*sub01"
        ):
            look()


def _no_listing(scandir, folder):
    def listing(path="."):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    return listing


# --- disks that are slow, far away, or failing -----------------------------------------------------------------------


class Disk(io.RawIOBase):
    """A file of which every read gives a few bytes, as over a network, or fails in the middle."""

    def __init__(self, path, number):
        self.file, self.number, self.given = io.FileIO(path), number, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.file.seek(offset, whence)

    def tell(self):
        return self.file.tell()

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()
        super().close()

    def readinto(self, buffer):
        if self.number and (self.given or self.number == errno.EACCES):
            raise OSError(self.number, os.strerror(self.number))
        data = self.file.read(min(len(buffer), 97))
        buffer[: len(data)] = data
        self.given += len(data)
        return len(data)


@pytest.fixture
def disk(monkeypatch):
    """Puts all reading of a folder on such a disk."""

    def put(folder, number=0):
        real = io.open

        def opened(file, mode="r", *args, **words):
            inside = isinstance(file, (str, Path)) and str(file).startswith(str(folder))
            if not inside or set(mode) & set("wax+"):
                return real(file, mode, *args, **words)
            raw = Disk(file, number)
            if "b" in mode:
                return io.BufferedReader(raw, 64)
            words = {name: value for name, value in words.items() if name in ("encoding", "errors", "newline")}
            return io.TextIOWrapper(io.BufferedReader(raw, 64), **words)

        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr("builtins.open", opened)
        monkeypatch.setattr(Path, "open", lambda self, mode="r", buffering=-1, *a, **k: opened(self, mode, *a, **k))

    return put


def everything(data):
    """What the package reads of the folder, by the name of the file."""
    return {
        "img100.png": lambda: mt.read_clip(frames_of(data)).sum().item(),
        "img100.png ": lambda: mt.FrameFolders(data).find(_clip(data)).read().sum().item(),
        "codes.csv": lambda: str(mt.read_annotations(data / "codes.csv", "casme2")),
        "codes.xlsx": lambda: str([clip.onset for clip in mt.read_annotations(data / "codes.xlsx", "casme2")]),
        "AU.txt": lambda: mt.read_au_labels(data / "AU.txt")["1"].tolist(),
        "book.json": lambda: mt.ScoreBook.read_json(data / "book.json").rows,
        "book.csv": lambda: mt.ScoreBook.read_csv(data / "book.csv", classes=("a", "b")).rows,
        "c.pt": lambda: mt.load_checkpoint(data / "c.pt", restore_random=False),
        "w.safetensors": lambda: sorted(mt.load_weights(data / "w.safetensors")),
    }


def _clip(data):
    return mt.ClipAnnotation("casme2", "01", "EP00", 110, 120, 136, folders=("sub01/EP00",))


@pytest.fixture
def written(data):
    faults.book(0).write_json(data / "book.json")
    faults.book(0).write_csv(data / "book.csv")
    mt.write_au_labels(data / "AU.txt", {"1": torch.ones(18)})
    mt.save_checkpoint(data / "c.pt", {"epoch": 3})
    mt.save_weights(data / "w.safetensors", torch.nn.Linear(2, 2))
    (data / "codes.xlsx").write_bytes(faults.table("xlsx").read_bytes())
    return data


def test_short_reads_give_the_same(written, disk):
    expected = {name: read() for name, read in everything(written).items()}
    disk(written)
    assert {name: read() for name, read in everything(written).items()} == expected


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_a_disk_that_fails_in_the_middle_is_an_error_that_names_the_file(written, disk, number):
    disk(written, number)
    for name, read in everything(written).items():
        with pytest.raises((OSError, ValueError), match=rf"(?s){name.strip()}") as caught:
            read()
        assert os.strerror(number) in str(caught.value), name


def test_a_video_that_is_cut_off_while_it_is_read(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (160, 160))
    random = np.random.default_rng(0)
    for _ in range(60):
        writer.write(random.integers(0, 255, (160, 160, 3), np.uint8))
    writer.release()
    frames = clip_frames(path)
    first = next(frames)
    os.truncate(path, path.stat().st_size // 4)
    with pytest.warns(UserWarning, match=r"clip\.avi promises 60 frames but ends after \d+: cut off\?"):
        rest = list(frames)
    assert 0 < len(rest) < 59
    assert rest[0].shape == first.shape


# --- workers that die ------------------------------------------------------------------------------------------------


def test_a_frame_that_disappears_while_a_loader_reads(data):
    """The worker's error reaches the training script, with the file's name."""
    made = dataset(data)
    for path in each(data):
        path.unlink()
    ended = faults.trial(lambda: list(DataLoader(made, num_workers=1)))
    assert re.search(r"(?s)FileNotFoundError.*EP00.img\d+\.png", ended.how + ended.text), ended


class Deadly(torch.utils.data.Dataset):
    """A dataset of which one clip takes its worker along."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.clips[index % 2]


def test_a_worker_that_is_killed_ends_the_epoch(data):
    """The loader says so, and the run folder's checkpoint from before is there."""
    fold = mt.FoldFolder(data / "fold")
    fold.save({"epoch": 4})
    deadly = Deadly(dataset(data))
    # In a process of its own: the loader raises from a signal's handler, sometimes once more when all is over. What it
    # says depends on which of the two it sees first, the signal or the end of the connection.
    ended = faults.trial(lambda: list(DataLoader(deadly, num_workers=1)))
    assert ended.how != "done"
    assert fold.load() == {"epoch": 4}
