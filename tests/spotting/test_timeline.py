import pytest
import torch

import mertools as mt
from mertools.spotting.timeline import MotionCurve, plot_timeline, shown_expressions, thumbnail, wanted_frames

FOUND = [mt.Expression(10 * i, 10 * i + 3, 10 * i + 8, 0.5 + i / 40, (1.0, 1.0, 2.0)) for i in range(1, 16)]


def test_the_clearest_are_shown_in_order_of_time():
    pictures = {key: torch.zeros(3, 8, 8, dtype=torch.uint8) for key in wanted_frames(FOUND)}
    shown = shown_expressions(FOUND, pictures)
    assert shown == FOUND[3:]  # the later, the surer
    figure = plot_timeline([1.0] * 200, FOUND, pictures, fps=30, title="a $video$")
    texts = [axis.get_title(loc="left") for axis in figure.axes]
    assert "15 expressions: onset to offset shaded, darker where surer; apex in red" in texts
    assert "4  onset 40 · 1.33 s" in texts
    assert sum(bool(axis.images) for axis in figure.axes) == 36


def test_without_pictures_or_expressions(tmp_path):
    assert len(plot_timeline([1.0] * 50, FOUND[:2]).axes) == 1
    figure = plot_timeline([0.0] * 9000, [], fps=30)
    assert figure.axes[0].get_title(loc="left") == "no expression found"
    assert figure.axes[0].get_xlabel() == "seconds"
    figure.savefig(tmp_path / "line.png")
    with pytest.raises(ValueError, match="a value for every frame"):
        plot_timeline([], [])


def test_the_curve_is_what_changes_within_eight_frames():
    clip = torch.zeros(30, 3, 40, 40)
    clip[10:, :, :20] = 60
    curve = MotionCurve()
    frames = list(curve.noting(clip))
    assert len(frames) == len(curve.values) == 30
    assert max(curve.values[:10]) == 0 == max(curve.values[18:])
    assert min(curve.values[10:18]) > 10
    points = MotionCurve()
    list(points.noting(torch.zeros(5, 68, 2)))
    assert points.values == [0.0] * 5


def test_thumbnails_are_small():
    assert thumbnail(torch.zeros(3, 480, 640)).shape == (3, 96, 128)
