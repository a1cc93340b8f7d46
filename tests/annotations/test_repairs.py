from dataclasses import replace

import pytest

import mertools as mt

CLIP = mt.ClipAnnotation("casme3-a", "spNO.1", "b", 10, 20, 40, "sad", row=7, table="t.xlsx", sheet="label")


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
    clip = replace(CLIP, **dict(zip(("onset", "apex", "offset"), before, strict=True)))
    clips, log = mt.repair_annotations([clip], repair)
    assert [(c.onset, c.apex, c.offset) for c in clips] == ([] if after is None else [after])
    assert len(log) == (before != after)
    assert all(entry.row == 7 for entry in log)
    assert (clip.onset, clip.apex, clip.offset) == before


def test_nothing_is_done_unasked():
    wrong = replace(CLIP, apex=None)
    assert mt.repair_annotations([wrong, CLIP]) == ([wrong, CLIP], [])
    assert mt.repair_annotations([CLIP], ["offset-from-apex", "apex-midpoint", "sort-keys", "drop"]) == ([CLIP], [])


def test_the_log_says_what_and_why():
    _, log = mt.repair_annotations([replace(CLIP, offset=None)], "offset-from-apex")
    assert str(log[0]) == (
        "t.xlsx, sheet 'label', row 7 (spNO.1/b): offset / -> 20 (offset-from-apex: an offset of 0 stands for the apex)"
    )


def test_a_repair_of_your_own():
    def shift_by_one(clip):
        return replace(clip, onset=clip.onset + 1) if clip.subject == "spNO.1" else None

    clips, log = mt.repair_annotations([CLIP, replace(CLIP, subject="spNO.2")], shift_by_one)
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
        mt.repair_annotations([CLIP], repair)
