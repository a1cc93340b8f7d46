from dataclasses import replace

import pytest

import mertools as mt
from mertools.annotations.quality import annotation_problems
from mertools.annotations.schemas import SCHEMAS

CLIP = mt.ClipAnnotation("casme2", "01", "a", 10, 20, 40, "fear", ("fear",), row=2, table="t", key=("01", "a"))


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"apex": 10}, ["apex at onset"]),
        ({"onset": None, "apex": 10}, ["missing key"]),
        ({"fps": 30.0}, []),
        ({"offset": 130, "fps": 30.0}, []),
        ({"offset": 131, "fps": 30.0}, ["long"]),
        ({"offset": 731, "apex": 10, "fps": 30.0}, ["apex at onset", "long"]),
        ({"apex": 40}, []),
        ({"apex": None}, ["missing key"]),
        ({"onset": None, "offset": None}, ["missing key", "missing key"]),
        ({"apex": 41}, ["apex outside"]),
        ({"apex": 9}, ["apex outside"]),
        ({"onset": 50}, ["order"]),
        ({"onset": 40, "apex": 40}, ["order"]),
        ({"onset": None, "apex": 50}, ["missing key", "apex outside"]),
    ],
)
def test_key_frames(changes, kinds):
    assert [p.kind for p in annotation_problems([replace(CLIP, **changes)], SCHEMAS["casme2"])] == kinds


def test_no_key_frames_are_fine_where_a_dataset_has_none():
    bare = replace(CLIP, dataset="dfew", onset=None, apex=None, offset=None)
    assert annotation_problems([bare], SCHEMAS["dfew"]) == []
    assert annotation_problems([bare]) == []
    assert annotation_problems([replace(CLIP, apex=None)], SCHEMAS["smic"]) == []


def test_the_same_clip_in_several_folds_is_no_duplicate():
    folds = [replace(CLIP, split="train", fold=fold) for fold in (1, 2)]
    assert annotation_problems(folds, SCHEMAS["dfew"]) == []
    assert [p.kind for p in annotation_problems([*folds, folds[0]], SCHEMAS["dfew"])] == ["duplicate"]


def test_an_apex_is_missing_only_where_the_table_has_one():
    clip = replace(CLIP, dataset="smic", apex=None)
    assert annotation_problems([clip], SCHEMAS["smic"], {"onset": "OnsetF", "offset": "OffsetF"}) == []
    (problem,) = annotation_problems([clip], SCHEMAS["smic"], {"apex": "ApexF"})
    assert (problem.kind, problem.column) == ("missing key", "ApexF")


def test_what_is_said_of_empty_motion_and_of_long_expressions():
    clip = replace(CLIP, apex=10, offset=730, fps=30.0)
    texts = [str(problem) for problem in annotation_problems([clip])]
    assert texts == [
        "t, row 2 (01/a): onset, apex are the same frame, 10: the image of the motion between is empty",
        "t, row 2 (01/a): offset 730 lies 24.0 s after the onset 10: no expression lasts more than 4 s",
    ]


def test_columns_are_named_as_in_the_table():
    (problem,) = annotation_problems([replace(CLIP, apex=99)], SCHEMAS["casme2"], {"apex": "ApexFrame"})
    assert str(problem) == "t, row 2 (01/a): ApexFrame 99 lies outside 10..40"


# --- repairs ----------------------------------------------------------------------------------------------------------


REPAIRED = mt.ClipAnnotation("casme3-a", "spNO.1", "b", 10, 20, 40, "sad", row=7, table="t.xlsx", sheet="label")


@pytest.mark.parametrize(
    ("before", "repair", "after"),
    [
        ((10, None, 41), "apex-midpoint", (10, 25, 41)),
        ((10, 5, 40), "apex-midpoint", (10, 25, 40)),
        ((10, 50, 40), "apex-midpoint", (10, 25, 40)),
        ((40, 20, 10), "apex-midpoint", (40, 20, 10)),
        ((10, 20, None), "offset-from-apex", (10, 20, 20)),
        ((10, None, None), "offset-from-apex", (10, None, None)),
        ((30, 20, 10), "sort-keys", (10, 20, 30)),
        ((30, None, 10), "sort-keys", (10, None, 30)),
        ((10, 20, None), ["offset-from-apex", "drop"], (10, 20, 20)),
        ((10, 20, None), "drop", None),
        ((10, None, 20), "drop", None),
        ((10, 30, 20), "drop", None),
        ((10, 30, 20), ["sort-keys", "drop"], (10, 20, 30)),
    ],
)
def test_each_repair(before, repair, after):
    clip = replace(REPAIRED, **dict(zip(("onset", "apex", "offset"), before, strict=True)))
    clips, log = mt.repair_annotations([clip], repair)
    assert [(c.onset, c.apex, c.offset) for c in clips] == ([] if after is None else [after])
    assert len(log) == (before != after)
    assert all(entry.row == 7 for entry in log)
    assert (clip.onset, clip.apex, clip.offset) == before


def test_nothing_is_done_unasked():
    wrong = replace(REPAIRED, apex=None)
    assert mt.repair_annotations([wrong, REPAIRED]) == ([wrong, REPAIRED], [])
    assert mt.repair_annotations([REPAIRED], ["offset-from-apex", "apex-midpoint", "sort-keys", "drop"]) == (
        [REPAIRED],
        [],
    )


def test_the_log_says_what_and_why():
    _, log = mt.repair_annotations([replace(REPAIRED, offset=None)], "offset-from-apex")
    assert str(log[0]) == (
        "t.xlsx, sheet 'label', row 7 (spNO.1/b): offset / -> 20 (offset-from-apex: an offset of 0 stands for the apex)"
    )


def test_a_repair_of_your_own():
    def shift_by_one(clip):
        return replace(clip, onset=clip.onset + 1) if clip.subject == "spNO.1" else None

    clips, log = mt.repair_annotations([REPAIRED, replace(REPAIRED, subject="spNO.2")], shift_by_one)
    assert [clip.onset for clip in clips] == [11]
    assert [entry.repair for entry in log] == ["shift_by_one"] * 2
    assert log[0].reason == "onset 10 -> 11 (shift_by_one: a repair of your own)"


@pytest.mark.parametrize(
    ("repair", "kind", "message"),
    [
        ("guess", ValueError, "repair must be among 'offset-from-apex'"),
        ([3], TypeError, "repair must be names or functions"),
        (lambda clip: 3, TypeError, "must return a ClipAnnotation or None, got int"),
    ],
)
def test_bad_repairs(repair, kind, message):
    with pytest.raises(kind, match=message):
        mt.repair_annotations([REPAIRED], repair)
