from pathlib import Path

import pytest
import torch

import mertools as mt

INTENSITIES = [unit for unit in mt.ACTION_UNITS if unit != "AU28"]
REAL = Path(__file__).parents[3] / "shared" / "data" / "OpenFace_Test.csv"


def table(path, rows, *, separator=", ", face_id=True, bom=False, drop=(), decoys=True):
    """An OpenFace table of (frame, face, confidence, success, presence of AU12, intensity of AU12) rows."""
    header = ["frame", *(["face_id"] if face_id else []), "timestamp", "confidence", "success"]
    header += ["p_rx", "p_ry"] if decoys else []
    header += [f"{unit}_r" for unit in INTENSITIES] + [f"{unit}_c" for unit in mt.ACTION_UNITS]
    header = [name for name in header if name not in drop]
    lines = [separator.join(header)]
    for frame, face, confidence, success, present, intensity in rows:
        cells = dict.fromkeys(header, 0) | {"p_rx": 0.7}
        cells |= {"frame": frame, "face_id": face, "confidence": confidence, "success": success}
        cells |= {"AU12_c": present, "AU12_r": intensity, "AU28_c": present}
        lines.append(separator.join(str(cells[name]) for name in header))
    path.write_text(("\ufeff" if bom else "") + "\n".join(lines) + "\n", encoding="utf-8")
    return path


ROWS = [(1, 0, 0.98, 1, 1, 2.5), (2, 0, 0.1, 0, 0, 0), (4, 0, 0.9, 1, 0, 0.3)]


@pytest.mark.parametrize("separator", [",", ", "])
@pytest.mark.parametrize("face_id", [True, False])
@pytest.mark.parametrize("bom", [True, False])
def test_every_header(tmp_path, separator, face_id, bom):
    aus = mt.read_openface(table(tmp_path / "a.csv", ROWS, separator=separator, face_id=face_id, bom=bom))
    assert aus.presence.shape == (3, 18)
    assert aus.intensity.shape == (3, 17)
    assert aus.frame.tolist() == [1, 2, 4]
    assert aus.success.tolist() == [True, False, True]
    assert aus.confidence.tolist() == pytest.approx([0.98, 0.1, 0.9])
    assert aus.presence[0].nonzero().flatten().tolist() == [
        mt.ACTION_UNITS.index("AU12"),
        mt.ACTION_UNITS.index("AU28"),
    ]
    assert aus.intensity[0, INTENSITIES.index("AU12")] == 2.5
    assert aus.intensity[0].count_nonzero() == 1
    assert aus.presence[1].isnan().all()  # no face is not "no movement"
    assert aus.intensity[1].isnan().all()
    label = mt.clip_au_labels(aus.presence)
    assert label[mt.ACTION_UNITS.index("AU12")] == 1  # one of two frames with a face


def test_several_faces(tmp_path):
    rows = [(1, 0, 0.9, 1, 1, 1), (1, 3, 0.8, 1, 0, 0), (2, 0, 0.9, 1, 1, 1)]
    path = table(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=r"face must be given, .* holds several: \[0, 3\]"):
        mt.read_openface(path)
    assert mt.read_openface(path, face=0).frame.tolist() == [1, 2]
    assert mt.read_openface(path, face=3).confidence.item() == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"face must be among \[0, 3\]"):
        mt.read_openface(path, face=1)


def test_a_real_table():
    if not REAL.exists():
        pytest.skip("the real table is not part of a clone")
    aus = mt.read_openface(REAL)
    assert aus.presence.shape == (100, 18)
    assert aus.success.all()
    assert set(aus.presence.unique().tolist()) == {0, 1}
    assert 0 <= aus.intensity.min() <= aus.intensity.max() <= 5
    assert aus.frame.tolist() == list(range(1, 101))


def test_bad_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is none at"):
        mt.read_openface(tmp_path / "gone.csv")
    path = table(tmp_path / "a.csv", ROWS, drop=("AU45_c", "AU12_r"))
    with pytest.raises(ValueError, match="33 AU columns and lacks AU45_c, AU12_r"):
        mt.read_openface(path)
    with pytest.raises(ValueError, match="no frames"):
        mt.read_openface(table(tmp_path / "a.csv", []))
    with pytest.raises(ValueError, match="'x' in column AU12_r of line 3"):
        mt.read_openface(table(tmp_path / "a.csv", [*ROWS[:1], (2, 0, 1, 1, 1, "x")]))
    path = table(tmp_path / "a.csv", ROWS)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="of line 4"):
        mt.read_openface(path)
    path.write_text("")
    with pytest.raises(ValueError, match="0 AU columns"):
        mt.read_openface(path)
    with pytest.raises(ValueError, match="leave face out"):
        mt.read_openface(table(tmp_path / "a.csv", ROWS, face_id=False), face=2)


@pytest.mark.parametrize(
    ("code", "units"),
    [
        ("L1+R4", {1: 1, 4: 1}),
        ("12 or 14", {12: 0.5, 14: 0.5}),
        ("4+7+10", {4: 1, 7: 1, 10: 1}),
        ("AU6 + AU12", {6: 1, 12: 1}),
        ("R12B", {12: 1}),
        ("U25,26", {25: 1, 26: 1}),
        ("1+2,5", {1: 1, 2: 1, 5: 1}),
        ("17?", {17: 1}),
        ("9 or 10 or 14", {9: 1 / 3, 10: 1 / 3, 14: 1 / 3}),
        ("12+12 or 14", {12: 1, 14: 0.5}),
        ("38+39+43", {}),
        ("/", {}),
        ("", {}),
        ("none", {}),
        ("0", {}),
    ],
)
def test_facs_codes(code, units):
    expected = torch.zeros(18)
    for unit, value in units.items():
        expected[mt.ACTION_UNITS.index(f"AU{unit:02d}")] = value
    assert torch.equal(mt.facs_labels([code])[0], expected)


@pytest.mark.parametrize("code", ["smile", "4+", "12 oder 14", "123", "4++7", "AU"])
def test_what_is_no_facs_code(code):
    with pytest.raises(ValueError, match="FACS codes such as .* for clip 1"):
        mt.facs_labels(["12", code])


def test_facs_labels_feed_the_estimates():
    labels = mt.facs_labels(["4+7", "12", "6+12"])
    prior = mt.estimate_au_prior(labels, torch.tensor([0, 1, 1]), num_classes=2)
    assert prior[1, mt.ACTION_UNITS.index("AU12")] == 0.75
    with pytest.raises(TypeError, match="codes must be a sequence"):
        mt.facs_labels("4+7")
    with pytest.raises(TypeError, match="codes must be a sequence"):
        mt.facs_labels([4])


def test_label_cache_round_trip(tmp_path):
    labels = {"00001.csv/1": torch.randint(0, 2, (18,)).float(), "00002": torch.rand(18)}
    labels["no-face"] = torch.full((18,), torch.nan)
    path = tmp_path / "AU.txt"
    path.write_text("old")
    mt.write_au_labels(path, labels)
    read = mt.read_au_labels(path)
    assert list(read) == list(labels)
    for name, row in labels.items():
        torch.testing.assert_close(read[name], row, rtol=0, atol=0, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == ["AU.txt"]


def test_label_cache_of_au_dfer(tmp_path):
    path = tmp_path / "AU_DFEW.txt"
    path.write_text(" 00001.csv/1 " + " ".join(["1", "0"] * 9) + "\n\n 00002.csv/1 " + " ".join(["0"] * 18) + "\n")
    read = mt.read_au_labels(path)
    assert read["00001.csv/1"].tolist() == [1, 0] * 9
    assert not read["00002.csv/1"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 0 1", "got 3 in line 1"),
        ("a " + "2 " * 18, r"values in \[0, 1\]"),
        ("a " + "x " * 18, "no number in line 1"),
        (("a " + "1 " * 18 + "\n") * 2, "'a' twice, again in line 2"),
    ],
)
def test_bad_caches(tmp_path, text, message):
    path = tmp_path / "AU.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        mt.read_au_labels(path)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"a b": torch.ones(18)}, ValueError, "names without blanks"),
        ({"a": torch.ones(17)}, ValueError, r"labels\['a'\] must be \(18,\)"),
        ({"a": torch.full((18,), 3.0)}, ValueError, r"in \[0, 1\]"),
        ({"a": [1] * 18}, TypeError, "must be a torch.Tensor"),
        ([1], TypeError, "labels must map"),
        ({1: torch.ones(18)}, TypeError, "labels must have strings as names, got 1"),
    ],
)
def test_what_is_not_written(tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        mt.write_au_labels(tmp_path / "AU.txt", labels)
    assert list(tmp_path.iterdir()) == []
