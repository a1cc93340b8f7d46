import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mertools as mt
from mertools.action_units.expressions import canonical

REFERENCE = json.loads((Path(__file__).parent / "au_dfer_tables.json").read_text())
ROW = {name: i for i, name in enumerate(REFERENCE["expressions"])}


def test_names_are_the_reference():
    assert list(mt.ACTION_UNITS) == REFERENCE["action_units"]
    assert list(mt.EXPRESSIONS) == REFERENCE["expressions"]


def test_prior_is_the_published_table():
    assert torch.equal(mt.au_prior(), torch.tensor(REFERENCE["prior"]))


def test_prior_rows_follow_names_and_columns_follow_units():
    prior = mt.au_prior(["Fear", "happiness", "anger"], action_units=["AU45", "AU01"])
    table = torch.tensor(REFERENCE["prior"])
    assert torch.equal(prior, table[[ROW["fear"], ROW["happy"], ROW["angry"]]][:, [17, 0]])


@pytest.mark.parametrize("dataset", ["DFEW", "FERV39K"])
def test_pos_weight_tables(dataset):
    table = torch.tensor(REFERENCE["pos_weight"][dataset]["distinct"])
    assert torch.equal(mt.au_pos_weight(dataset), torch.tensor(REFERENCE["pos_weight"][dataset]["global"]))
    assert torch.equal(mt.au_pos_weight(dataset, "distinct"), table)
    minor = mt.au_pos_weight(dataset, "minor")
    for name, row in ROW.items():
        rare = name in ("disgust", "fear", "surprise")
        assert torch.equal(minor[row], table[row] if rare else torch.ones(18))
    assert torch.equal(mt.au_pos_weight(dataset, "minor", classes=["fear", "sad"]), minor[[ROW["fear"], ROW["sad"]]])


def test_the_doubtful_row_carries_its_remark():
    tables = json.loads((Path(mt.__file__).parent / "au_tables.json").read_text())
    assert "surprise row" in tables["remarks"]["pos_weight.FERV39K.global"]
    assert "surprise" in mt.au_pos_weight.__doc__
    assert {key: tables[key] for key in REFERENCE} == REFERENCE


def test_tables_handed_out_are_copies():
    mt.au_prior().zero_()
    mt.au_pos_weight().zero_()
    assert torch.equal(mt.au_prior(), torch.tensor(REFERENCE["prior"]))
    assert mt.au_pos_weight().all()


def test_estimates_count_what_is_there():
    labels = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]])
    target = torch.tensor([0, 0, 0, 1, 1])
    prior = mt.estimate_au_prior(labels, target, num_classes=2, smoothing=0)
    torch.testing.assert_close(prior, torch.tensor([[2 / 3, 0, 2 / 3], [1, 0, 1 / 2]]))
    smoothed = mt.estimate_au_prior(labels, target, num_classes=3)
    torch.testing.assert_close(smoothed[0], torch.tensor([3 / 5, 1 / 5, 3 / 5]))
    assert smoothed[2].tolist() == [0.5] * 3
    torch.testing.assert_close(mt.estimate_pos_weight(labels), torch.tensor([2 / 5, 6.0, 3 / 4]))
    per_class = mt.estimate_pos_weight(labels, target, num_classes=2)
    torch.testing.assert_close(per_class, torch.tensor([[2 / 3, 4.0, 2 / 3], [1 / 3, 3.0, 1.0]]))


def test_pos_weight_is_finite_for_units_never_or_always_seen():
    labels = torch.tensor([[1.0, 0.0]] * 7)
    assert torch.isfinite(mt.estimate_pos_weight(labels)).all()
    assert (mt.estimate_pos_weight(labels) > 0).all()


def test_clip_labels_are_a_majority_vote():
    presence = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    assert mt.clip_au_labels(presence).tolist() == [1, 0, 0]
    assert mt.clip_au_labels(presence, threshold=0.25).tolist() == [1, 1, 1]
    assert mt.clip_au_labels(presence.expand(2, 5, 4, 3)).shape == (2, 5, 3)


def test_frames_without_a_face_do_not_vote():
    nan = float("nan")
    presence = torch.tensor([[1, nan], [nan, nan], [nan, nan], [0, nan]])
    label = mt.clip_au_labels(presence)
    assert label[0] == 1
    assert label[1].isnan()


def test_three_of_five_is_sixty_percent():
    assert mt.clip_au_labels(torch.tensor([[1], [1], [1], [0], [0]]), threshold=0.6).item() == 1


ROWS = {name: mt.au_prior()[i] for name, i in ROW.items()}


@pytest.mark.parametrize("name", mt.CLASS_SETS)
def test_every_class_set_has_rows_by_name_or_an_error(name):
    classes = mt.CLASS_SETS[name]
    unknown = [c for c in classes if canonical(c) is None]
    if unknown:
        with pytest.raises(ValueError, match=f"got {', '.join(map(repr, unknown))}.*rows=.*missing='ignore'"):
            mt.au_prior(name)
    for missing in ("mean", "ignore"):
        prior = mt.au_prior(name, missing=missing)
        for row, label in zip(prior, classes, strict=True):
            if canonical(label):
                assert torch.equal(row, ROWS[canonical(label)])
            elif missing == "mean":
                torch.testing.assert_close(row, mt.au_prior().mean(0))
            else:
                assert row.isnan().all()


def test_rows_given_by_hand():
    own = torch.rand(18)
    prior = mt.au_prior(
        ["Contempt", "negative", "happy", "positive"],
        rows={"contempt": own, "negative": ["anger", "fear"], "positive": "happiness", "Happy": own},
    )
    assert torch.equal(prior[0], own)
    torch.testing.assert_close(prior[1], (ROWS["angry"] + ROWS["fear"]) / 2)
    assert torch.equal(prior[2], own)
    assert torch.equal(prior[3], ROWS["happy"])


def test_pos_weight_of_classes_without_a_row():
    with pytest.raises(ValueError, match="'contempt'.*missing='ones'"):
        mt.au_pos_weight("DFEW", "distinct", classes="SAMM-5")
    weight = mt.au_pos_weight("DFEW", "distinct", classes="SAMM-5", missing="ones")
    assert torch.equal(weight[1], torch.ones(18))
    assert torch.equal(weight[2], mt.au_pos_weight("DFEW", "distinct")[ROW["happy"]])
    assert mt.au_pos_weight("DFEW", classes="SAMM-5").shape == (18,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.au_prior(["contempt"]), ValueError, "classes must be among"),
        (lambda: mt.au_prior(action_units=["AU99"]), ValueError, "action_units must be among.*'AU99'"),
        (lambda: mt.au_prior(action_units="AU01"), TypeError, "action_units must be a sequence"),
        (lambda: mt.au_pos_weight("RAF"), ValueError, "dataset must be one of 'DFEW'"),
        (lambda: mt.au_pos_weight("DFEW", "rare"), ValueError, "mode must be one of 'global'"),
        (
            lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.tensor([0, 0, 2]), num_classes=2),
            ValueError,
            r"within 0\.\.1",
        ),
        (lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.zeros(3), num_classes=2), TypeError, "class indices"),
        (
            lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.zeros(2).long(), num_classes=2),
            ValueError,
            r"target must be \(3,\)",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=2, smoothing=0),
            ValueError,
            r"without a clip: \[1\]",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=1, smoothing=-1),
            ValueError,
            "smoothing",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=0),
            ValueError,
            "num_classes must be",
        ),
        (lambda: mt.estimate_pos_weight(torch.full((3, 2), 2.5)), ValueError, r"au_target must lie in \[0, 1\]"),
        (lambda: mt.estimate_pos_weight(torch.ones(3)), ValueError, r"au_target must be \(n, a\)"),
        (lambda: mt.estimate_pos_weight([1]), TypeError, "au_target must be a torch.Tensor"),
        (lambda: mt.estimate_pos_weight(torch.ones(3, 2), torch.zeros(3).long()), ValueError, "given together"),
        (lambda: mt.clip_au_labels(torch.ones(3)), ValueError, r"presence must be \(..., t, a\)"),
        (lambda: mt.clip_au_labels(torch.ones(3, 2), threshold=0), ValueError, "threshold"),
        (lambda: mt.clip_au_labels(torch.full((3, 2), 5.0)), ValueError, "binarise intensities"),
        (lambda: mt.au_prior(None), TypeError, "classes must be a sequence"),
        (lambda: mt.au_prior(action_units=None), TypeError, "action_units must be a sequence"),
        (lambda: mt.clip_au_labels([1]), TypeError, "presence must be a torch.Tensor"),
        (lambda: mt.au_prior(["hapiness"]), ValueError, "did you mean happiness"),
        (lambda: mt.au_prior(missing="zero"), ValueError, "missing must be one of 'error', 'mean', 'ignore'"),
        (lambda: mt.au_prior(["x"], rows={"y": torch.rand(18)}), ValueError, "rows must be for classes among"),
        (lambda: mt.au_prior(["x"], rows={"x": torch.rand(17)}), ValueError, r"rows\['x'\] must be \(18,\)"),
        (lambda: mt.au_prior(["x"], rows={"x": ["y"]}), ValueError, r"rows\['x'\] must name expressions"),
        (lambda: mt.au_prior(["x"], rows=[1]), TypeError, "rows must map class names"),
        (lambda: mt.au_pos_weight(missing="mean"), ValueError, "missing must be one of 'error', 'ones'"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- what is said, word for word ------------------------------------------------------------------------------------

SEVEN = "happy, sad, neutral, angry, surprise, disgust, fear"
UNITS = ", ".join(mt.ACTION_UNITS)
OWN_ROW = (
    "give each a row with rows={name: ...}, from estimate_au_prior on your own AU labels or as a mixture of known "
    "expressions, or choose missing='mean' or missing='ignore'"
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mt.au_prior(["contempt", "happy", "boredom"]),
            f"classes must be among {SEVEN} (or a synonym) to have a row in the table; got 'contempt', 'boredom': "
            f"{OWN_ROW}",
        ),
        (
            lambda: mt.au_prior(["hapiness"]),
            f"classes must be among {SEVEN} (or a synonym) to have a row in the table; got 'hapiness' (did you mean "
            f"happiness?): {OWN_ROW}",
        ),
        (
            lambda: mt.au_pos_weight("DFEW", "minor", classes=["contempt"]),
            f"classes must be among {SEVEN} (or a synonym) to have a row in the table; got 'contempt': missing='ones' "
            "leaves them without weight, estimate_pos_weight makes your own table",
        ),
        (lambda: mt.au_prior(missing="zero"), "missing must be one of 'error', 'mean', 'ignore', got 'zero'"),
        (lambda: mt.au_pos_weight("RAF"), "dataset must be one of 'DFEW', 'FERV39K', got 'RAF'"),
        (lambda: mt.au_pos_weight(mode="rare"), "mode must be one of 'global', 'distinct', 'minor', got 'rare'"),
        (lambda: mt.au_pos_weight(missing="mean"), "missing must be one of 'error', 'ones', got 'mean'"),
        (
            lambda: mt.au_prior(action_units=["AU98", "AU01", "AU99"]),
            f"action_units must be among {UNITS}; got 'AU98', 'AU99'",
        ),
        (lambda: mt.au_prior(action_units="AU01"), "action_units must be a sequence of names, got 'AU01'"),
        (lambda: mt.au_prior(action_units=[]), "action_units must be a sequence of names, got []"),
        (
            lambda: mt.estimate_au_prior(torch.ones(2, 2), torch.tensor([0, 2]), num_classes=4, smoothing=0),
            "target must hold every class when smoothing=0; classes without a clip: [1, 3]",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=1, smoothing=-1),
            "smoothing must be finite and at least 0, got -1",
        ),
        *[
            (
                lambda settings=settings: mt.estimate_pos_weight(torch.ones(3, 2), **settings),
                "target and num_classes must be given together (a row per class) or not at all (one row)",
            )
            for settings in ({"target": torch.zeros(3).long()}, {"num_classes": 2})
        ],
        *[
            (
                lambda shape=shape: mt.clip_au_labels(torch.ones(shape)),
                f"presence must be (..., t, a) with at least one frame, got shape {shape}",
            )
            for shape in ((3,), (2, 0, 3))
        ],
        (lambda: mt.clip_au_labels(torch.ones(3, 2), threshold=0), "threshold must lie in (0, 1], got 0"),
        (lambda: mt.clip_au_labels(torch.ones(3, 2), threshold=1.5), "threshold must be in [0, 1], got 1.5"),
        *[
            (
                lambda value=value: mt.clip_au_labels(torch.full((3, 2), value)),
                "presence must hold 0 and 1 (or NaN, no face): binarise intensities first",
            )
            for value in (1.5, -0.5)
        ],
        (lambda: mt.clip_au_labels([1]), "presence must be a torch.Tensor, got list"),
        (lambda: mt.au_prior(["x"], rows=[1]), "rows must map class names to rows, got list"),
        (
            lambda: mt.au_prior(["x", "z"], rows={"y": torch.rand(18)}),
            "rows must be for classes among ['x', 'z'], got one for 'y'",
        ),
        (
            lambda: mt.au_prior(["x"], rows={"x": torch.full((2,), 0.5)}),
            "rows['x'] must be (18,) in [0, 1], got shape (2,): tensor([0.5000, 0.5000])",
        ),
        *[
            (
                lambda row=row: mt.au_prior(["x"], action_units=["AU01"], rows={"x": torch.tensor(row)}),
                f"rows['x'] must be (1,) in [0, 1], got shape (1,): {torch.tensor(row)}",
            )
            for row in ([1.5], [-0.5], [float("nan")])
        ],
        *[
            (
                lambda row=row: mt.au_prior(["x"], rows={"x": row}),
                f"rows['x'] must name expressions among {SEVEN}, or be an (18,) tensor, got {got}",
            )
            for row, got in ((["y"], "['y']"), ([], "[]"), (5, "[5]"), ([0.5, 1.0], "[0.5, 1.0]"))
        ],
        (
            lambda: mt.au_prior(["happiness"], rows={"joy": "sad", "happy": "fear"}),
            "rows must name each class once, got happy more than once: ['joy', 'happy']",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.zeros(3), num_classes=2),
            "target must hold class indices (integers), got torch.float32",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.ones(3) > 0, num_classes=2),
            "target must hold class indices (integers), got torch.bool",
        ),
        (lambda: mt.estimate_au_prior(torch.ones(3, 2), [0], num_classes=2), "target must be a torch.Tensor, got list"),
        (
            lambda: mt.estimate_au_prior(torch.ones(3, 2), torch.zeros(2).long(), num_classes=2),
            "target must be (3,), one class per row of au_target, got (2,)",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=0),
            "num_classes must be a positive integer, got 0",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(1, 2), torch.tensor([0]), num_classes=2.0),
            "num_classes must be a positive integer, got 2.0",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(2, 2), torch.tensor([-1, 1]), num_classes=2),
            "target must lie within 0..1, got -1..1: drop ignored clips first",
        ),
        (
            lambda: mt.estimate_au_prior(torch.ones(2, 2), torch.tensor([1, 3]), num_classes=3),
            "target must lie within 0..2, got 1..3: drop ignored clips first",
        ),
        (lambda: mt.estimate_pos_weight(torch.ones(3)), "au_target must be (n, a), got shape (3,)"),
        (lambda: mt.estimate_pos_weight([1]), "au_target must be a torch.Tensor, got list"),
        *[
            (
                lambda value=value: mt.estimate_pos_weight(torch.full((3, 2), value)),
                "au_target must lie in [0, 1] without NaN: drop clips without a face, binarise intensities",
            )
            for value in (1.5, -0.5, float("nan"))
        ],
    ],
)
def test_messages_in_full(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_estimates_keep_the_type_of_their_labels():
    labels, target = torch.tensor([[1, 0], [1, 1]]), torch.tensor([0, 1])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert mt.estimate_au_prior(labels.to(dtype), target, num_classes=2).dtype == dtype
        assert mt.estimate_pos_weight(labels.to(dtype)).dtype == dtype
        assert mt.estimate_pos_weight(labels.to(dtype), target, num_classes=2).dtype == dtype
        assert mt.clip_au_labels(labels.to(dtype)).dtype == dtype
    assert mt.estimate_au_prior(labels, target, num_classes=2).dtype == torch.float32
    assert mt.clip_au_labels(labels > 0).dtype == torch.float32


def test_classes_may_be_of_any_integer_type_and_none_may_be_there():
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    expected = mt.estimate_au_prior(labels, torch.tensor([0, 1, 0]), num_classes=2)
    assert expected[0].tolist() == [0.5, 0.5]
    for dtype in (torch.uint8, torch.int32):
        found = mt.estimate_au_prior(labels, torch.tensor([0, 1, 0], dtype=dtype), num_classes=2)
        assert torch.equal(found, expected)
    none = mt.estimate_au_prior(torch.zeros(0, 3), torch.zeros(0).long(), num_classes=2)
    assert none.tolist() == [[0.5] * 3] * 2
    assert mt.estimate_pos_weight(torch.zeros(0, 3)).tolist() == [1.0] * 3


def test_shares_of_presence_count_as_shares():
    """Probabilities at the edges of [0, 1] are labels, and half a frame is half a frame."""
    assert mt.clip_au_labels(torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]])).tolist() == [1, 1, 0]
    assert mt.clip_au_labels(torch.ones(1, 2)).tolist() == [1, 1]
    assert mt.clip_au_labels(torch.ones(3, 2), threshold=1).tolist() == [1, 1]


def test_rows_are_found_whatever_the_case_and_blanks():
    own = torch.rand(18, dtype=torch.float64)
    prior = mt.au_prior([" Contempt", "x"], rows={"contempt ": own, "X": ("Anger", " fear")})
    assert torch.equal(prior[0], own.float())
    torch.testing.assert_close(prior[1], (ROWS["angry"] + ROWS["fear"]) / 2)
    assert prior.dtype == torch.float32
    edges = torch.tensor([0.0, 1.0])
    assert torch.equal(mt.au_prior(["x"], action_units=["AU01", "AU02"], rows={"x": edges})[0], edges)


def test_rows_for_a_class_by_any_of_its_names():
    own = torch.rand(18)
    for given in ("happy", "Happiness", "joy"):
        for asked in ("happy", "happiness", " JOY"):
            assert torch.equal(mt.au_prior([asked, "sad"], rows={given: own})[0], own)


def test_counts_of_numpy_and_tensors_are_counts():
    labels, target = torch.rand(11, 3).round(), torch.arange(11) % 5
    expected = mt.estimate_au_prior(labels, target, num_classes=5)
    weight = mt.estimate_pos_weight(labels, target, num_classes=5)
    for classes in (target.max() + 1, target.numpy().max() + 1, np.uint8(5)):
        assert torch.equal(mt.estimate_au_prior(labels, target, num_classes=classes, smoothing=np.float32(1)), expected)
        assert torch.equal(mt.estimate_pos_weight(labels, target, num_classes=classes), weight)
    for classes in (True, 5.0, np.float64(5), "5"):
        with pytest.raises(ValueError, match="num_classes must be a positive integer"):
            mt.estimate_au_prior(labels, target, num_classes=classes)
