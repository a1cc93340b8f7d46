"""Several processes at one run folder, outputs of audits and of the command line, spoilt journals."""

import copy
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("links, pipes and permissions are POSIX's", allow_module_level=True)

import faults
from audit_data import make_dataset

import mertools as mt
from mertools.audit.journal import Journal
from mertools.cli import main


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- run folders ------------------------------------------------------------------------------------------------------

HOLD = """
import sys
import mertools as mt
run = mt.RunFolder(sys.argv[1])
run.begin({"lr": 0.1}, resume=True)
run.fold("s1").save({"epoch": 3})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_kept_out_of_a_run_until_the_first_is_dead(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        run = mt.RunFolder(tmp_path / "run")
        with pytest.raises(RuntimeError, match=r"run is in use by another process: two runs .* would mix"):
            run.begin({"lr": 0.1}, resume=True)
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    run.begin({"lr": 0.1}, resume=True)
    assert run.fold("s1").load() == {"epoch": 3}
    run.finish(faults.book(0))


def test_one_process_may_begin_a_run_again(tmp_path):
    first, second = mt.RunFolder(tmp_path / "run"), mt.RunFolder(tmp_path / "run")
    first.begin({"lr": 0.1})
    second.begin({"lr": 0.1}, resume=True)  # a notebook's cell run twice
    with pytest.raises(ValueError, match="other settings"):
        mt.RunFolder(tmp_path / "run").begin({"lr": 0.2}, resume=True)
    for other in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert other.path == first.path


# --- audits ----------------------------------------------------------------------------------------------------------


JOB = sys.modules["mertools.audit.run"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_dataset(root, 3)
    return root


def audit(data, out, **options):
    options = {"searches": ["annotated"], "correct": "annotated", **options}
    return mt.audit_table(data / "codes.csv", "casme2", data, out, **options)


def test_an_audit_looks_at_its_outputs_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(JOB, "audit_clips", lambda *_, **__: pytest.fail("hours of work"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        audit(data, tmp_path / "folder.csv")
    (tmp_path / "lost.csv").symlink_to(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        audit(data, tmp_path / "lost.csv")
    (tmp_path / "pages").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="report must be a folder, .* is a link to"):
        audit(data, tmp_path / "a.csv", report=tmp_path / "pages")
    (tmp_path / "other" / "index.html").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="index.html is a folder"):
        audit(data, tmp_path / "a.csv", report=tmp_path / "other")


def test_a_report_is_not_written_over_the_table(data, tmp_path):
    for name in ("clips.csv", "groups.csv", "tests.csv", "components.csv"):
        table = tmp_path / name
        table.write_bytes((data / "codes.csv").read_bytes())
        with pytest.raises(ValueError, match=f"report must be another folder: its {name} would be written over table"):
            mt.audit_table(table, "casme2", data, tmp_path / "a.csv", report=tmp_path)
        assert table.read_bytes() == (data / "codes.csv").read_bytes()
        table.unlink()
    with pytest.raises(ValueError, match=r"its clips.csv would be written over out"):
        audit(data, tmp_path / "clips.csv", report=tmp_path)


SPOILT = [
    b"\0" * 40, b"\xff\xfe", b"", b"[1, 2]", b'{"clip": 1}', b'{"clip": 1, "annotated": [3]}', b'{"clip": 1, "anno',
    b'{"clip": "x", "annotated": [1, 2, 3]}', b'{"robust": 1}', b'{"clip": 1, "robust": [1, 2, 3]}',
    b"{}", b'{"clip": 1, "annotated": "abc"}', b"\\",
]  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_line_of_a_journal_is_no_result(tmp_path, spoilt):
    work = tmp_path / "work"
    work.mkdir()
    good = [b'{"run": "a"}', b'{"clip": 0, "annotated": [1, 2, 3]}', spoilt, b'{"clip": 2, "error": "no frames"}', b""]
    (work / "journal.jsonl").write_bytes(b"\n".join(good))
    with Journal(work, "a") as journal:
        found = {clip: result for clip, result in journal.done.items() if result.keys() != {"robust"} and result}
        assert found == {0: {"annotated": [1, 2, 3]}, 2: {"error": "no frames"}}


def test_a_journal_with_spoilt_lines_searches_those_clips_again(data, tmp_path, monkeypatch):
    from mertools.audit import run as module

    monkeypatch.setattr("mertools.audit.results.write_report", lambda *_, **__: None)  # whose resampling takes seconds
    clean = audit(data, tmp_path / "clean.csv").out.read_bytes()
    journal, searched, search = tmp_path / ".out.csv.audit" / "journal.jsonl", [], module.search_clip
    monkeypatch.setattr(module, "search_clip", lambda task: searched.append(task.which) or search(task))
    with monkeypatch.context() as full:
        full.setattr(JOB, "write_corrected", lambda *_: faults.fail(28)())
        with pytest.raises(OSError, match="No space"):
            audit(data, tmp_path / "out.csv")
        lines = journal.read_bytes().splitlines(keepends=True)
        assert len(lines) == 4
        journal.write_bytes(b"".join((*lines[:2], *(spoilt + b"\n" for spoilt in SPOILT), lines[3])))
        searched.clear()
        with pytest.raises(OSError, match="No space"):
            audit(data, tmp_path / "out.csv")
        assert searched == [1]
    assert audit(data, tmp_path / "out.csv").out.read_bytes() == clean
    assert not journal.parent.exists()


def test_a_disk_that_is_full_does_not_lock_the_journal_up(tmp_path, monkeypatch):
    """After an error the same process may go on: nothing half written, and the lock given back."""
    from mertools.audit import journal as audit_journal

    def run():
        with Journal(tmp_path / "work", "a") as journal:
            journal.add(0, {"robust": [1, 2, 3]})
            monkeypatch.setattr(audit_journal, "append_line", lambda *_: faults.fail(28)())
            journal.add(1, {"robust": [1, 2, 3]})

    with pytest.raises(OSError, match="No space"):
        run()
    monkeypatch.undo()
    with Journal(tmp_path / "work", "a") as journal:
        assert journal.done == {0: {"robust": [1, 2, 3]}}


@pytest.mark.parametrize("source", ["csv", "xlsx"])
def test_a_clock_that_has_lost_its_time(tmp_path, monkeypatch, source):
    """Of a machine without a battery: zip files, and so xlsx, know no time before 1980."""
    write = faults.corrected(source, "xlsx")
    write(tmp_path, 0)
    expected = (tmp_path / "out.xlsx").read_bytes()
    local = time.localtime
    monkeypatch.setattr(time, "localtime", lambda *_: local(0))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (tmp_path / "out.xlsx").unlink()
    write(tmp_path, 0)
    assert (tmp_path / "out.xlsx").read_bytes() == expected


# --- the command line ------------------------------------------------------------------------------------------------


def test_a_figure_is_not_written_over_the_clip_or_among_its_frames(data, tmp_path, capsys):
    clip = tmp_path / "clip"
    clip.write_bytes(b"a video")
    assert main(["select", str(clip), "--plot", str(clip)]) == 2
    assert "is the clip itself" in capsys.readouterr().err
    assert clip.read_bytes() == b"a video"
    frames = data / "sub01" / "EP00"
    before = names_in(frames)
    assert main(["select", str(frames), "--plot", str(frames / "keys1.png")]) == 2
    assert "among the frames of the clip" in capsys.readouterr().err
    assert names_in(frames) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_is_full_is_one_line(data, capsys, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["select", str(data / "sub01" / "EP00"), "--json"]) == 2
        monkeypatch.undo()
    assert capsys.readouterr().err == "mertools: error: the output could not be written: No space left on device\n"
