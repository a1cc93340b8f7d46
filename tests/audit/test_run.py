"""Audits of annotations and of tables, and the command line."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from audit_data import make_dataset

import mertools as mt
from mertools.audit.journal import Journal, fingerprint
from mertools.audit.run import AuditOptions, prepare
from mertools.cli import main

COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    truth = make_dataset(root, COUNT)
    return mt.read_annotations(root / "codes.csv", "casme2"), root, truth


@pytest.fixture(scope="module")
def audit(data):
    return mt.audit_annotations(data[0], data[1])


def test_each_search_is_select_keyframes_on_the_frames(data, audit):
    clips, root, _ = data
    for entry, clip in zip(audit.clips, clips, strict=True):
        assert not entry.error
        first, last = max(clip.onset - 16, 100), min(clip.offset + 16, 151)  # the margin: 16 frames are over a half
        frames = mt.read_clip(root / f"sub{clip.subject}" / clip.clip, start=first - 100, stop=last - 99)[None]
        keys = [number - first for number in (clip.onset, clip.apex, clip.offset)]
        for name, refine in (("annotated", False), ("robust", True)):
            expected = mt.select_keyframes(frames, *keys, refine=refine)
            wanted = [int(key) for key in expected[:3]]
            if refine:  # an annotation inside the interval stays as it is
                widths = [int(width + 0.5) + 1 for width in expected.spread[0].tolist()]
                stay = [abs(k - w) <= width for k, w, width in zip(keys, wanted, widths, strict=True)]
                stay[1] |= entry.found[name][1] == clip.apex  # on the plateau
                wanted = [k if same else w for k, w, same in zip(keys, wanted, stay, strict=True)]
            assert entry.found[name] == tuple(key + first for key in wanted)


def test_the_annotated_search_alone_reads_its_windows_only(data, audit, monkeypatch):
    import mertools.audit.search as search

    read = []
    decode = search.decode_frames

    def counted(files, **options):
        read.extend(files)
        return decode(files, **options)

    monkeypatch.setattr(search, "decode_frames", counted)
    alone = mt.audit_annotations(data[0], data[1], searches=["annotated"])
    assert [e.found["annotated"] for e in alone.clips] == [e.found["annotated"] for e in audit.clips]
    assert len(read) < 12 * len(data[0])


def test_windows_of_a_selector(data):
    wide = mt.audit_annotations(data[0], data[1], searches=["annotated"], selector=mt.FrameSelector.preset("wide"))
    clip, entry = data[0][0], wide.clips[0]
    frames = mt.read_clip(data[1] / "sub01" / "EP00")[None]
    expected = mt.FrameSelector.preset("wide")(frames, clip.onset - 100, clip.apex - 100, clip.offset - 100)
    assert entry.found["annotated"] == tuple(int(key) + 100 for key in expected[:3])


def test_workers_find_the_same(data, audit):
    shared = mt.audit_annotations(data[0], data[1], workers=2)
    assert [e.found for e in shared.clips] == [e.found for e in audit.clips]


def test_only_what_lies_near_the_annotation_is_read(data):
    folders = mt.FrameFolders(data[1])
    clip = replace(data[0][0], onset=110, apex=115, offset=120)
    task, keys = prepare(0, clip, folders, AuditOptions(margin=0))
    assert (task.numbers[0], task.numbers[-1], task.keys, keys) == (110, 120, (0, 5, 10), (110, 115, 120))
    task, _ = prepare(0, clip, folders, AuditOptions(margin=0.5))
    assert (task.numbers[0], task.numbers[-1]) == (100, 136)  # 16 frames on either side, where there are so many


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"onset": None}, "onset is missing"),
        ({"offset": None}, "offset is missing"),
        ({"apex": 190}, r"are out of order"),
        ({"offset": 199}, "frame 199 is not in"),
        ({"folders": ("nowhere",)}, "no folder of frames"),
    ],
)
def test_a_clip_that_cannot_be_searched_is_skipped_with_its_reason(data, changes, error):
    clips = [replace(data[0][0], **changes), data[0][1]]
    audit = mt.audit_annotations(clips, data[1], searches=["annotated"])
    assert len(audit.searched) == 1
    assert error in audit.skipped[0].error
    assert [c.clip for c in audit.corrected()] == [c.clip for c in clips]
    assert audit.corrected()[0] == clips[0]


def test_an_image_that_cannot_be_decoded(data, tmp_path):
    make_dataset(tmp_path, 2)
    (tmp_path / "sub01" / "EP00" / "img112.png").write_bytes(b"broken")
    clips = mt.read_annotations(tmp_path / "codes.csv", "casme2")
    audit = mt.audit_annotations(clips, tmp_path)
    assert [entry.clip.clip for entry in audit.skipped] == ["EP00"]
    assert "img112.png can't be decoded" in audit.skipped[0].error


def test_resuming_does_not_do_again_what_is_done(data, audit, tmp_path):
    clips, root, _ = data
    identity = fingerprint(clips, mt.FrameFolders(root).name, repr(AuditOptions()), mt.__version__)
    sure = {
        "keys": [104, 105, 106], "estimate": [104, 107, 106], "evidence": 0.75, "spread": [1.0, 0.0, 2.5],
        "intervals": [[103, 105], [104, 108], [104, 108]], "plateau": [106, 107],
    }  # fmt: skip
    with Journal(tmp_path / "work", identity) as journal:
        journal.add(3, {"annotated": [101, 102, 103], "robust": sure})
        journal.add(4, {"annotated": [101, 102, 103], "robust": [104, 105, 106]})  # as a journal was once written
        journal.add(5, {"error": "the disk was away"})
    again = mt.audit_annotations(clips, root, work=tmp_path / "work")
    assert again.clips[3].found == {"annotated": (101, 102, 103), "robust": (104, 105, 106)}
    assert again.clips[3].certainty == {
        "robust": ((104, 107, 106), 0.75, (1.0, 0.0, 2.5), ((103, 105), (104, 108), (104, 108)), (106, 107))
    }
    assert [again.clips[i] for i in (4, 5)] == [audit.clips[i] for i in (4, 5)]
    assert not (tmp_path / "work").exists()


def test_a_journal_written_before_intervals_is_refused(data, tmp_path, monkeypatch):
    clips, root, _ = data
    monkeypatch.setattr("mertools.audit.journal._FORMAT", 1)
    identity = fingerprint(clips, mt.FrameFolders(root).name, repr(AuditOptions()), mt.__version__)
    monkeypatch.undo()
    with Journal(tmp_path / "work", identity) as journal:
        journal.add(0, {"annotated": [101, 102, 103], "robust": [104, 105, 106]})
    with pytest.raises(ValueError, match="unfinished run of another table, folder of frames, version"):
        mt.audit_annotations(clips, root, work=tmp_path / "work")


def test_another_run_s_journal_is_refused(data, tmp_path):
    clips, root, _ = data
    with Journal(tmp_path / "work", "another") as journal:
        journal.add(0, {})
    with pytest.raises(ValueError, match="unfinished run of another table"):
        mt.audit_annotations(clips, root, work=tmp_path / "work")
    audit = mt.audit_annotations(clips, root, searches=["annotated"], work=tmp_path / "work", restart=True)
    assert len(audit.searched) == COUNT


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"searches": []}, ValueError, "searches must be some of annotated, robust"),
        ({"searches": ["best"]}, ValueError, "searches must be one of"),
        ({"margin": -1}, ValueError, "margin must be"),
        ({"longest": 3}, ValueError, "longest must be at least 16"),
        ({"threshold": "a"}, TypeError, "threshold must be"),
        ({"longest": 40.5}, ValueError, "longest must be at least 16"),
        ({"workers": -1}, ValueError, "workers must be"),
        ({"workers": 1.5}, ValueError, "workers must be"),
        ({"selector": 3}, TypeError, "selector must be a FrameSelector"),
        ({"selector": mt.FrameSelector(distance=torch.cdist)}, ValueError, "l2 distance"),
        (
            {"selector": mt.FrameSelector(refine=True)},
            ValueError,
            r'selector must have refine=False.*searches=\["robust"\]',
        ),
    ],
)
def test_bad_options(data, options, kind, message):
    with pytest.raises(kind, match=message):
        mt.audit_annotations(data[0], data[1], **options)


def test_numbers_of_numpy_are_numbers(data, audit, tmp_path):
    numbers = {
        "margin": np.float32(0.5),
        "longest": np.int64(256),
        "threshold": np.float64(0.1),
        "workers": np.int32(0),
    }
    found = mt.audit_annotations(data[0][:2], data[1], work=tmp_path / "work", **numbers)
    assert [entry.found for entry in found.clips] == [entry.found for entry in audit.clips[:2]]
    assert repr(AuditOptions.checked(("robust",), None, *list(numbers.values()))) == repr(AuditOptions(("robust",)))


def test_nothing_to_audit(data, tmp_path):
    with pytest.raises(ValueError, match="holds no annotations"):
        mt.audit_annotations([], data[1])
    with pytest.raises(ValueError, match="dataset must be given"):
        mt.audit_annotations(data[1] / "codes.csv", data[1])
    bare = [mt.ClipAnnotation("dfew", "", "00001", label="happy")]
    with pytest.raises(ValueError, match="no key frames to audit"):
        mt.audit_annotations(bare, data[1])
    assert len(mt.audit_annotations(data[1] / "codes.csv", data[1], "casme2", searches=["annotated"])) == COUNT


def test_a_progress_bar_needs_tqdm(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="a progress bar needs tqdm"):
        mt.audit_annotations(data[0], data[1], progress=True)


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return mt.audit_table(data[1] / "codes.csv", "casme2", data[1], out / "corrected.csv"), out


def command(root, out, *options):
    arguments = [str(root / "codes.csv"), "--dataset", "casme2", "--frames", str(root), "--out", str(out), *options]
    return ["audit", *arguments]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_it_writes(data, done):
    audited, out = done
    assert sorted(files(out)) == [
        "corrected-report/clips.csv", "corrected-report/components.csv", "corrected-report/groups.csv",
        "corrected-report/index.html", "corrected-report/tests.csv", "corrected.csv",
    ]  # fmt: skip
    assert len(audited.audit.searched) == COUNT
    clips = mt.read_annotations(audited.out, "casme2")
    for clip, entry in zip(clips, audited.audit.clips, strict=True):
        assert (clip.onset, clip.apex, clip.offset) == entry.found["robust"]
    with audited.out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["OffsetFrame (annotated)"]) for row in rows] == [e.keys[2] for e in audited.audit.clips]
    for row, entry in zip(rows, audited.audit.clips, strict=True):
        sure = entry.certainty["robust"]
        for i, key in enumerate(("Onset", "Apex", "Offset")):
            told = [int(row[f"{key}Frame ({part})"]) for part in ("estimate", "earliest", "latest")]
            assert told == [sure.estimate[i], *sure.intervals[i]]
            assert told[1] <= told[0] <= told[2]
            kept = sure.intervals[i][0] <= entry.keys[i] <= sure.intervals[i][1]
            assert entry.found["robust"][i] == (entry.keys[i] if kept else sure.estimate[i])
        assert float(row["Evidence (search)"]) == pytest.approx(sure.evidence, abs=1e-4)


def test_the_corrected_table_is_closer_to_the_truth(data, done):
    audited, _ = done
    told = np.array([entry.keys for entry in audited.audit.clips])
    found = np.array([entry.found["robust"] for entry in audited.audit.clips])
    assert np.abs(found - data[2])[:, 2].mean() < np.abs(told - data[2])[:, 2].mean()


def test_the_report_is_self_contained(done):
    page = (done[0].report / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("data:image", "")
    moved = sum(any(entry.shift("robust")) for entry in done[0].audit.clips)
    assert 0 < moved < COUNT
    assert page.count("<figure>") == moved
    assert page.count("<img") >= 3 + moved
    for word in ("uncertain offset", "How far key frames move", "By label", "By subject", "Wilcoxon", "move most"):
        assert word in page
    assert 'name=viewport content="width=device-width' in page


def test_the_command_line(data, tmp_path, capsys):
    assert main(command(data[1], tmp_path / "new.xlsx", "--report", str(tmp_path / "pages"), "--workers", "2")) == 0
    said = capsys.readouterr()
    assert f"{COUNT} clips searched, 0 skipped" in said.out
    assert re.search(
        r"offset: mean \|shift\| [\d.]+ frames, median [+-][\d.]+; uncertain in \d+ % of 12 clips", said.out
    )
    assert str(tmp_path / "pages" / "index.html") in said.out
    assert "audit" in said.err  # the progress bar
    clips = mt.read_annotations(tmp_path / "new.xlsx", "casme2")
    assert len(clips) == COUNT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.xlsx", "pages"]


def test_options_of_the_command_line(data, tmp_path, capsys):
    options = ("--search", "annotated", "--preset", "wide", "--repair", "drop", "--workers", "0")
    assert main(command(data[1], tmp_path / "new.csv", *options)) == 0
    assert "(annotated search)" in capsys.readouterr().out


def test_broken_clips_are_reported_and_skipped(tmp_path, capsys):
    make_dataset(tmp_path, 4)
    (tmp_path / "sub02" / "EP01" / "img115.png").write_bytes(b"")
    text = (tmp_path / "codes.csv").read_text().splitlines()
    row = text[4].split(",")
    text[4] = ",".join([*row[:3], "/", *row[4:]])
    text.append("1,EP99,5,6,7,4,disgust")
    (tmp_path / "codes.csv").write_text("\n".join(text) + "\n")
    assert main(command(tmp_path, tmp_path / "new.csv", "--workers", "0")) == 0
    said = capsys.readouterr()
    assert "3 clips searched, 2 skipped" in said.out
    assert re.search(r"skipped: .*codes.csv, row 3 \(02/EP01\): .*img115.png can't be decoded", said.err)
    assert re.search(r"skipped: .*codes.csv, row 6 \(01/EP99\): .*no folder of frames", said.err)
    page = (tmp_path / "new-report" / "index.html").read_text()
    assert "Skipped clips" in page
    assert "EP99" in page
    rows = (tmp_path / "new.csv").read_text().splitlines()
    assert rows[2].split(",")[2:5] == rows[2].split(",")[7:10]  # a skipped clip keeps its key frames
    assert rows[4].split(",")[7:10][1] == "/"


def test_repairs_are_said(tmp_path, capsys):
    make_dataset(tmp_path, 2)
    text = (tmp_path / "codes.csv").read_text().splitlines()
    row = text[1].split(",")
    (tmp_path / "codes.csv").write_text("\n".join([text[0], ",".join([*row[:3], "/", *row[4:]]), text[2]]) + "\n")
    main(command(tmp_path, tmp_path / "new.csv", "--repair", "apex-midpoint", "--workers", "0"))
    assert re.search(r"repaired: .*codes.csv, row 2 \(01/EP00\): apex / -> \d+", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--dataset": "casme9"}, "dataset must be one of"),
        ({"--dataset": "smic"}, "12 of 12 rows are named as those of casme2"),
        ({"--frames": "nowhere"}, "frames must be the folder"),
        ({"--out": "nowhere/x.xlsx"}, "existing folder"),
        ({"--out": "x.txt"}, "out must be an .xlsx or .csv"),
    ],
)
def test_errors_are_one_line(data, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    arguments = command(data[1], tmp_path / "new.csv")
    for name, value in change.items():
        arguments[arguments.index(name) + 1] = value
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.startswith("mertools: error: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def start(root, out, lines=None, end="os.kill(os.getpid(), signal.SIGKILL)"):
    """The command in processes of its own, ended when its journal has so many lines."""
    code = f"""
import multiprocessing, os, signal, sys
from mertools.audit.journal import Journal
from mertools.cli import main
add = Journal.add
def noted(journal, index, result):
    add(journal, index, result)
    if len(journal.done) == {lines}:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        {end}
Journal.add = noted
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it
    sys.exit(main(sys.argv[1:]))
"""
    script = out.with_name("command.py")
    script.write_text(code)
    words = [sys.executable, str(script), *command(root, out, "--workers", "1")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    script.unlink()
    return done


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # ended, but not fetched
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
def test_killed_half_way_and_started_again(data, done, tmp_path):
    out = tmp_path / "corrected.csv"
    killed = start(data[1], out, lines=4)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    workers = [int(pid) for pid in killed.stdout.split()]
    assert workers
    while any(alive(pid) for pid in workers):  # they notice that their parent is gone
        time.sleep(0.05)
    journal = tmp_path / ".corrected.csv.audit" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 4
    again = start(data[1], out)
    assert again.returncode == 0, again.stderr
    assert re.search(rf"\b4/{COUNT}", again.stderr)  # the bar starts where the first run ended
    assert files(tmp_path) == files(done[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals to a group of processes")
def test_ctrl_c_ends_it_and_the_same_command_goes_on(data, done, tmp_path):
    """A terminal sends it to all processes: the workers leave it to their parent."""
    out = tmp_path / "corrected.csv"
    stopped = start(data[1], out, lines=4, end="os.killpg(0, signal.SIGINT)")
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == "mertools: stopped; the same command goes on from here"
    assert "Traceback" not in stopped.stderr
    assert not any(alive(int(pid)) for pid in stopped.stdout.split())
    assert not out.exists()
    again = start(data[1], out)
    assert again.returncode == 0, again.stderr
    assert files(tmp_path) == files(done[1])


def test_two_runs_on_one_output(data, tmp_path, capsys):
    with Journal(tmp_path / ".new.csv.audit", "another run") as journal:
        journal.add(0, {})
        second = start(data[1], tmp_path / "new.csv")
        assert second.returncode == 2
        assert "is in use by another process" in second.stderr
    assert not (tmp_path / "new.csv").exists()
    assert main(command(data[1], tmp_path / "new.csv")) == 2  # an unfinished run of something else
    assert "unfinished run of another table" in capsys.readouterr().err
    assert main(command(data[1], tmp_path / "new.csv", "--restart", "--search", "annotated", "--workers", "0")) == 0


@pytest.mark.slow
def test_a_whole_dataset_in_casme2_and_samm_layout(tmp_path):
    """The audit finds that offsets are uncertain, and at least halves the error; benchmarks/audit_recovery.py in small."""
    from benchmarks.audit_recovery import keys_of
    from benchmarks.audit_recovery import make_dataset as make

    for dataset in ("casme2", "samm"):
        folder = tmp_path / dataset
        folder.mkdir()
        truth = make(folder, dataset, 12, size=80)
        done = mt.audit_table(folder / "codes.csv", dataset, folder, folder / "corrected.csv", workers=2)
        before = np.abs(keys_of(folder / "codes.csv", dataset) - truth).mean()
        after = np.abs(keys_of(folder / "corrected.csv", dataset) - truth).mean()
        assert after <= before / 2
        tests = {test.name: test for test in done.audit.tests(unit="frames")}
        assert tests["spread offset / onset"].effect > 1.5
        assert not tests["spread offset / apex"].effect <= 1.5  # NaN where no apex moves


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Four clips: two with a smile, two in which nothing but the camera's noise moves; one of each without apex."""
    root = tmp_path_factory.mktemp("still")
    make_dataset(root, 4)
    random = np.random.default_rng(0)
    for folder in (root / "sub01" / "EP00", root / "sub03" / "EP02"):
        face = cv2.imread(str(folder / "img100.png")).astype(float)
        for path in folder.iterdir():
            cv2.imwrite(str(path), np.clip(face + random.normal(0, 2, face.shape), 0, 255).astype(np.uint8))
    rows = [line.split(",") for line in (root / "codes.csv").read_text().splitlines()]
    for row in rows[3:]:
        row[3] = "/"
    (root / "codes.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    return root


def test_a_clip_without_a_movement_keeps_its_annotation_and_is_named(still, tmp_path, capsys):
    assert main(command(still, tmp_path / "new.csv", "--workers", "0", "--search", "robust")) == 0
    assert "no movement found in 2 clips" in capsys.readouterr().out
    with (still / "codes.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    with (tmp_path / "new.csv").open(newline="") as file:
        after = list(csv.DictReader(file))
    keys = ("OnsetFrame", "ApexFrame", "OffsetFrame")
    for i in (0, 2):
        assert [after[i][key] for key in keys] == [before[i][key] for key in keys]  # a missing apex stays missing
        assert [after[i][f"{key} ({part})"] for key in keys for part in ("estimate", "earliest", "latest")] == [""] * 9
        assert float(after[i]["Evidence (search)"]) < 0.5
    assert all(float(after[i]["Evidence (search)"]) > 0.5 for i in (1, 3))
    page = (tmp_path / "new-report" / "index.html").read_text()
    assert "No movement was found in 2 of 4 clips" in page
    assert re.search(r"row 2 \(01/EP00\): evidence 0\.", page)


def test_an_apex_that_is_not_annotated_is_the_one_found(still):
    audit = mt.audit_annotations(mt.read_annotations(still / "codes.csv", "casme2"), still, searches=["robust"])
    found, nothing = audit.clips[3], audit.clips[2]
    assert found.clip.apex is nothing.clip.apex is None
    assert found.found["robust"][1] == found.certainty["robust"].estimate[1]
    assert audit.corrected()[3].apex == found.certainty["robust"].estimate[1]
    assert audit.corrected()[2] == nothing.clip


def test_no_clip_at_all(data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = command(data[1], tmp_path / "new.csv")
    arguments[arguments.index("--frames") + 1] = str(tmp_path / "empty")
    assert main(arguments) == 2
    assert "no clip could be searched; the first, " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
