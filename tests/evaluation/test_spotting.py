import random
from itertools import permutations

import numpy as np
import pytest
import torch

import mertools as mt
from mertools.evaluation.spotting import match_intervals


def test_worked_example_of_two_videos():
    """On paper. Video 1: (10, 20) against (11, 20) is 10/11; (50, 60) against (40, 60) is 11/21 > 1/2; (90, 99) is
    nobody's. Video 2: (0, 9) against (5, 14) is 5/15. So 2 hits, 2 false alarms, 2 misses (200, 230) and (5, 14)."""
    found = [[(10, 20), (50, 60), (90, 99)], [(0, 9)]]
    true = [[(11, 20), (40, 60), (200, 230)], [(5, 14)]]
    scores = mt.spotting_scores(found, true, fps=30)
    assert scores[:3] == (2, 2, 2)
    assert scores.precision == scores.recall == scores.f1 == 0.5
    # 15 frames at 30 fps are 0.5 s: (11, 20) and (5, 14) are micro, (40, 60) with 21 and (200, 230) with 31 are macro;
    # both false alarms last 10 frames.
    assert scores.micro[:3] == (1, 2, 1)
    assert scores.macro[:3] == (1, 0, 1)
    assert scores.micro.f1 == pytest.approx(2 / 5)
    assert scores.macro.f1 == pytest.approx(2 / 3)
    assert scores.overall is scores


def test_counts_are_pooled_over_videos_before_the_ratio_is_taken():
    found = [[(0, 9)], [(0, 9), (20, 29), (40, 49)]]
    true = [[(0, 9)], [(100, 109)]]
    scores = mt.spotting_scores(found, true)
    assert scores.precision == 1 / 4
    assert scores.recall == 1 / 2
    assert scores.f1 == pytest.approx(2 / 6)
    assert scores.micro is None
    assert scores.macro is None


def test_both_ends_count_as_frames_and_half_is_enough():
    # 5 of 10 frames; without the ends it would be 4 of 9.
    assert mt.spotting_scores([[(0, 4)]], [[(0, 9)]]).tp == 1
    assert mt.spotting_scores([[(0, 3)]], [[(0, 9)]]).tp == 0
    assert mt.spotting_scores([[(0, 2)]], [[(0, 9)]], iou=0.3).tp == 1  # 0.3 exactly
    assert mt.spotting_scores([[(7, 7)]], [[(7, 7)]], iou=1).tp == 1  # one frame


def test_one_true_interval_is_hit_once():
    scores = mt.spotting_scores([[(0, 4), (5, 9)]], [[(0, 9)]])  # both halves reach 0.5
    assert scores[:3] == (1, 1, 0)


def test_as_many_as_can_be_are_paired_where_intervals_overlap():
    # Found (0, 9) fits both true ones, found (3, 14) only the second: best first would give (0, 9) the second, 10/13,
    # and leave one hit.
    found, true = [(0, 9), (3, 14)], [(0, 5), (0, 12)]
    assert match_intervals(found, true, 0.5) == [(0, 0), (1, 1)]
    assert match_intervals(found, true, 0.7) == [(0, 1)]


def test_matching_agrees_with_every_pairing_tried():
    draw = random.Random(3)

    def iou(a, b):
        frames, others = set(range(a[0], a[1] + 1)), set(range(b[0], b[1] + 1))
        return len(frames & others) / len(frames | others)

    sizes = set()
    for _ in range(60):
        found, true = (
            [(start := draw.randrange(12), start + draw.randrange(1, 9)) for _ in range(draw.randrange(5))]
            for _ in range(2)
        )
        pairs = match_intervals(found, true, 0.5)
        assert all(iou(found[i], true[j]) >= 0.5 for i, j in pairs)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        long, short = (found, true) if len(found) >= len(true) else (true, found)
        most = max(
            sum(iou(a, b) >= 0.5 for a, b in zip(order, short, strict=True)) for order in permutations(long, len(short))
        )
        assert len(pairs) == most
        sizes.add(most)
    assert {0, 1, 2, 3} <= sizes


def test_nothing_found_or_nothing_there_counts_zero():
    nothing = mt.spotting_scores([[]], [[(3, 9)]])
    assert nothing[:3] == (0, 0, 1)
    assert nothing.precision == nothing.recall == nothing.f1 == 0
    alarm = mt.spotting_scores([[(3, 9)]], [[]])
    assert alarm[:3] == (0, 1, 0)
    assert alarm.f1 == 0
    assert mt.spotting_scores([[]], [[]]).f1 == 0


def test_videos_of_different_frame_rates():
    # 100 frames are half a second at 200 fps and three at 30.
    scores = mt.spotting_scores([[(0, 99)], [(0, 99)]], [[(0, 99)], [(0, 99)]], fps=[200, 30])
    assert scores.micro[:3] == scores.macro[:3] == (1, 0, 0)
    assert mt.spotting_scores([[]], [[(0, 100)]], fps=200).macro.fn == 1  # 101 frames


def test_expressions_dicts_arrays_and_tensors():
    one = mt.Expression(10, 14, 20, 0.9, (1.0, 1.0, 1.0))
    by_list = mt.spotting_scores([[one]], [[(11, 20)]])
    assert by_list == mt.spotting_scores({"a": [one]}, {"a": [(11, 20)]})
    assert by_list == mt.spotting_scores([np.array([[10, 20]])], [torch.tensor([[11, 20]])])
    with pytest.raises(ValueError, match=r"only one has a, b: a video without expressions is an empty list"):
        mt.spotting_scores({"a": []}, {"b": []})


def test_recognition_is_scored_on_the_hits():
    """On paper. Hits: happy→happy, happy→sad, sad→sad; a sad one is missed, a false alarm says anger.

    Spotting: 3 hits, 1 false alarm, 1 miss: F1 6/8. Precision happy 1/1, sad 1/2, anger 0; recall 1/2, 1/1, 0 (anger is
    in the truth of the second video, where nothing was found). Means 1/2 and 1/2, F1 1/2; class F1 2/3, 2/3, 0.
    """
    found = [[(0, 9, "happy"), (20, 29, "sad"), (40, 49, "sad"), (70, 79, "anger")], []]
    true = [[(0, 9, "happy"), (20, 30, "happy"), (41, 49, "sad")], [(5, 9, "anger")]]
    scores = mt.spot_then_recognize(found, true)
    assert scores.spotting[:3] == (3, 1, 1)
    assert scores.spotting.f1 == 0.75
    assert scores.classes == ("anger", "happy", "sad")
    assert scores.precision == scores.recall == scores.f1 == 0.5
    assert scores.uf1 == pytest.approx(4 / 9)
    assert scores.strs == 0.375
    assert scores.confusion.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_the_published_table_of_megc_2025():
    """Baseline on SAMM: spotting 6 hits, 217 false alarms, 202 misses: F1 0.0278; recognition 0.2222; STRS 0.0062.

    The recognition of that row: mean precision 1/6, mean recall 1/3.
    """
    assert mt.SpottingScores(6, 217, 202).f1 == pytest.approx(0.0278, abs=5e-5)
    # Three classes; of the hits one class's two are told apart half of the time, as in the paper's row.
    found = [[(0, 9, "a"), (20, 29, "a")]]
    true = [[(0, 9, "a"), (20, 29, "b"), (100, 109, "c")]]
    scores = mt.spot_then_recognize(found, true)
    assert scores.precision == pytest.approx(1 / 6)
    assert scores.recall == pytest.approx(1 / 3)
    assert scores.f1 == pytest.approx(0.2222, abs=5e-5)
    assert scores.uf1 == pytest.approx(0.2222, abs=5e-5)


def test_a_label_that_is_no_class_is_wrong_and_other_classes_count_for_spotting_only():
    found = [[(0, 9, "happy"), (20, 29, "other"), (40, 49, "happy")]]
    true = [[(0, 9, "happy"), (20, 29, "sad"), (40, 49, "others")]]
    scores = mt.spot_then_recognize(found, true, classes=("happy", "sad"), fps=30)
    assert scores.spotting.f1 == 1
    assert scores.spotting.micro.tp == 3
    assert scores.precision == 0.5
    assert scores.recall == 0.5
    assert scores.confusion.tolist() == [[1, 0], [0, 0]]
    numbered = mt.spot_then_recognize([[(0, 9, 1)]], [[(0, 9, 1)]], classes=range(2))
    assert numbered.f1 == 0.5
    assert numbered.strs == 0.5


@pytest.mark.parametrize(
    ("found", "true", "error", "message"),
    [
        ([(3, 9)], [[(3, 9)]], TypeError, r"got 3 in video 0: one list of intervals for every video, \[intervals\]"),
        ([[(3, 9)]], [[(3, 9)], []], ValueError, "the same videos, got 1 and 2"),
        ([[(9, 3)]], [[]], ValueError, r"0 <= onset <= offset, got \(9, 3\) in video 0"),
        ([[(-1, 3)]], [[]], ValueError, "0 <= onset"),
        ([[(3.5, 9)]], [[]], TypeError, r"whole frames, got \(3.5, 9\)"),
        ([["ab"]], [[]], TypeError, "whole frames, got 'ab'"),
        ([[]], {"a": []}, TypeError, "both be lists of videos, or both dicts"),
        ("ab", "cd", TypeError, "must be a list of videos"),
        ([], [], ValueError, "at least one video"),
    ],
)
def test_bad_intervals(found, true, error, message):
    with pytest.raises(error, match=message):
        mt.spotting_scores(found, true)


def test_bad_settings():
    with pytest.raises(ValueError, match="iou must be above 0"):
        mt.spotting_scores([[]], [[]], iou=0)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        mt.spotting_scores([[]], [[]], iou=1.5)
    with pytest.raises(ValueError, match="fps must be above 0"):
        mt.spotting_scores([[]], [[]], fps=0)
    with pytest.raises(ValueError, match="for each of 1 videos, got 2"):
        mt.spotting_scores([[]], [[]], fps=[30, 30])
    with pytest.raises(TypeError, match=r"\(onset, offset, label\)"):
        mt.spot_then_recognize([[(0, 9)]], [[(0, 9, "sad")]])
    with pytest.raises(ValueError, match="at least one class"):
        mt.spot_then_recognize([[]], [[]])
    with pytest.raises(ValueError, match="classes must differ"):
        mt.spot_then_recognize([[]], [[]], classes=("sad", "sad"))
