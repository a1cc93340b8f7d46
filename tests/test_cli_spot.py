"""``mertools spot``."""

import csv
import json
import re
import struct

import cv2
import numpy as np
import pytest
import torch

import mertools as mt
from mertools.cli import main

E = mt.SyntheticExpression


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video file of 130 frames with one smile, and the folder it lies in."""
    source = mt.SyntheticVideo(130, [E(40, 48, 56, 70, "smile", 3.0)], size=72, noise=0.5, seed=3)
    file = tmp_path_factory.mktemp("videos") / "one.avi"
    write(file, [frame.permute(1, 2, 0).numpy() for frame in source])
    return file


def write(file, images, fps=25.0):
    h, w = images[0].shape[:2]
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), fps, (w, h))
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()


def test_text(video, capsys):
    assert main(["spot", str(video)]) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first == f"{video}: 1 expression in 130 frames, 5.2 s"
    found = re.fullmatch(
        r" +1  onset +(\d+)  apex +(\d+)  offset +(\d+) +1\.\d\d s, lasts 1\.\d\d s \(macro\)  evidence 0\.\d\d  "
        r"± \d+/\d+/\d+ frames",
        second,
    )
    assert found, second
    assert all(abs(int(a) - b) <= 4 for a, b in zip(found.groups(), (40, 52, 70), strict=True))
    assert err == ""


def test_json_csv_plot_and_clips_of_a_folder_of_videos(video, tmp_path, capsys):
    table, picture, clips = tmp_path / "found.csv", tmp_path / "line.png", tmp_path / "cut" / "out"
    arguments = ["--json", "--csv", str(table), "--plot", str(picture), "--clips", str(clips)]
    assert main(["spot", str(video.parent), *arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["video"] == str(video)
    assert found["frames"] == 130
    assert found["fps"] == 25
    (one,) = found["expressions"]
    assert list(one) == ["onset", "apex", "offset", "evidence", "spread"]
    assert one == {**mt.spot_expressions(video)[0]._asdict(), "spread": one["spread"]}
    with table.open(newline="") as file:
        assert list(csv.reader(file)) == [["video", "onset", "offset"], ["one", str(one["onset"]), str(one["offset"])]]
    assert cv2.imread(str(picture)).shape[1] > 1000
    (folder,) = clips.iterdir()
    assert folder.name == f"one_{one['onset']}-{one['offset']}"
    cut = mt.read_clip(folder)
    assert torch.equal(cut, mt.read_clip(video)[one["onset"] : one["offset"] + 1])
    assert (folder / f"img{one['onset']:06d}.png").exists()
    assert main(["spot", str(video), "--clips", str(clips)]) == 2  # never written over
    assert "which is there already" in capsys.readouterr().err


def test_limits_fps_and_box(video, tmp_path, capsys):
    assert main(["spot", str(video), "--longest", "0.5"]) == 0
    assert "no expression in 130 frames" in capsys.readouterr().out
    assert main(["spot", str(video), "--longest", "0.5", "--fps", "100"]) == 0
    assert "(micro)" in capsys.readouterr().out
    framed = tmp_path / "framed.avi"
    images = mt.read_clip(video).permute(0, 2, 3, 1).numpy()
    write(framed, [cv2.copyMakeBorder(image, 8, 40, 100, 4, cv2.BORDER_CONSTANT) for image in images])
    assert main(["spot", str(framed), "--box", "100,8,72,72"]) == 0
    out, err = capsys.readouterr()
    assert "1 expression in 130 frames" in out
    assert err == ""
    assert main(["spot", str(framed)]) == 0
    assert "mertools: warning" in (err := capsys.readouterr().err)
    assert "no box was given and most of what moves lies off the middle" in err


def test_what_is_wrong_is_one_line_and_the_others_are_done(video, tmp_path, capsys):
    empty = tmp_path / "empty.avi"
    empty.write_bytes(b"")
    table = tmp_path / "found.csv"
    assert main(["spot", str(empty), "nowhere.mp4", str(video), "--csv", str(table)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{video}: 1 expression")
    lines = err.splitlines()
    assert len(lines) == 2
    assert "path is an empty file" in lines[0]
    assert "there is nothing at nowhere.mp4" in lines[1]
    assert len(table.read_text().splitlines()) == 2


def test_a_video_that_ends_in_mid_frame(video, tmp_path, capsys):
    whole = video.read_bytes()
    torn = tmp_path / "torn.avi"
    torn.write_bytes(whole[: int(0.7 * len(whole))])
    assert main(["spot", str(torn)]) == 0
    out, err = capsys.readouterr()
    assert re.match(rf"{re.escape(str(torn))}: \d expression", out)
    assert "cut off?" in err or err == ""


def test_rotation_in_the_file_turns_the_frames(tmp_path):
    """A telephone's video: landscape frames and a matrix that turns them."""
    file = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (96, 64))
    for _ in range(4):
        writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    data = file.read_bytes()
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    file.write_bytes(data[:place] + turned + data[place + 36 :])
    assert mt.read_clip(file).shape == (4, 3, 96, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "line.png", "--csv", "a.csv"], "--plot takes one video at a time"),
        (["--csv", "nowhere/found.csv"], "--csv nowhere/found.csv"),
    ],
)
def test_bad_targets(video, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    videos = [str(video)] * (2 if "--plot" in arguments else 1)
    assert main(["spot", *videos, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_box_that_is_none(video, capsys):
    with pytest.raises(SystemExit):
        main(["spot", str(video), "--box", "1,2,3"])
    assert "four whole numbers X,Y,W,H" in capsys.readouterr().err
    assert main(["spot", str(video), "--box", "0,0,500,500"]) == 2
    assert "box must lie within the picture of 72x72" in capsys.readouterr().err
    assert main(["spot", str(video), "--detector", "nowhere.onnx"]) == 2
    assert "detector must be a YuNet ONNX file" in capsys.readouterr().err
    assert main(["spot", str(video), "--detector", "nowhere.onnx", "--box", "0,0,9,9"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["select", str(video), "--box", "0,0,500,500"]) == 2
    assert "box must lie within" in capsys.readouterr().err


def test_landmarks(tmp_path, capsys):
    file = tmp_path / "face.csv"
    header = [f"{axis}_{i}" for axis in "xy" for i in range(20)]
    file.write_text("\n".join([",".join(header), *[",".join(["5"] * 20 + ["6"] * 20)] * 30]))
    assert main(["spot", str(file), "--plot", str(tmp_path / "line.png")]) == 0
    assert capsys.readouterr().out == f"{file}: no expression in 30 frames\n"
