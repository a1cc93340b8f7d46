import pytest
import torch

import mertools as mt
from mertools.spotting.landmarks import landmark_fps

POINTS = 68


def table(
    rows, *, before=("frame", " face_id", " timestamp", " confidence", " success"), points=POINTS, separator=", "
):
    """A table as OpenFace writes it."""
    header = [*before, *(f"x_{i}" for i in range(points)), *(f"y_{i}" for i in range(points))]
    return (
        separator.join(name.strip() for name in header)
        + "\n"
        + "".join(separator.join(map(str, row)) + "\n" for row in rows)
    )


def row(number, *, face=0, success=1, x=5.0, y=7.0):
    return [number, face, number / 25, 0.98, success, *[x] * POINTS, *[y + i for i in range(POINTS)]]


def test_openface(tmp_path):
    file = tmp_path / "clip.csv"
    file.write_text(table([row(1), row(2, x=6.5)]))
    points = mt.read_landmarks(file)
    assert points.shape == (2, 68, 2)
    assert points[1, 3].tolist() == [6.5, 10.0]
    assert landmark_fps(file) == pytest.approx(25)


def test_py_feat(tmp_path):
    file = tmp_path / "clip.csv"
    columns = [
        "FaceRectX",
        "FaceRectY",
        *(f"x_{i}" for i in range(POINTS)),
        *(f"y_{i}" for i in range(POINTS)),
        "Pitch",
    ]
    line = ["1", "2", *["3.5"] * POINTS, *["4.5"] * POINTS, "0.1"]
    file.write_text(",".join(columns) + "\n" + ",".join(line) + "\n" + ",".join(line) + "\n")
    assert mt.read_landmarks(file).shape == (2, 68, 2)
    assert landmark_fps(file) is None


def test_a_frame_without_a_face_is_still_and_told(tmp_path):
    file = tmp_path / "clip.csv"
    file.write_text(table([row(1, success=0, x=0), row(2), row(3), row(4, success=0, x="nan"), row(5)]))
    with pytest.warns(UserWarning, match="no face in 2 of 5 frames, which are taken for still"):
        points = mt.read_landmarks(file)
    assert torch.equal(points, points[1].expand_as(points))


def test_spotting_reads_it(tmp_path):
    file = tmp_path / "clip.csv"
    random = torch.Generator().manual_seed(1)
    rows = []
    for i in range(260):
        extent = max(0.0, min((i - 100) / 8, 1.0, (140 - i) / 8))
        x = torch.rand(POINTS, generator=torch.Generator().manual_seed(2)) * 100
        y = torch.rand(POINTS, generator=torch.Generator().manual_seed(3)) * 100
        y[48:60] -= 4 * extent
        noise = 0.1 * torch.randn(2, POINTS, generator=random)
        rows.append([i + 1, 0, i / 30, 0.98, 1, *(x + noise[0]).tolist(), *(y + noise[1]).tolist()])
    file.write_text(table(rows))
    found = [(one.onset, one.offset) for one in mt.spot_expressions(file, longest=2.0)]  # fps by the timestamps
    assert mt.spotting_scores([found], [[(100, 140)]])[:3] == (1, 0, 0)
    assert mt.spot_expressions(str(file), longest=0.5) == []
    with pytest.raises(ValueError, match="box must be None for landmarks"):
        mt.spot_expressions(file, box=(0, 0, 5, 5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame, AU01_r\n1, 0.5\n", "no landmarks: columns x_0"),
        ("x_0,x_1,y_0\n1,2,3\n", "lacks the columns y_1"),
        (table([]), "has no rows"),
        (table([row(1, success=0), row(2, success=0), row(3)]), "a face in only 1 of 3 frames"),
        (table([row(1), row(1)]), "row 3: a second face in one frame"),
        (table([row(1), row(1, face=1)]), "row 3: a second face"),
        (table([row(1), row(2, x="five")]), "row 3: holds what is no number"),
        (table([row(1), row(2)[:9]]), "row 3: has 9 cells of 141: cut off"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    file = tmp_path / "clip.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        mt.read_landmarks(file)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at"):
        mt.read_landmarks(tmp_path / "clip.csv")
