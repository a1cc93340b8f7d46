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
        ({"apex": 10}, []),
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


def test_columns_are_named_as_in_the_table():
    (problem,) = annotation_problems([replace(CLIP, apex=99)], SCHEMAS["casme2"], {"apex": "ApexFrame"})
    assert str(problem) == "t, row 2 (01/a): ApexFrame 99 lies outside 10..40"
