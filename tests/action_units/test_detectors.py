from pathlib import Path

import numpy as np
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
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2][:-20] + "\n", lines[3]]))
    with pytest.raises(ValueError, match=r"path has \d+ cells in line 3, 42 were expected"):
        mt.read_openface(path)
    path.write_text("")
    with pytest.raises(ValueError, match="0 AU columns"):
        mt.read_openface(path)
    with pytest.raises(ValueError, match="leave face out"):
        mt.read_openface(table(tmp_path / "a.csv", ROWS, face_id=False), face=2)


# --- what is mended, and said ---------------------------------------------------------------------------------------


def test_a_clean_table_has_no_notes(tmp_path):
    assert mt.read_openface(table(tmp_path / "a.csv", ROWS)).notes == ()


@pytest.mark.parametrize("cell", ["-nan(ind)", "nan", "-nan", "NaN", ""])
def test_a_failed_row_may_hold_no_numbers(tmp_path, cell):
    path = table(tmp_path / "a.csv", [ROWS[0], (2, 0, cell, 0, cell, cell), ROWS[2]])
    aus = mt.read_openface(path)
    assert aus.success.tolist() == [True, False, True]
    assert aus.presence[1].isnan().all()
    assert aus.intensity[1].isnan().all()
    with pytest.raises(ValueError, match="in column AU12_c of line 3, a number was expected"):
        mt.read_openface(table(tmp_path / "a.csv", [ROWS[0], (2, 0, 0.9, 1, cell, 1)]))


def test_a_last_line_that_was_cut_off(tmp_path):
    path = table(tmp_path / "a.csv", ROWS)
    path.write_text(path.read_text()[:-20])
    aus = mt.read_openface(path)
    assert aus.frame.tolist() == [1, 2]
    assert aus.notes == ("line 4, the last one, is cut off and left out",)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2])[:-20])
    with pytest.raises(ValueError, match="cells in line 2"):  # nothing would be left of the table
        mt.read_openface(path)


def test_a_frame_listed_twice(tmp_path):
    aus = mt.read_openface(table(tmp_path / "a.csv", [ROWS[0], ROWS[0], ROWS[1]]))
    assert aus.frame.tolist() == [1, 2]
    assert aus.notes == ("1 lines are there twice and count once",)
    with pytest.raises(ValueError, match="frame 1 twice with different values, in lines 2 and 4"):
        mt.read_openface(table(tmp_path / "a.csv", [ROWS[0], ROWS[1], (1, 0, 0.9, 1, 0, 0)]))
    two = [(1, 0, 0.9, 1, 1, 1), (1, 1, 0.8, 1, 0, 0), (1, 1, 0.7, 1, 0, 0)]
    with pytest.raises(ValueError, match="frame 1 twice"):
        mt.read_openface(table(tmp_path / "a.csv", two), face=1)


def test_intensities_and_presences_out_of_range(tmp_path):
    aus = mt.read_openface(table(tmp_path / "a.csv", [(1, 0, 1, 1, 0, -0.02), (2, 0, 1, 1, 1, 5), (3, 0, 1, 0, 7, -9)]))
    assert aus.intensity[:2, INTENSITIES.index("AU12")].tolist() == [0, 5]
    assert aus.notes == ("1 intensity below 0 became 0",)
    for present, intensity, message in (
        (0, -1.5, "-1.5 in column AU12_r of line 2, -1 to 5 was expected"),
        (0, 5.5, "5.5 in column AU12_r of line 2, -1 to 5 was expected"),
        (2, 1, "2 in column AU12_c of line 2, 0 or 1 was expected"),
        (0.5, 1, "0.5 in column AU12_c of line 2, 0 or 1 was expected"),
    ):
        with pytest.raises(ValueError, match=message):
            mt.read_openface(table(tmp_path / "a.csv", [(1, 0, 1, 1, present, intensity)]))


def test_intensities_alone(tmp_path):
    rows = [(1, 0, 1, 1, 1, 0.99), (2, 0, 1, 1, 1, 1), (3, 0, 1, 0, 1, 3)]
    alone = [f"{unit}_c" for unit in mt.ACTION_UNITS]
    aus = mt.read_openface(table(tmp_path / "a.csv", rows, drop=alone))
    twelve, lip_suck = mt.ACTION_UNITS.index("AU12"), mt.ACTION_UNITS.index("AU28")
    assert aus.presence[:2, twelve].tolist() == [0, 1]
    assert aus.presence[2].isnan().all()
    assert aus.presence[:, lip_suck].isnan().all()
    assert aus.notes == (
        "presence is by intensities of at least 1: the table has no _c columns", "AU28, which has no intensity, is missing",
    )  # fmt: skip
    path = table(tmp_path / "a.csv", rows, drop=[name for name in alone if name != "AU28_c"])
    aus = mt.read_openface(path, threshold=0.5)
    assert aus.presence[:2, [twelve, lip_suck]].tolist() == [[1, 1], [1, 1]]
    assert len(aus.notes) == 1
    for threshold in (-1, 6, float("nan")):
        with pytest.raises(ValueError, match="threshold must be in"):
            mt.read_openface(path, threshold=threshold)


def test_presences_alone(tmp_path):
    aus = mt.read_openface(table(tmp_path / "a.csv", ROWS, drop=[f"{unit}_r" for unit in INTENSITIES]))
    assert aus.presence[0, mt.ACTION_UNITS.index("AU12")] == 1
    assert aus.intensity.shape == (3, 17)
    assert aus.intensity.isnan().all()
    assert aus.notes == ("intensities are missing: the table has no _r columns",)


def landmark_image(path, faces):
    header = ["face", "confidence", "gaze_0_x", *(f"{u}_r" for u in INTENSITIES), *(f"{u}_c" for u in mt.ACTION_UNITS)]
    lines = [",".join([str(i), "0.9", "0.1", *["1"] * 17, *[str(i)] * 18]) for i in range(faces)]
    path.write_text("\n".join([",".join(header), *lines]) + "\n")
    return path


def test_the_table_of_an_image(tmp_path):
    for read in (mt.read_openface, mt.read_action_units):
        found = read(landmark_image(tmp_path / "image.csv", 1))
        assert (found.frame.tolist(), found.success.tolist()) == ([1], [True])
        path = landmark_image(tmp_path / "two.csv", 2)
        with pytest.raises(ValueError, match=r"face must be given, .* holds several: \[0, 1\]"):
            read(path)
        assert read(path, face=1).presence.mean() == 1
        assert read(path, face=np.int64(0)).presence.mean() == 0


# --- other detectors ------------------------------------------------------------------------------------------------


def test_openface2_by_its_header(tmp_path):
    path = table(tmp_path / "a.csv", ROWS)
    plain, found = mt.read_openface(path), mt.read_action_units(path)
    assert (found.source, found.action_units) == ("OpenFace 2", mt.ACTION_UNITS)
    torch.testing.assert_close(found.presence, plain.presence, equal_nan=True)
    strong = [mt.ACTION_UNITS.index(unit) for unit in INTENSITIES]
    torch.testing.assert_close(found.intensity[:, strong], plain.intensity, equal_nan=True)
    assert found.intensity[:, mt.ACTION_UNITS.index("AU28")].isnan().all()
    assert found.frame.tolist() == plain.frame.tolist()


OPENFACE3 = "timestamp,video_path,frame_index,face_id,face_detection,landmarks,emotion,gaze_yaw,gaze_pitch,action_units"


def openface3(path, rows, header=OPENFACE3):
    lines = [
        f'2025-11-28 10:00:00,a.mp4,{frame},{face},"[1, 2]","[[1, 2]]",3,0.1,0.2,{units}' for frame, face, units in rows
    ]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_openface3(tmp_path):
    units = '"[[0.0, 0.2, 0.6, 0.0, 0.0, 0.9, 1.0000001, 0.1]]"'
    found = mt.read_action_units(openface3(tmp_path / "a.csv", [(0, "0.0", units), (1, "", "")]))
    assert found.source == "OpenFace 3"
    assert found.action_units == ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")
    assert found.presence[0].tolist() == [0, 0, 1, 0, 0, 1, 1, 0]
    assert found.presence[1].isnan().all()
    assert (found.success.tolist(), found.frame.tolist()) == ([True, False], [0, 1])
    assert found.intensity.isnan().all()
    label = mt.clip_au_labels(found.presence)
    prior = mt.au_prior(action_units=found.action_units)
    assert mt.AUPriorLoss(prior)(torch.zeros(1, 7), torch.tensor([0]), torch.zeros(1, 8), label[None]).isfinite()
    path = openface3(tmp_path / "a.csv", [(0, 0, units), (0, 1, units)])
    with pytest.raises(ValueError, match=r"several: \[0, 1\]"):
        mt.read_action_units(path)
    assert len(mt.read_action_units(path, face=1).frame) == 1
    assert mt.read_action_units(path, face=0, threshold=0.95).presence.sum() == 1


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('"[[0.1, 0.2]]"', "8 numbers were expected"),
        ('"[[0, 0, 0, 0, 0, 0, 0, x]]"', "8 numbers were expected"),
        ('"[[0, 0, 0, 0, 0, 0, 0, 3]]"', "3 in column action_units of line 2, 0 to 1 was expected"),
    ],
)
def test_bad_outputs_of_openface3(tmp_path, cell, message):
    with pytest.raises(ValueError, match=message):
        mt.read_action_units(openface3(tmp_path / "a.csv", [(0, 0, cell)]))


def fex(path, rows):
    """A Fex table of py-feat: (frame, AU12, AU43) rows, a blank for no face."""
    header = "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,x_0,AU01,AU12,AU24,AU43,anger,input"
    lines = [f"{frame},1,2,3,4,0.99,5,0.25,{smile},0.5,{closed},0.1,a.mp4" for frame, smile, closed in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_pyfeat(tmp_path):
    found = mt.read_action_units(fex(tmp_path / "a.csv", [(0, 0.5, 1), (1, 0.49, 0)]))
    assert (found.source, found.action_units) == ("py-feat", ("AU01", "AU12"))
    assert found.presence.tolist() == [[0, 1], [0, 0]]
    assert found.confidence.tolist() == pytest.approx([0.99, 0.99])
    assert mt.read_action_units(tmp_path / "a.csv", threshold=0.2).presence.tolist() == [[1, 1], [1, 1]]
    path = fex(tmp_path / "a.csv", [(0, 0.5, 1), (0, 0.1, 1), (1, 0.1, 1)])
    with pytest.raises(ValueError, match="frame 0 twice"):
        mt.read_action_units(path)
    second = mt.read_action_units(path, face=1)
    assert second.frame.tolist() == [0]
    assert "the table numbers no faces" in second.notes[0]
    with pytest.raises(ValueError, match=r"face must be among \[0, 1\]"):
        mt.read_action_units(path, face=2)
    with pytest.raises(ValueError, match="1.5 in column AU12 of line 2, 0 to 1 was expected"):
        mt.read_action_units(fex(tmp_path / "a.csv", [(0, 1.5, 1)]))


def test_a_frame_of_pyfeat_without_a_face(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "frame,FaceRectX,FaceScore,AU01,AU12,input\n0.0,1,0.9,0.7,0.1,F:\\src\\a.mp4\n1.0,,,,,a.mp4\n2.0,nan,nan,nan,nan,a.mp4\n"
    )
    found = mt.read_action_units(path)
    assert found.success.tolist() == [True, False, False]
    assert mt.clip_au_labels(found.presence).tolist() == [1, 0]


def libreface(path, rows, change=str):
    detected, strong = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24), (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
    header = [
        "frame_idx",
        "frame_time_in_ms",
        "pitch",
        *(f"au_{n}" for n in detected),
        *(f"au_{n}_intensity" for n in strong),
    ]
    lines = [
        ",".join(map(str, [i, 40 * i, 0.1, *[int(n == 12) for n in detected], *[level] * 12]))
        for i, level in enumerate(rows)
    ]
    path.write_text(
        "\n".join([",".join(map(change, [*header, "facial_expression"])), *(f"{line},happy" for line in lines)]) + "\n"
    )
    return path


@pytest.mark.parametrize("change", [str, str.upper])
def test_libreface(tmp_path, change):
    found = mt.read_action_units(libreface(tmp_path / "a.csv", [0.5, 2.0, -0.1, 5.2], change))
    assert found.source == "LibreFace"
    numbers = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26)
    assert found.action_units == tuple(f"AU{n:02d}" for n in numbers)
    assert found.presence[:, numbers.index(12)].tolist() == [1, 1, 1, 1]
    assert found.presence[:, numbers.index(1)].tolist() == [0, 0, 0, 0]
    assert found.presence[:, numbers.index(25)].tolist() == [0, 1, 0, 1]
    assert found.intensity[:, numbers.index(25)].tolist() == [0.5, 2, 0, 5]
    assert found.intensity[:, numbers.index(7)].isnan().all()
    assert found.notes == (
        "12 intensities below 0 became 0", "12 intensities above 5 became 5",
        "presence of AU05, AU09, AU20, AU25, AU26 is by intensities of at least 1",
    )  # fmt: skip
    assert found.success.all()
    assert found.frame.tolist() == [0, 1, 2, 3]


def test_tables_of_nobody(tmp_path):
    path = tmp_path / "a.csv"
    for text in ("clip,label\na,1\n", "AU01,AU12\n0,1\n", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match="path must be a table of OpenFace 2, OpenFace 3, py-feat, LibreFace"):
            mt.read_action_units(path)
    with pytest.raises(FileNotFoundError, match="there is none at"):
        mt.read_action_units(tmp_path / "gone.csv")
    for header in (OPENFACE3, "frame,FaceRectX,AU12", "frame_idx,au_12"):
        path.write_text(header + "\n")
        with pytest.raises(ValueError, match="a header and no frames"):
            mt.read_action_units(path)
    for face in (0.5, True, "0"):
        with pytest.raises(ValueError, match="face must be an integer"):
            mt.read_action_units(table(path, ROWS), face=face)
