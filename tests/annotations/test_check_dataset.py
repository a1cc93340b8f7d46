import csv

import pytest
from annotation_tables import CASME2, CASME2_HEADER, make_frames, write_csv, write_table

import mertools as mt


@pytest.fixture
def dataset(tmp_path):
    """A CASME II of four rows, each wrong in its own way, and folders to match."""
    rows = [
        CASME2_HEADER,
        ["01", "fine", None, 10, 15, 20, None, "4", "disgust"],
        ["01", "short", None, 10, 15, 20, None, "4", "disgust"],
        ["01", "gap", None, 10, 15, 20, None, "4", "disgust"],
        ["02", "nofolder", None, 10, 15, 20, None, "4", "disgust"],
        ["02", "fine", None, 20, 15, 10, None, "4", "joy"],
        ["02", "outside", None, 10, 25, 20, None, "4", "fear"],
        ["01", "fine", None, 10, "x", 20, None, "4", "disgust"],
        ["01", "bad", None, 10, 15, 20, None, "4", "disgust"],
    ]
    path = write_csv(tmp_path / "codes.csv", rows)
    root = tmp_path / "frames"
    make_frames(root / "sub01" / "fine", range(10, 21))
    make_frames(root / "sub01" / "short", range(10, 19))
    make_frames(root / "sub01" / "gap", [10, *range(14, 21)])
    make_frames(root / "sub02" / "fine", range(5, 31))
    make_frames(root / "sub02" / "outside", range(5, 31))
    make_frames(root / "sub03" / "alone", range(3))
    make_frames(root / "sub01" / "bad", [10], "cover.jpg")
    return path, root


def test_every_kind_of_finding_names_its_row(dataset):
    path, root = dataset
    report = mt.check_dataset(path, root, "casme2")
    assert not report
    assert {(p.kind, p.row) for p in report.problems} == {
        ("missing frame", 3),
        ("missing frame", 4),
        ("no folder", 5),
        ("order", 6),
        ("label", 6),
        ("apex outside", 7),
        ("cell", 8),
        ("missing key", 8),
        ("duplicate", 8),
        ("folder", 9),
        ("folder without row", 0),
    }
    texts = {(p.kind, p.row): str(p) for p in report.problems}
    assert "row 3 (01/short): offset 20 has no image" in texts["missing frame", 3]
    assert "3 of the 11 frames 10..20 have no image" in texts["missing frame", 4]
    assert "ApexFrame holds 'x', a frame number was expected" in texts["cell", 8]
    assert "Estimated Emotion holds 'joy', known are others" in texts["label", 6]
    assert "sub03/alone" in texts["folder without row", 0]
    text = str(report)
    assert "8 rows, 7 folders of frames: 11 findings" in text
    assert "missing frame: 2" in text


def test_csv_has_them_all(dataset, tmp_path):
    path, root = dataset
    report = mt.check_dataset(path, root, "casme2")
    report.write_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert rows[0]["row"] == "3"
    assert rows[0]["table"] == str(path)


def test_nothing_wrong(tmp_path):
    root = tmp_path / "frames"
    make_frames(root / "sub01" / "EP02_01f", range(46, 87), "reg_img{}.jpg")
    path = write_csv(tmp_path / "codes.csv", CASME2[:2])
    report = mt.check_dataset(path, root, "casme2")
    assert report
    assert str(report) == "1 rows, 1 folders of frames: nothing wrong"


def test_annotations_and_the_table_alone(tmp_path):
    clips = mt.read_annotations(write_table(tmp_path, "casme2"), "casme2")
    assert mt.check_dataset(clips).counts == {"missing key": 1, "apex outside": 1}
    assert mt.check_dataset(clips).problems == tuple(clips.problems)


def test_promised_counts_of_frames(tmp_path):
    make_frames(tmp_path / "frames" / "00001", range(1, 8), "{}.jpg")
    (tmp_path / "list.txt").write_text("00001 16 3\n")
    report = mt.check_dataset(tmp_path / "list.txt", tmp_path / "frames", "dfew-list")
    assert [(p.kind, p.row) for p in report.problems] == [("frame count", 1)]


def test_a_long_report_is_cut_and_says_so(tmp_path):
    clips = [mt.ClipAnnotation("x", "1", str(i), 5, 9, 7, row=i) for i in range(30)]
    assert "... and 10 more" in str(mt.check_dataset(clips))


def test_a_path_needs_a_dataset(tmp_path):
    with pytest.raises(ValueError, match="dataset must be given"):
        mt.check_dataset(tmp_path / "codes.csv", tmp_path)
