import numpy as np
import pytest
import torch

import mertools as mt


@pytest.mark.parametrize(
    ("code", "units"),
    [
        ("L1+R4", {1: 1, 4: 1}),
        ("12 or 14", {12: 0.5, 14: 0.5}),
        ("4+7+10", {4: 1, 7: 1, 10: 1}),
        ("AU6 + AU12", {6: 1, 12: 1}),
        ("U25,26", {25: 1, 26: 1}),
        ("1+2,5", {1: 1, 2: 1, 5: 1}),
        ("17?", {17: 1}),
        ("17 ?", {17: 1}),
        ("9 or 10 or 14", {9: 1 / 3, 10: 1 / 3, 14: 1 / 3}),
        ("12+12 or 14", {12: 1, 14: 0.5}),
        ("38+39+43", {}),
        ("/", {}),
        ("", {}),
        (" ", {}),
        ("none", {}),
        ("0", {}),
        # sides, asymmetry, intensity
        ("R6", {6: 1}),
        ("L12", {12: 1}),
        ("12L", {12: 1}),
        ("4R+7", {4: 1, 7: 1}),
        ("A9+12", {9: 1, 12: 1}),
        ("A/L12", {12: 1}),
        ("L/R 12", {12: 1}),
        ("left 12 + right AU14", {12: 1, 14: 1}),
        ("12(L)+14 (left)", {12: 1, 14: 1}),
        ("R12B", {12: 1}),
        ("12LB+14CR", {12: 1, 14: 1}),
        ("10A/B", {10: 1}),
        ("10A/B+12", {10: 1, 12: 1}),
        ("L12/R14", {12: 1, 14: 1}),
        ("R12C+L12A", {12: 1}),
        # brackets and alternatives
        ("(R6 or R12)+R15", {6: 0.5, 12: 0.5, 15: 1}),
        ("(1+2) or 4", {1: 0.5, 2: 0.5, 4: 0.5}),
        ("((12))", {12: 1}),
        ("1 2 or 4", {1: 1, 2: 0.5, 4: 0.5}),
        ("9or10", {9: 0.5, 10: 0.5}),
        ("ref(7B)+43", {7: 1}),
        # separators
        ("1 2", {1: 1, 2: 1}),
        ("4 7", {4: 1, 7: 1}),
        ("12 L 4", {12: 1, 4: 1}),
        ("4；7", {4: 1, 7: 1}),
        ("４＋７，（９）", {4: 1, 7: 1, 9: 1}),
        ("1、2\u30004", {1: 1, 2: 1, 4: 1}),
        ("6 and 12 & 25/26", {6: 1, 12: 1, 25: 1, 26: 1}),
        # numbers out of spreadsheets, action descriptors and movements
        ("4.0", {4: 1}),
        ("4.0+07", {4: 1, 7: 1}),
        ("AD38", {}),
        ("AD 19+12", {12: 1}),
        ("M59", {}),
        ("AU57+M60+1", {1: 1}),
    ],
)
def test_codes(code, units):
    expected = torch.zeros(18)
    for unit, value in units.items():
        expected[mt.ACTION_UNITS.index(f"AU{unit:02d}")] = value
    found = mt.read_facs(["4", code])
    assert found.unread == {}
    assert torch.equal(found.labels[1], expected)
    assert torch.equal(mt.facs_labels([code])[0], expected)


@pytest.mark.parametrize(
    ("code", "unread", "known"),
    [
        ("?", ["?"], ()),
        ("smile", ["smile"], ()),
        ("14+17+soft focus", ["soft focus"], (14, 17)),
        ("14+17 (unclear)", ["unclear"], (14,)),
        ("12 oder 14", ["oder 14"], ()),
        ("no 12+4", ["no 12"], (4,)),
        ("not(12)+4", ["not"], (4,)),
        ("4+", ["an end after a separator"], (4,)),
        ("4++7", ["+"], (4,)),
        ("(4+7", ["("], ()),
        ("4)+7", [")"], (4, 7)),
        ("123", ["123"], ()),
        ("47", ["47"], ()),
        ("3+4", ["3"], (4,)),
        ("12.5", ["12.5"], ()),
        ("AU", ["AU"], ()),
        ("AD12+4", ["AD12"], (4,)),
        ("M4", ["M4"], ()),
        ("12-14", ["-14"], ()),
        ("1²", ["²"], ()),
        ("٤", ["٤"], ()),
    ],
)
def test_what_is_no_code_is_reported_by_row(code, unread, known):
    found = mt.read_facs(["1+2", code, "12"])
    assert found.unread == {1: unread}
    assert torch.equal(found.labels[[0, 2]], mt.facs_labels(["1+2", "12"]))
    column = [mt.ACTION_UNITS.index(f"AU{unit:02d}") for unit in known]
    assert found.labels[1].isnan().sum() == 18 - len(column)
    assert (found.labels[1, column] == 1).all()
    torch.testing.assert_close(mt.facs_labels(["1+2", code, "12"]), found.labels, equal_nan=True)


def test_rows_with_nan_are_no_targets():
    labels = mt.facs_labels(["4", "?"])
    with pytest.raises(ValueError, match="au_target must lie in .* without NaN"):
        mt.AUPriorLoss()(torch.zeros(2, 7), torch.tensor([0, 1]), torch.zeros(2, 18), labels)


def test_any_columns():
    labels = mt.facs_labels(["AD38+L4", "12"], action_units=["AU38", "AU12", "AU4"])
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert mt.facs_labels(np.array(["4"])).shape == (1, 18)
    assert mt.facs_labels([]).shape == (0, 18)


@pytest.mark.parametrize("codes", ["4+7", [4], [None], 4, None])
def test_what_are_no_strings(codes):
    with pytest.raises(TypeError, match="codes must be a sequence of strings"):
        mt.facs_labels(codes)


@pytest.mark.parametrize("units", ["AU12", ["smile"], [12], ["AU"], ["AU123"]])
def test_columns_that_are_no_units(units):
    with pytest.raises(ValueError, match="action_units must be names such as 'AU12'"):
        mt.facs_labels(["4"], action_units=units)


def test_long_and_deep_cells_end():
    assert list(mt.read_facs(["(" * 50_000]).unread) == [0]
    assert list(mt.read_facs([")" * 50_000]).unread) == [0]
    assert mt.read_facs(["+".join(["12"] * 20_000)]).unread == {}
    assert list(mt.read_facs([" " * 50_000 + "x"]).unread) == [0]


def test_facs_labels_feed_the_estimates():
    labels = mt.facs_labels(["4+7", "12", "6+12"])
    prior = mt.estimate_au_prior(labels, torch.tensor([0, 1, 1]), num_classes=2)
    assert prior[1, mt.ACTION_UNITS.index("AU12")] == 0.75
