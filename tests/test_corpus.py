"""Rows of a corpus: one per clip, whatever is wrong with it and whoever dies on the way."""

import importlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import mertools as mt

SCRIPT = Path(__file__).parents[1] / "examples" / "corpus.py"


@pytest.fixture
def corpus(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("corpus")


def write_clip(folder, seed=0):
    folder.mkdir(parents=True)
    made = mt.synthetic_clip(num_frames=12, onset=2 + seed % 3, apex=6, offset=10, hold=0, size=32, seed=seed)
    for i, frame in enumerate(made.frames):
        cv2.imwrite(str(folder / f"img{i}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1])
    return folder


def settings(tmp_path, tries=2):
    return {"root": str(tmp_path), "out": str(tmp_path / "rows"), "memory": 2**24, "tries": tries}


@pytest.fixture
def written(corpus, monkeypatch):
    """What would be written, by shard: Parquet needs the extra."""
    rows = {}
    monkeypatch.setattr(corpus, "write_rows", lambda path, new: rows.__setitem__(path.stem, list(new)))
    return rows


def test_clips_of_a_folder(corpus, tmp_path):
    write_clip(tmp_path / "b" / "clip10"), write_clip(tmp_path / "a")
    (tmp_path / "b" / "x.MP4").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("no clip")
    (tmp_path / "b" / ".hidden.mp4").write_text("no clip")
    assert corpus.find_clips(tmp_path) == (tmp_path, ["a", "b/clip10", "b/x.MP4"])


def test_clips_of_a_list(corpus, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("b\n\na\n")
    assert corpus.find_clips(path) == (tmp_path, ["b", "a"])
    path.write_text("b\na\nb\n")
    with pytest.raises(ValueError, match=r"must list every clip once, got 'b' \(1 are there more often\)"):
        corpus.find_clips(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="lists no clip"):
        corpus.find_clips(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds neither videos"):
        corpus.find_clips(tmp_path / "empty")


def test_every_clip_is_in_one_shard(corpus):
    clips = [f"c{i}" for i in range(11)]
    shards = corpus.cut(clips, 3)
    assert [clip for shard in shards for clip in shard["clips"]] == clips
    assert len({shard["name"] for shard in shards}) == len(shards) == 4


def test_the_row_is_what_the_search_says(corpus, tmp_path):
    clip = write_clip(tmp_path / "clip")
    row = corpus.search(str(tmp_path), "clip", 2**24)
    keys = mt.select_keyframes(clip)
    assert [row["onset"], row["apex"], row["offset"], row["score"]] == [float(x) for x in keys[:4]]
    assert set(row) == set(corpus.COLUMNS)
    assert row["error"] is None
    assert row["seconds"] > 0


def test_a_row_for_what_can_not_be_read(corpus, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    one = write_clip(tmp_path / "one")
    for image in sorted(one.iterdir())[1:]:
        image.unlink()
    for clip, reason in {
        "gone": "FileNotFoundError: .*nothing at",
        "empty.mp4": "ValueError: .*empty file",
        "one": "2",
    }.items():
        row = corpus.search(str(tmp_path), clip, 2**24)
        assert re.search(reason, row["error"])
        assert row["clip"] == clip
        assert row["onset"] is row["score"] is None


def test_a_bug_costs_one_row_and_warnings_are_kept(corpus, tmp_path, monkeypatch):
    def broken(*_, **__):
        import warnings

        warnings.warn("the clip ends early", stacklevel=1)
        raise KeyError("x")

    monkeypatch.setattr(mt, "select_keyframes", broken)
    row = corpus.search(str(tmp_path), "clip", 2**24)
    assert (row["error"], row["remark"]) == ("unexpected KeyError: 'x'", "the clip ends early")


def test_a_shard_goes_on_where_it_was(corpus, tmp_path, written, monkeypatch):
    """The first try dies in the third clip; the second does that one and the rest."""
    searched = []

    def search(root, clip, memory):
        searched.append(clip)
        if searched == ["a", "b", "c"]:
            raise KeyboardInterrupt  # what no row catches
        return {**dict.fromkeys(corpus.COLUMNS), "clip": clip, "onset": len(searched)}

    monkeypatch.setattr(corpus, "search", search)
    shard = {"name": "0", "clips": list("abcde")}
    with pytest.raises(KeyboardInterrupt):
        corpus.search_shard(shard, settings(tmp_path))
    assert not written
    journal = tmp_path / "rows" / corpus.WORK / "0.jsonl"
    with journal.open("a") as file:
        file.write('\n{"clip": 3, "ro')  # half a line, as a killed process leaves it
    assert corpus.search_shard(shard, settings(tmp_path)) == {"clips": 5, "again": 1}
    assert searched == list("abccde")
    assert [(row["clip"], row["onset"]) for row in written["0"]] == [("a", 1), ("b", 2), ("c", 4), ("d", 5), ("e", 6)]
    assert not journal.exists()


def _search_and_die(folder, tries):
    sys.path.insert(0, str(SCRIPT.parent))
    corpus = importlib.import_module("corpus")
    rows = Path(folder, "rows.json")
    corpus.write_rows = lambda path, new: rows.write_text(json.dumps(new))
    corpus.mt.select_keyframes = lambda path, **_: os._exit(9) if path.endswith("b") else 1 / 0
    corpus.search_shard({"name": "0", "clips": list("abc")}, settings(Path(folder), tries))


def test_a_clip_that_takes_its_process_along_gets_a_row(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    for code in (9, 9, 9, 0):
        process = spawn.Process(target=_search_and_die, args=(str(tmp_path), 3))
        process.start()
        process.join()
        assert process.exitcode == code
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["clip"] for row in rows] == list("abc")
    assert rows[1]["error"].startswith("the process died 3 times while it searched this clip")
    assert rows[2]["error"].startswith("unexpected ZeroDivisionError")


def test_rows_of_another_run_are_not_mixed_in(corpus, tmp_path):
    out = tmp_path / "rows"
    corpus.claim(out, ["a", "b"], shard=2)
    corpus.claim(out, ["a", "b"], shard=2)
    with pytest.raises(ValueError, match=r"holds another run \(other names\): repeat that, or use another --out"):
        corpus.claim(out, ["a", "c"], shard=2)
    with pytest.raises(ValueError, match=r"other shard"):
        corpus.claim(out, ["a", "b"], shard=3)
    with pytest.raises(ValueError, match="holds something else"):
        corpus.claim(tmp_path, ["a"], shard=2)


def test_wrong_arguments(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "--out", str(tmp_path / "rows"), "--workers", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "corpus: error: --workers must be at least 1, got 0\n"


# --- with Ray ---------------------------------------------------------------------------------------------------------


def start(listing, out):
    command = [sys.executable, str(SCRIPT), str(listing), "--out", str(out), "--workers", "1", "--shard", "5"]
    environ = os.environ | {"RAY_worker_niceness": "0"}  # Ray lets its workers wait for everybody else's processes
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def wait_for_clip(corpus, out, shard, clip):
    """The process that has begun the clip and not finished it."""
    path = out / corpus.WORK / f"{shard:08d}.jsonl"
    while True:
        if path.exists():
            entries = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            if entries and entries[-1].get("begun") == clip:
                return entries[-1]["process"]
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_and_then_the_driver_are_killed(corpus, tmp_path):
    """A pipe in the place of an image holds the search up at a known clip, so that it can be killed right there."""
    pytest.importorskip("ray", reason="Ray Data is not installed (extra 'ray')")
    import pyarrow.parquet as pq

    names = [f"clip{i}" for i in range(12)]
    for i, name in enumerate(names):
        write_clip(tmp_path / name, seed=i)
    (tmp_path / "clip9" / "img3.png").write_bytes(b"no image")
    listing, out = tmp_path / "list.txt", tmp_path / "rows"
    listing.write_text("\n".join(names))
    held = {i: tmp_path / f"clip{i}" / "img5.png" for i in (2, 7)}
    images = {i: path.read_bytes() for i, path in held.items()}
    for path in held.values():
        path.unlink()
        os.mkfifo(path)

    def release(i):
        held[i].unlink()
        held[i].write_bytes(images[i])

    process = start(listing, out)
    try:
        worker = wait_for_clip(corpus, out, shard=0, clip=2)
        release(2)
        os.kill(worker, signal.SIGKILL)
        wait_for_clip(corpus, out, shard=1, clip=2)
        assert (out / "00000000.parquet").exists()
    finally:
        process.kill()
        process.communicate()
    release(7)
    again = start(listing, out)
    printed, error = again.communicate()
    assert again.returncode == 0, error
    assert "12 clips in 3 shards, 2 to do" in printed
    assert "12 rows, 1 of them with an error; 1 clips were begun again" in printed

    rows = [row for k in range(3) for row in pq.read_table(out / f"{k:08d}.parquet").to_pylist()]
    assert [row["clip"] for row in rows] == names
    for row, expected in zip(rows, (corpus.search(str(tmp_path), name, 2**29) for name in names), strict=True):
        del row["seconds"], expected["seconds"]
        assert row == expected
    assert rows[9]["error"].startswith("ValueError: path holds an image that can't be decoded")
    assert not list((out / corpus.WORK).iterdir())
