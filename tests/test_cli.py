import io
import json
import os
import re
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import mertools as mt
from mertools import cli
from mertools.cli import main, save_figure


def write(clip, folder):
    folder.mkdir()
    for i, frame in enumerate(clip.frames):
        cv2.imwrite(str(folder / f"img{i + 46}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1])
    return str(folder)


@pytest.fixture(scope="module")
def smile():
    return mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48, amplitude=3.0)


@pytest.fixture
def folder(smile, tmp_path):
    return write(smile, tmp_path / "clip")


def test_select_prints_the_key_frames(folder, smile, capsys):
    assert main(["select", folder]) == 0
    keys = mt.select_keyframes(smile.frames[None])
    widths = [f"{width:.0f}" for width in keys.spread[0].tolist()]
    words = (
        f"onset 10 ± {widths[0]}  apex 18 ± {widths[1]}  offset 30 ± {widths[2]}  evidence {keys.evidence.item():.2f}"
    )
    assert capsys.readouterr().out == f"{folder}: {words}  (40 frames)\n"


def test_select_says_what_to_look_at_again(smile, tmp_path, capsys):
    frames = smile.frames
    still = frames[:1].repeat(20, 1, 1, 1)
    other = mt.drawn_portrait(48).flip(2)[None].repeat(12, 1, 1, 1)
    for name, clip, words in (
        ("still", still, "nothing found: below an evidence of 0.5"),
        ("ends", frames[:19], "the movement reaches the last frame: the clip may cut it off"),
        ("cut", torch.cat((255 - other, frames)), "the clip is cut (a new picture at frame 12)"),
    ):
        assert main(["select", write(smile._replace(frames=clip), tmp_path / name)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert words in lines[1]


def test_select_json(folder, smile, capsys):
    assert main(["select", "--json", folder, folder]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = mt.select_keyframes(smile.frames[None])
    expected = {"clip": folder, "frames": 40, "onset": 10, "apex": 18, "offset": 30, "score": keys.score.item()}
    expected["evidence"] = pytest.approx(keys.evidence.item(), abs=1e-4)
    expected["spread"] = pytest.approx(keys.spread[0].tolist(), abs=0.01)
    assert lines == [expected, expected]


def test_select_refines_an_annotation(folder, capsys):
    assert main(["select", folder, "--onset", "7", "--apex", "21", "--offset", "34", "--refine"]) == 0
    assert re.match(
        rf"{re.escape(folder)}: onset 10 ± \d+  apex 18 ± \d+  offset 30 ± \d+  evidence", capsys.readouterr().out
    )
    assert main(["select", folder, "--refine"]) == 2
    assert "--refine searches around an annotation" in capsys.readouterr().err


def test_select_near_an_annotation(folder, smile, capsys):
    assert main(["select", folder, "--onset", "4", "--apex", "24", "--offset", "35", "--preset", "wide"]) == 0
    keys = mt.FrameSelector.preset("wide")(smile.frames[None], 4, 24, 35)
    assert f"onset {int(keys.onset)}  apex {int(keys.apex)}  offset {int(keys.offset)}" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_select_plot(folder, tmp_path, suffix):
    target = tmp_path / f"figure.{suffix}"
    assert main(["select", folder, "--plot", str(target)]) == 0
    assert target.stat().st_size > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", f"figure.{suffix}"]


def test_a_figure_is_written_whole_or_not_at_all(tmp_path):
    class Broken:
        canvas = Figure().canvas

        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError("disk full")

    target = tmp_path / "figure.png"
    target.write_text("the old one")
    with pytest.raises(OSError, match="disk full"):
        save_figure(Broken(), target)
    assert target.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "mertools", *arguments], capture_output=True, text=True, check=False)


def test_unusable_clips_are_one_line_and_status_2(tmp_path, smile, folder):
    empty, broken, nothing = tmp_path / "empty.mp4", tmp_path / "broken.mp4", tmp_path / "nothing"
    empty.write_bytes(b"")
    broken.write_bytes(b"this is no video" * 99)
    nothing.mkdir()
    single = write(smile._replace(frames=smile.frames[:1]), tmp_path / "single")
    cases = {
        str(tmp_path / "gone.mp4"): "nothing at",
        str(empty): "empty file",
        str(broken): "no video that OpenCV can decode",
        str(nothing): "folder without images",
        single: "at least 2 frames, there is 1",
    }
    for clip, message in cases.items():
        done = run("select", clip)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"mertools: error: {clip}: ")
        assert message in done.stderr
    done = run("select", str(empty), folder)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{folder}: onset 10")  # the good clip is still done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--apex", "3"], "--onset and --apex go together"),
        (["--offset", "3"], "--onset and --apex go together"),
        (["--preset", "wide"], "--preset sets the windows around an annotation"),
        (["--onset", "9" * 25, "--apex", "3"], "onset must be"),
        (["--size", "100000000"], "size must be"),
        (["--onset", "9", "--apex", "3"], "out of order"),
        (["--onset", "1", "--apex", "3", "--offset", "99"], "out of range"),
        (["--size", "0"], "size must be"),
    ],
)
def test_bad_arguments(folder, capsys, arguments, message):
    assert main(["select", folder, *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "message"), [("no/such/folder/x.png", "there is no folder"), ("x.xyz", "suffix must be one that")]
)
def test_a_figure_that_cant_be_written_names_the_option(folder, tmp_path, capsys, target, message):
    assert main(["select", folder, "--plot", str(tmp_path / target)]) == 2
    output = capsys.readouterr()
    assert output.out == ""  # it is said before the work
    assert output.err.startswith(f"mertools: error: --plot {tmp_path / target}: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_a_folder_of_videos_is_told_to_name_them(tmp_path, capsys):
    for name in ("b.mp4", "a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert main(["select", str(tmp_path)]) == 2
    assert f"it is a folder of videos, name the files: mertools select {tmp_path}/*.mp4" in capsys.readouterr().err
    (tmp_path / "c.AVI").write_bytes(b"x")
    assert main(["select", str(tmp_path)]) == 2
    assert f"mertools select {tmp_path / 'a.mp4'} ..." in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_damaged_video_is_told_of_by_mertools_alone(tmp_path, cut):
    """FFmpeg writes to the file descriptor itself: a process of its own shows it."""
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(20):
        writer.write(np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    for i in range(3000, len(data) - 3000, 701):
        data[i] ^= 255
    path.write_bytes(data[: int(cut * len(data))])
    assert [line for line in run("select", str(path)).stderr.splitlines() if not line.startswith("mertools: ")] == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_long_work_is_told_on_a_terminal(monkeypatch):
    monkeypatch.setattr(cli, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with cli.telling("searching 472 frames") as tell:
        while "searching 472 frames (" not in shown.getvalue():
            time.sleep(0.01)
        tell("drawing")
        while "drawing (" not in shown.getvalue():
            time.sleep(0.01)
    *_, last = shown.getvalue().split("\r")
    assert last == ""
    assert shown.getvalue().split("\r")[-2].strip() == ""


def test_nothing_is_told_elsewhere(monkeypatch):
    monkeypatch.setattr(cli, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with cli.telling("searching 472 frames"):
        pass
    assert shown.getvalue() == ""


def test_names_that_are_hard_to_print(smile, tmp_path):
    folder = write(smile, tmp_path / "a$\\b$ line\nbreak ü")
    done = subprocess.run(
        [sys.executable, "-m", "mertools", "select", folder, folder + "x", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["onset"] == 10
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_reading(folder):
    command = f"{sys.executable} -m mertools select {folder} {folder} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_version_and_usage(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mertools {mt.__version__}\n"
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err
