import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_data import make_dataset

import mertools as mt
from mertools.audit.journal import Journal, fingerprint
from mertools.audit.run import AuditOptions, prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    truth = make_dataset(root, 9)
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
            assert entry.found[name] == tuple(int(key) + first for key in expected[:3])


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
    assert len(audit.done) == 1
    assert error in audit.broken[0].error
    assert [c.clip for c in audit.corrected()] == [c.clip for c in clips]
    assert audit.corrected()[0] == clips[0]


def test_an_image_that_cannot_be_decoded(data, tmp_path):
    make_dataset(tmp_path, 2)
    (tmp_path / "sub01" / "EP00" / "img112.png").write_bytes(b"broken")
    clips = mt.read_annotations(tmp_path / "codes.csv", "casme2")
    audit = mt.audit_annotations(clips, tmp_path)
    assert [entry.clip.clip for entry in audit.broken] == ["EP00"]
    assert "img112.png can't be decoded" in audit.broken[0].error


def test_a_missing_apex_is_halfway_and_has_no_shift(data):
    clips = [replace(clip, apex=None) for clip in data[0]]
    audit = mt.audit_annotations(clips, data[1], searches=["annotated"])
    assert np.isnan(audit.shifts()["apex"]).all()
    assert np.isfinite(audit.shifts()["offset"]).all()
    first = audit.clips[0]
    assert first.keys[1] == (clips[0].onset + clips[0].offset) // 2
    assert not audit.uncertain()["apex"].any()
    assert np.isnan(audit.tests()[0].p)


def entry(keys, found, **fields):
    fields = {"dataset": "casme2", "subject": "01", "clip": "a", "label": "disgust", "fps": 200.0, **fields}
    clip = mt.ClipAnnotation(onset=keys[0], apex=keys[1], offset=keys[2], **fields)
    return mt.ClipAudit(clip, keys, {"robust": found})


def test_shifts_in_frames_phases_and_milliseconds():
    audit = mt.AnnotationAudit(
        [entry((10, 20, 40), (12, 18, 30)), entry((10, 30, 40), (9, 34, 45), fps=None)], ("robust",)
    )
    assert [x.tolist() for x in audit.shifts().values()] == [[2, -1], [-2, 4], [-10, 5]]
    phase = audit.shifts(unit="phase")
    assert phase["onset"].tolist() == [0.2, -0.05]
    assert phase["apex"].tolist() == [-0.2, 0.4]
    assert phase["offset"].tolist() == [-0.5, 0.5]
    assert audit.shifts(unit="ms")["onset"][0] == 10
    assert np.isnan(audit.shifts(unit="ms")["onset"][1])
    assert audit.uncertain()["onset"].tolist() == [True, False]
    assert [e.keys for e in audit.worst(1)] == [(10, 20, 40)]
    with pytest.raises(ValueError, match="unit must be one of"):
        audit.shifts(unit="hours")
    with pytest.raises(ValueError, match="search must be one of 'robust'"):
        audit.shifts("annotated")


def test_one_frame_is_never_uncertain():
    audit = mt.AnnotationAudit([entry((10, 12, 14), (11, 12, 13))], ("robust",))
    assert not any(values.any() for values in audit.uncertain().values())


def test_groups():
    entries = [entry((10, 20, 40), (10, 20, 40 + i), label="ab"[i % 2], subject=str(i % 3)) for i in range(6)]
    audit = mt.AnnotationAudit(entries, ("robust",))
    assert [(g.name, g.n) for g in audit.groups("label")] == [("a", 3), ("b", 3)]
    assert audit.groups("label")[0].offset.median == 2
    assert audit.groups("label")[1].offset.share == pytest.approx(2 / 3)
    assert [g.name for g in audit.groups("subject")] == ["0", "1", "2"]
    assert audit.groups("all")[0].offset.mean_abs == 2.5


def test_csv_has_a_row_per_clip(audit, tmp_path):
    audit.write_csv(tmp_path / "clips.csv")
    with (tmp_path / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert int(rows[2]["offset_shift_robust"]) == int(rows[2]["offset_robust"]) - int(rows[2]["offset"])


def test_resuming_does_not_do_again_what_is_done(data, audit, tmp_path):
    clips, root, _ = data
    words = AuditOptions().words
    identity = fingerprint(clips, mt.FrameFolders(root).name, words)
    made_up = {"annotated": [101, 102, 103], "robust": [104, 105, 106]}
    with Journal(tmp_path / "work", identity) as journal:
        journal.add(3, made_up)
        journal.add(5, {"error": "the disk was away"})
    again = mt.audit_annotations(clips, root, work=tmp_path / "work")
    assert again.clips[3].found == {"annotated": (101, 102, 103), "robust": (104, 105, 106)}
    assert [again.clips[i].found for i in (4, 5)] == [audit.clips[i].found for i in (4, 5)]
    assert not (tmp_path / "work").exists()


def test_another_run_s_journal_is_refused(data, tmp_path):
    clips, root, _ = data
    with Journal(tmp_path / "work", "another") as journal:
        journal.add(0, {})
    with pytest.raises(ValueError, match="unfinished run of another table"):
        mt.audit_annotations(clips, root, work=tmp_path / "work")
    audit = mt.audit_annotations(clips, root, searches=["annotated"], work=tmp_path / "work", restart=True)
    assert len(audit.done) == 9


def test_one_report_of_several_datasets(data, audit, tmp_path):
    clips, root, _ = data
    others = [replace(clip, dataset="samm") for clip in clips]
    second = mt.audit_annotations(others, {"casme2": root, "samm": root})
    both = mt.AnnotationAudit([*audit.clips, *second.clips])
    both.write_report(tmp_path / "report", frames={"casme2": root, "samm": root}, worst=3)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "By dataset" in page
    assert "no root" not in page
    assert page.count("<figure>") == 3
    with (tmp_path / "report" / "groups.csv").open(newline="") as file:
        groups = {(row["by"], row["group"]) for row in csv.DictReader(file)}
    assert {("dataset", "casme2"), ("dataset", "samm"), ("all", "all")} < groups


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"searches": []}, ValueError, "searches must be some of annotated, robust"),
        ({"searches": ["best"]}, ValueError, "searches must be one of"),
        ({"margin": -1}, ValueError, "margin must be"),
        ({"longest": 3}, ValueError, "longest must be at least 16"),
        ({"threshold": "a"}, TypeError, "threshold must be"),
        ({"workers": -1}, ValueError, "workers must be"),
        ({"selector": 3}, TypeError, "selector must be a FrameSelector"),
        ({"selector": mt.FrameSelector(distance=torch.cdist)}, ValueError, "l2 distance"),
    ],
)
def test_bad_options(data, options, kind, message):
    with pytest.raises(kind, match=message):
        mt.audit_annotations(data[0], data[1], **options)


def test_nothing_to_audit(data, tmp_path):
    with pytest.raises(ValueError, match="holds no annotations"):
        mt.audit_annotations([], data[1])
    with pytest.raises(ValueError, match="dataset must be given"):
        mt.audit_annotations(data[1] / "codes.csv", data[1])
    bare = [mt.ClipAnnotation("dfew", "", "00001", label="happy")]
    with pytest.raises(ValueError, match="no key frames to audit"):
        mt.audit_annotations(bare, data[1])
    assert len(mt.audit_annotations(data[1] / "codes.csv", data[1], "casme2", searches=["annotated"])) == 9


def test_a_progress_bar_needs_tqdm(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="a progress bar needs tqdm"):
        mt.audit_annotations(data[0], data[1], progress=True)
