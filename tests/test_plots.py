import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import mertools as mt
from mertools.audit.plots import MARKERS


@pytest.fixture(scope="module")
def clip():
    return mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [a.get_title() for a in figure.axes]


@pytest.mark.parametrize("form", ["uint8", "float", "batch of one", "grey"])
def test_shows_the_curve_the_frames_and_the_motion(clip, form):
    frames = {
        "uint8": clip.frames,
        "float": clip.frames / 255,
        "batch of one": clip.frames[None],
        "grey": clip.frames[:, :1],
    }[form]
    keys = mt.select_keyframes(clip.frames[None])
    figure = mt.plot_keyframes(frames, keys, truth=(clip.onset, clip.apex, clip.offset), title="A smile")
    words = texts(figure)
    assert {"onset 10", "apex 18", "offset 30", "apex − onset", "apex − offset"} <= set(words)
    assert any("true: onset 10, apex 18, offset 30" in word for word in words)
    thin, thick = (line.get_ydata() for line in figure.axes[0].lines[:2])
    distance = mt.pairwise_distance(clip.frames[None])[0, 10]
    scale = (3 * 48 * 48) ** 0.5
    if form in ("uint8", "batch of one"):
        steps = clip.frames.float().diff(dim=0).square().mean((1, 2, 3)).sqrt().median()
        assert thin == pytest.approx(((distance / scale).square() - steps.square()).clamp(min=0).sqrt().numpy())
    # The curve that is drawn is the one that the search fitted: at rest outside the key frames, up within them.
    assert abs(thick[:10]).max() < 0.05 * thick[18]
    assert thick[14] > 0.2 * thick[18]
    assert len(figure.axes) == 7
    assert any("nine times in ten, onset ± 1" in word for word in words)


def test_key_frames_of_the_windows_are_drawn_over_the_distance(clip):
    figure = mt.plot_keyframes(clip.frames, mt.select_keyframes(clip.frames[None], 9, 17, 31))
    assert figure.axes[0].lines[1].get_ydata() == pytest.approx(figure.axes[0].lines[0].get_ydata())
    assert not any("nine times in ten" in word for word in texts(figure))


def test_a_clip_in_which_nothing_moves(tmp_path):
    frames = torch.full((9, 3, 16, 16), 7, dtype=torch.uint8)
    figure = mt.plot_keyframes(frames, mt.select_keyframes(frames[None]), title="50 $ and a \\bad$ name")
    figure.savefig(tmp_path / "still.png")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(9, 7, 5, 5), (0, 1, 2)), ValueError, r"one clip of images \(t, 3, h, w\)"),
        ((torch.zeros(9, 3, 5, 5), (4, 1, 2)), ValueError, "keys must lie in order"),
        ((torch.zeros(9, 3, 5, 5), (1.5, 4, 8)), TypeError, "keys must hold integer"),
        ((torch.zeros(9, 3, 5, 5), (None, 4, 8)), TypeError, "keys must hold integer"),
        ((torch.full((9, 3, 5, 5), torch.nan), (0, 4, 8)), ValueError, "finite"),
        (([1], (0, 1, 2)), TypeError, "frames must be a torch.Tensor"),
        ((np.zeros((9, 5, 5, 3)), (0, 1, 2)), TypeError, r"got ndarray: pass torch.from_numpy\(frames\).permute"),
        ((torch.full((9, 3, 5, 5), 255.0), (0, 1, 2)), ValueError, r"floating values up to 255: pass frames / 255"),
        ((torch.zeros(9, 3, 5, 5), (0, 1, 9)), ValueError, "keys must lie in order within the clip's 9 frames"),
        ((torch.zeros(9, 3, 5, 5), "012"), TypeError, "keys must be KeyFrames"),
        ((torch.zeros(9, 3, 5, 5), mt.KeyFrames(*torch.ones(4, 2).long())), ValueError, "plot clips one by one"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        mt.plot_keyframes(*arguments)


def test_without_matplotlib_the_extra_is_named():
    script = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
import torch, mertools as mt
try:
    mt.plot_keyframes(torch.zeros(9, 3, 5, 5), (0, 1, 2))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "plot_keyframes needs matplotlib: pip install 'mertools[plot]'"


def test_prior_as_a_heat_map():
    figure = mt.plot_au_prior(classes="SAMM-5", prior=mt.au_prior("SAMM-5", missing="ignore"), title="SAMM")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(mt.CLASS_SETS["SAMM-5"])
    assert axes.get_yticklabels()[8].get_text() == "AU12  lip corner puller"
    words = [text.get_text() for text in axes.texts]
    assert words.count("–") == 2 * 18
    assert words[8 * 5 + 2] == ".89"


def test_one_class_against_another():
    axes = mt.plot_au_prior(compare=("happy", "sad")).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0].startswith("AU04")  # sadness lowers the brow
    assert labels[-1].startswith("AU12")  # happiness pulls the lip corners


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prior": torch.rand(3, 18)}, ValueError, r"prior must be \(7, 18\)"),
        ({"prior": "1"}, TypeError, "prior must be a torch.Tensor"),
        ({"prior": np.ones((7, 18))}, TypeError, r"got ndarray: pass torch.tensor\(prior\)"),
        ({"compare": ("happy", "joy")}, ValueError, "compare must be two of"),
        ({"compare": ("happy",)}, ValueError, "compare must be two of"),
    ],
)
def test_bad_priors(settings, error, message):
    with pytest.raises(error, match=message):
        mt.plot_au_prior(**settings)


COUNTS = [[8, 2, 0], [1, 4, 3], [0, 0, 0]]


def test_confusion_in_percent_of_rows_and_counts(tmp_path):
    figure = mt.plot_confusion(COUNTS, "MEGC2019", title="A $ title", path=tmp_path / "confusion.png")
    axes = figure.axes[0]
    words = [text.get_text() for text in axes.texts]
    assert words == ["80 %\n8", "20 %\n2", "0 %\n0", "12 %\n1", "50 %\n4", "38 %\n3", "–", "–", "–"]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["negative", "positive", "surprise"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    title, scores, clips = figure.get_suptitle().splitlines()
    assert (title, clips) == ("A $ title", "18 clips")
    assert scores == f"UF1 {mt.uf1(COUNTS):.4f}   UAR {mt.uar(COUNTS):.4f}   WAR {mt.war(COUNTS):.4f}"
    colours = axes.images[0].get_array()
    assert float(colours[0, 0]) == 0.8
    assert float(colours[1, 0]) == 1 / 8


def test_confusion_in_counts(tmp_path):
    axes = mt.plot_confusion(torch.tensor(COUNTS), normalise=False, path=tmp_path / "c.svg").axes[0]
    assert [text.get_text() for text in axes.texts][:3] == ["8", "2", "0"]
    assert axes.get_xticklabels()[2].get_text() == "2"
    assert float(axes.images[0].get_array()[1, 1]) == 0.5
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()


def test_confusion_of_a_book():
    book = mt.ScoreBook(["no", "yes"], selection="selected on test")
    book.add([0, 1, 1], [0, 1, 0], clips=["a", "b", "c"], subjects=["s1", "s1", "s2"])
    figure = mt.plot_confusion(book)
    assert figure.get_suptitle().splitlines()[1:] == ["3 clips of 2 subjects", "selection: selected on test"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["no", "yes"]
    assert mt.plot_confusion(book, ["nein", "ja"]).axes[0].get_yticklabels()[1].get_text() == "ja"


def test_bad_confusions(tmp_path):
    with pytest.raises(ValueError, match=r"classes must be 3 names to match the matrix, got 2"):
        mt.plot_confusion(COUNTS, ["a", "b"])
    with pytest.raises(ValueError, match="at least one clip"):
        mt.plot_confusion(mt.ScoreBook(["a", "b"]))
    with pytest.raises(ValueError, match=r"book must be a ScoreBook or a matrix of counts \(e, e\), got a list of 3"):
        mt.plot_confusion([0, 1, 1])
    with pytest.raises(ValueError, match="got fractions"):
        mt.plot_confusion([[0.8, 0.2], [0.5, 0.5]])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        mt.plot_confusion(COUNTS, path=tmp_path / "missing" / "c.png")


def drawings(clip):
    """Every public plot."""
    keys = (clip.onset, clip.apex, clip.offset)
    return {
        "keyframes": lambda **more: mt.plot_keyframes(clip.frames, keys, truth=keys, title="A smile", **more),
        "prior": lambda **more: mt.plot_au_prior(title="All", **more),
        "compare": lambda **more: mt.plot_au_prior(compare=("happy", "sad"), **more),
        "confusion": lambda **more: mt.plot_confusion(COUNTS, "MEGC2019", title="A title", **more),
        "seven": lambda **more: mt.plot_confusion(torch.eye(7).long() * 9, mt.EXPRESSIONS, **more),
    }


NAMES = ("keyframes", "prior", "compare", "confusion", "seven")


@pytest.mark.parametrize("name", NAMES)
def test_fonts_are_truetype_whatever_the_settings(clip, tmp_path, name):
    """Type 3 is refused by the checks of IEEE and ACM."""
    with rc_context({"pdf.fonttype": 3}):
        figure = drawings(clip)[name](path=tmp_path / "a.pdf")
        figure.savefig(tmp_path / "b.pdf")
    for file in ("a.pdf", "b.pdf"):
        data = (tmp_path / file).read_bytes()
        assert b"/CIDFontType2" in data
        assert b"/Type3" not in data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("figsize", "width"), [("column", 3.5), ("page", 7.16), ((5, 4), 5), (None, None)])
def test_text_in_a_paper_has_seven_points_or_more(clip, name, figsize, width):
    figure = drawings(clip)[name](figsize=figsize)
    assert width is None or figure.get_figwidth() == width
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_into_axes_of_ones_own(clip, tmp_path, name):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert drawings(clip)[name](ax=right, path=tmp_path / "x.pdf") is figure
    assert right.has_data()
    assert not left.has_data()
    assert b"/Type3" not in (tmp_path / "x.pdf").read_bytes()
    with pytest.raises(TypeError, match="ax must be the axes of one plot"):
        drawings(clip)[name](ax=[left, right])
    with pytest.raises(ValueError, match="figsize must be None with ax"):
        drawings(clip)[name](ax=left, figsize="page")


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_cant_be_written_is_refused(clip, tmp_path, name):
    with pytest.raises(ValueError, match="suffix must be one that matplotlib writes"):
        drawings(clip)[name](path=tmp_path / "x.foo")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        drawings(clip)[name](path=tmp_path / "no" / "x.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("figsize", ["single", (3, -1), (3,), 3, ("a", 2), (0, 1)])
def test_bad_sizes(figsize):
    with pytest.raises((TypeError, ValueError), match="figsize"):
        mt.plot_au_prior(figsize=figsize)


@pytest.mark.parametrize("keys", [(0, 1, 2), (20, 21, 22), (37, 38, 39), (5, 20, 35), (9, 9, 9), "found"])
@pytest.mark.parametrize("figsize", ["column", "page", None])
def test_labels_of_neighbouring_key_frames_do_not_touch(clip, keys, figsize):
    keys = mt.select_keyframes(clip.frames[None]) if keys == "found" else keys
    figure = mt.plot_keyframes(clip.frames, keys, truth=(clip.onset, clip.apex, clip.offset), figsize=figsize)
    FigureCanvasAgg(figure).draw()
    words = [f"{name} {int(frame)}" for name, frame in zip(MARKERS, keys[:3], strict=True)]
    caption = Text.get_window_extent(figure.axes[0].texts[-1])
    assert caption.x0 >= 0
    assert caption.y0 >= max(axes.title.get_window_extent().y1 for axes in figure.axes[1:])
    assert figure.axes[0].bbox.width > 0.7 * figure.bbox.width
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts if text.get_text() in words]
    assert len(boxes) == 3
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[1].x1 < boxes[2].x0
    assert boxes[0].x0 >= 0
    assert boxes[2].x1 <= figure.bbox.width


def test_marks_differ_in_shape_and_what_is_tinted_is_said(clip):
    axes = mt.plot_keyframes(clip.frames, (10, 18, 30), truth=(9, 18, 31)).axes[0]
    filled = [line.get_marker() for line in axes.lines if line.get_markerfacecolor() != "white"]
    hollow = [line.get_marker() for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [mark for mark in filled if mark != "None"] == hollow == list(MARKERS.values())
    assert len(set(hollow)) == 3
    assert any("apex plateau, frames" in text.get_text() for text in axes.texts)
