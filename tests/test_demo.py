import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(DEMO), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_made_clip(tmp_path):
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


@pytest.mark.parametrize("clip", ["gone.mp4"])
def test_an_unusable_clip(tmp_path, clip):
    done = run(tmp_path / clip, "--out", tmp_path / "demo.png")
    assert done.returncode == 2
    assert done.stderr.startswith("demo: error: ")
    assert done.stderr.count("\n") == 1
