"""Shifts, their groups and tests, and what is written of them."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from audit_data import make_dataset

import mertools as mt
from mertools.audit.results import Certainty


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    truth = make_dataset(root, 9)
    return mt.read_annotations(root / "codes.csv", "casme2"), root, truth


@pytest.fixture(scope="module")
def audit(data):
    return mt.audit_annotations(data[0], data[1])


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


def test_what_is_wrong_with_the_rows_is_listed(tmp_path):
    rows = [entry((10, 10, 40), (10, 20, 40), fps=30.0), entry((10, 20, 730), (10, 20, 40), fps=30.0, clip="b", row=7)]
    audit = mt.AnnotationAudit([*rows, entry((10, 20, 40), (10, 20, 40), dataset="ours")], ("robust",))
    assert [(problem.kind, problem.row) for problem in audit.problems] == [("apex at onset", 0), ("long", 7)]
    audit.write_report(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "row 7 (01/b): offset 730 lies 24.0 s after the onset 10" in page
    assert "the image of the motion between is empty" in page


def test_a_subject_is_one_however_it_is_spelt():
    spelt = ("01", "sub01", "S1", "2")
    rows = [entry((10, 20, 40), (11, 20, 40 - i), subject=name) for i, name in enumerate(spelt)]
    assert [(group.name, group.n) for group in mt.AnnotationAudit(rows, ("robust",)).groups("subject")] == [
        ("01", 3),
        ("2", 1),
    ]
    other = entry((10, 20, 40), (10, 20, 40), subject="01", dataset="samm")
    groups = mt.AnnotationAudit([*rows, other], ("robust",)).groups("subject")
    assert [(group.name, group.n) for group in groups] == [("casme2/01", 3), ("casme2/2", 1), ("samm/01", 1)]


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


def sure_entry(keys, found, evidence=0.9, spread=2.0, **fields):
    """As the robust search leaves it: an annotation inside its interval stays."""
    width = max(int(spread + 0.5), 1)
    sure = Certainty(found, evidence, (spread,) * 3, tuple((k - width, k + width) for k in found), (found[1], found[1]))
    kept = [
        old if inside or evidence < 0.5 else new for old, new, inside in zip(keys, found, sure.holds(keys), strict=True)
    ]
    return replace(entry(keys, tuple(kept), **fields), certainty={"robust": sure})


def test_inside_the_interval_a_key_frame_is_not_uncertain_however_far_it_moves():
    sure = sure_entry((10, 20, 40), (14, 20, 70), spread=5.0)
    moved = replace(sure, found={"robust": (14, 20, 70)})
    for one in (sure, moved):
        flags = mt.AnnotationAudit([one], ("robust",)).uncertain()
        assert [bool(flags[key][0]) for key in ("onset", "apex", "offset")] == [False, False, True]
    without = mt.AnnotationAudit([replace(moved, certainty={})], ("robust",)).uncertain()
    assert [bool(without[key][0]) for key in ("onset", "apex", "offset")] == [True, False, True]


def test_clips_without_a_movement_neither_agree_nor_differ(tmp_path):
    nothing = sure_entry((10, 20, 40), (30, 32, 34), evidence=0.49, clip="b", row=3)
    audit = mt.AnnotationAudit([sure_entry((10, 20, 40), (16, 20, 41)), nothing], ("robust",))
    assert audit.nothing_found() == [nothing]
    assert [x.tolist() for x in audit.shifts().values()] == [[6, pytest.approx(np.nan, nan_ok=True)]] + [
        [0, pytest.approx(np.nan, nan_ok=True)]
    ] * 2
    (whole,) = audit.groups("all")
    assert (whole.n, whole.onset.n, whole.onset.share) == (1, 1, 1)
    assert audit.corrected()[1] == nothing.clip
    assert audit.worst(2)[1] is nothing
    assert audit.variance_components()[0].n == 1
    audit.write_csv(tmp_path / "clips.csv")
    with (tmp_path / "clips.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["outcome_robust"], second["outcome_robust"]) == ("uncertain: onset", "no movement found")
    assert [first[f"onset_{part}_robust"] for part in ("estimate", "earliest", "latest", "spread")] == [
        "16",
        "14",
        "18",
        "2",
    ]
    assert (first["offset_robust"], first["offset_estimate_robust"]) == ("40", "41")  # an annotation inside stays
    assert (second["onset_robust"], second["onset_estimate_robust"], second["evidence_robust"]) == ("10", "30", "0.49")
    assert second["onset_shift_robust"] == second["onset_relative_robust"] == ""


def test_a_csv_of_searches_without_intervals_has_empty_cells(tmp_path):
    skipped = mt.ClipAudit(mt.ClipAnnotation("casme2", "01", "b"), error="gone")
    mt.AnnotationAudit([entry((10, 20, 40), (12, 20, 40)), skipped], ("robust",)).write_csv(tmp_path / "clips.csv")
    with (tmp_path / "clips.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["outcome_robust"], first["evidence_robust"], first["onset_latest_robust"]) == (
        "uncertain: onset",
        "",
        "",
    )
    assert (second["outcome_robust"], second["error"]) == ("", "gone")


def test_variance_components_take_what_the_search_found_itself():
    random = np.random.default_rng(0)
    entries = []
    for i in range(400):
        off, method = random.normal(0, (2, 1, 5)), random.normal(0, 1.5, 3)
        keys, found = (np.round(np.array([100, 200, 300]) + part).astype(int).tolist() for part in (off, method))
        fields = {"subject": str(i % 40), "dataset": ("casme2", "samm")[i % 2]}
        entries.append(sure_entry(tuple(keys), tuple(found), spread=1.5 * 1.645, **fields))
    audit = mt.AnnotationAudit(entries, ("robust",))
    rows = audit.variance_components()
    assert [(row.name, row.key, row.n) for row in rows] == [
        (name, key, n)
        for name, n in (("all", 400), ("casme2", 200), ("samm", 200))
        for key in ("onset", "apex", "offset")
    ]
    for row, true in zip(rows, (2, 1, 5) * 3, strict=True):
        assert row.low <= true <= row.high
        assert row.method == pytest.approx(1.5)
    none = mt.AnnotationAudit([entry((10, 20, 40), (12, 20, 40))], ("robust",))
    assert none.variance_components() == []


def test_components_leave_out_an_apex_that_is_not_annotated():
    one = sure_entry((10, 20, 40), (12, 22, 41))
    audit = mt.AnnotationAudit([replace(one, clip=replace(one.clip, apex=None))] * 3, ("robust",))
    assert [row.key for row in audit.variance_components()] == ["onset", "offset"]


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
