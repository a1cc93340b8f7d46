import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments, script="demo.py"):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_synthetic_clip(tmp_path):
    done = run("--out", tmp_path / "demo.png")
    assert done.returncode == 0, done.stderr
    assert "key frames  onset 24  apex 36  offset 56\ntrue        onset 24  apex 36  offset 56" in done.stdout
    before, after = (float(x) for x in done.stdout.split("loss ")[1].split(" after")[0].split(" -> "))
    assert after < before
    assert (tmp_path / "demo.png").stat().st_size > 50_000


def test_a_clip_of_ones_own(tmp_path, real_clip):
    done = run(real_clip, "--out", tmp_path / "demo.png")
    assert done.returncode == 0, done.stderr
    assert "72 frames of 360x640" in done.stdout
    assert (tmp_path / "demo.png").exists()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("demo.py", ("gone.mp4",), "there is nothing at gone.mp4"),
        ("demo.py", ("--out", "x.foo"), "suffix must be one that matplotlib writes"),
        ("demo.py", ("--out", "no/x.png"), "there is no folder"),
        ("stream.py", ("gone.mp4",), "cannot open 'gone.mp4'"),
    ],
)
def test_what_cant_be_used_is_one_line_before_the_work(script, words, message):
    done = run(*words, script=script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script.removesuffix('.py')}: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
