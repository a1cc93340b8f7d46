"""Figures of what the library finds. Needs matplotlib (extra ``plot``), imported when a figure is made.

All take ``ax`` (draw into axes of yours), ``figsize`` and ``path`` (write the figure, too). Figures of
``figsize="column"`` (3.5 inches) and ``"page"`` (7.16 inches) go into a paper of two columns as they are: text has 7
points or more, fonts are TrueType, and markers differ in shape as well as in colour.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mertools._checks import channels_first, check_choice, check_number
from mertools._files import atomic_write, check_target
from mertools._text import escape_unprintable
from mertools.action_units.expressions import EXPRESSIONS, class_names
from mertools.action_units.prior import ACTION_UNITS, au_prior
from mertools.audit.plots import COLOURS, GRID, INK, MARKERS, MUTED, figure_of, quiet, write_figure
from mertools.evaluation.metrics import check_counts, uar, uf1, war
from mertools.evaluation.score_book import ScoreBook
from mertools.evaluation.score_io import NOT_STATED
from mertools.keyframes.distance import pairwise_distance
from mertools.keyframes.records import KeyFrames
from mertools.keyframes.robust import measured_extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_au_prior", "plot_confusion", "plot_keyframes"]

# What each unit does, in the words of the Facial Action Coding System.
_FACS = {
    "AU01": "inner brow raiser", "AU02": "outer brow raiser", "AU04": "brow lowerer", "AU05": "upper lid raiser",
    "AU06": "cheek raiser", "AU07": "lid tightener", "AU09": "nose wrinkler", "AU10": "upper lip raiser",
    "AU12": "lip corner puller", "AU14": "dimpler", "AU15": "lip corner depressor", "AU17": "chin raiser",
    "AU20": "lip stretcher", "AU23": "lip tightener", "AU25": "lips part", "AU26": "jaw drop", "AU28": "lip suck",
    "AU45": "blink",
}  # fmt: skip
_WIDTHS = {"column": 3.5, "page": 7.16}  # inches, of IEEE's and ACM's papers of two columns

Keys: TypeAlias = tuple[int, int, int]
Figsize: TypeAlias = tuple[float, float] | Literal["column", "page"] | None


def plot_keyframes(
    frames: Tensor,
    keys: KeyFrames,
    *,
    truth: KeyFrames | tuple[int, int, int] | None = None,
    truth_name: str = "true",
    title: str | None = None,
    ax: Axes | None = None,
    figsize: Figsize = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw a clip's change over time, its three key frames, and what moved between them.

    Above, how far the movement has gone in every frame: the extent that the robust search fitted, with the plain
    distance to the onset as a thin line behind it (noise taken off in quadrature, as neighbouring frames show it); for
    key frames of the windowed search the distance alone. The key frames are marked, with their intervals, and the
    apex's plateau (frames with at least 90 % of its change). Below, the onset, apex and offset frames, where on the
    face the skin moved from onset to apex (optical flow less the motion of the whole picture, in pixels), and the two
    motion images ``apex − onset`` (rise) and ``apex − offset`` (fall): red is brighter at the apex, blue is darker.

    Args:
        frames: one clip, ``(t, 3, h, w)`` or ``(1, t, 3, h, w)``; grey ``(t, 1, h, w)`` too; uint8, or
            floating in [0, 1].
        keys: its key frames, a batch of one.
        truth: the key frames it is compared with: an annotation, or the truth of a synthetic clip.
        truth_name: what to call those below the curve.
        title: text above the figure.
        ax: draw the curve there, without the images.
        figsize: width and height in inches; ``"column"`` or ``"page"``: as wide as one column or both of a paper.
        path: write the figure there too; the ending says what it becomes (png, pdf, svg).

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        OSError: ``path`` can't be written.
        TypeError: frames or keys are of the wrong kind.
        ValueError: not one clip of images, or key frames beyond its end.

    Examples:
        >>> from mertools import select_keyframes, synthetic_clip
        >>> clip = synthetic_clip(num_frames=30, onset=5, apex=12, offset=22, size=48)
        >>> figure = plot_keyframes(clip.frames, select_keyframes(clip.frames[None]))
        >>> len(figure.axes)
        7
    """
    clip = _one_clip(frames)
    found = _positions("keys", keys, len(clip))
    annotation = None if truth is None else _positions("truth", truth, len(clip))
    if ax is not None:
        figure, text = _prepared("plot_keyframes", ax, figsize, path, lambda width: (0, 0))
        _draw_curve(ax, clip, found, _intervals(keys), annotation, truth_name, text)
        if title:
            ax.set_title(_lines(title), loc="left", fontsize=text + 1, color=INK, pad=4 * text, parse_math=False)
    else:
        columns = 6 if _width(figsize, 12) >= 6 else 3
        rows = 6 // columns
        tall = clip.shape[2] / clip.shape[3]

        def size(width: float) -> tuple[float, float]:
            text = _text(width)
            lines = 2 + (truth is not None) + (_intervals(keys) is not None)  # below the curve; a column breaks them
            words = 0.018 * max(text - 2, 7) * (lines if columns == 6 else 2 * lines - 1)
            return 0.18 * width + 1.15 + words, rows * (tall * width / (columns + 0.2) + 0.034 * text)

        figure, text = _prepared("plot_keyframes", None, figsize, path, size, default=12)
        above, below = size(figure.get_figwidth())
        top, bottom = figure.subfigures(2, 1, height_ratios=(above, below))
        if title:
            top.suptitle(
                _lines(title), x=0.012, ha="left", fontsize=text + 2, color=INK, fontweight="bold", parse_math=False
            )
        _draw_curve(top.subplots(), clip, found, _intervals(keys), annotation, truth_name, text)
        _draw_images(bottom.subplots(rows, columns).flat, clip, found, text)
    return _written(figure, path)


def plot_au_prior(
    prior: Tensor | None = None,
    *,
    classes: str | Sequence[str] = EXPRESSIONS,
    action_units: Sequence[str] = ACTION_UNITS,
    compare: tuple[str, str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: Figsize = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw which action units go with which class: the prior as a heat map, or one class against another.

    Args:
        prior: ``(e, a)`` in [0, 1], a row per class; default :func:`au_prior` of ``classes``. Rows of NaN stay empty.
        classes: the classes' names, in the order of the rows, or a set's name.
        action_units: the units' names, in the order of the columns.
        compare: two classes whose profiles are drawn side by side, units with the largest difference first.
        title: text above the figure.
        ax: draw into these axes.
        figsize: width and height in inches; ``"column"`` or ``"page"``: as wide as one column or both of a paper.
        path: write the figure there too; the ending says what it becomes (png, pdf, svg).

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        OSError: ``path`` can't be written.
        TypeError: prior is no tensor.
        ValueError: names and prior do not fit, or a class to compare is not among them.

    Examples:
        >>> len(plot_au_prior(compare=("happy", "sad")).axes)
        1

    Source: AU-DFER (arXiv 2507.07678).
    """
    names = class_names(classes)
    table: Any = au_prior(names, action_units=action_units) if prior is None else prior
    if not isinstance(table, Tensor):
        mend = ": pass torch.tensor(prior)" if isinstance(table, (np.ndarray, list, tuple)) else ""
        raise TypeError(f"prior must be a torch.Tensor (e, a), got {type(table).__name__}{mend}")
    if table.shape != (len(names), len(action_units)):
        raise ValueError(
            f"prior must be ({len(names)}, {len(action_units)}) to match classes and action_units, "
            f"got shape {tuple(table.shape)}"
        )
    values = table.detach().cpu().double().numpy()
    labels = [f"{unit}  {_FACS.get(unit, '')}".rstrip() for unit in action_units]
    if compare is not None:
        unknown = [name for name in compare if name not in names]
        if len(compare) != 2 or unknown:
            raise ValueError(f"compare must be two of {', '.join(names)}, got {compare!r}")
        pair = values[[names.index(name) for name in compare]]

        def size(width: float) -> tuple[float, float]:
            return 0.025 * _text(width) * len(labels), 1.1

        figure, text = _prepared("plot_au_prior", ax, figsize, path, size, default=8)
        axes = figure.subplots() if ax is None else ax
        _draw_profiles(axes, pair, labels, compare, text)
    else:

        def size(width: float) -> tuple[float, float]:
            return 0.03 * _text(width) * len(labels), 1.0

        figure, text = _prepared("plot_au_prior", ax, figsize, path, size, default=0.8 * len(names) + 3.6)
        axes = figure.subplots() if ax is None else ax
        _draw_heat_map(axes, values.T, labels, names, text)
    _head(figure, ax, _lines(title) if title else "", text + 2)
    return _written(figure, path)


def plot_confusion(
    book: ScoreBook | Tensor | np.ndarray | Sequence[Sequence[int]],
    classes: str | Sequence[str] | None = None,
    *,
    normalise: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: Figsize = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""Draw a confusion matrix: a row per true class, a column per predicted one.

    Args:
        book: a :class:`ScoreBook`, or counts ``(e, e)`` as :func:`confusion_matrix` gives them.
        classes: the classes' names in the order of the rows, or a set's name; those of the book, or numbers.
        normalise: colour and write each cell as percent of its row (what the class was taken for; the diagonal is the
            recall), with the count below; False: counts alone.
        title: text above the figure, before the scores, the clips and how the epoch was chosen.
        ax: draw into these axes.
        figsize: width and height in inches; ``"column"`` or ``"page"``: as wide as one column or both of a paper.
        path: write the figure there too; the ending says what it becomes (png, pdf, svg).

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        OSError: ``path`` can't be written.
        TypeError: no counts.
        ValueError: no clips, or names that do not fit the matrix.

    Examples:
        >>> figure = plot_confusion([[8, 2], [1, 4]], ["negative", "positive"])
        >>> [text.get_text() for text in figure.axes[0].texts][:2]
        ['80 %\n8', '20 %\n2']

    Source: ours.
    """
    counts = check_counts(book.confusion if isinstance(book, ScoreBook) else _matrix(book))
    if classes is None:
        names = book.classes if isinstance(book, ScoreBook) else tuple(map(str, range(len(counts))))
    else:
        names = class_names(classes)
    if len(names) != len(counts):
        raise ValueError(f"classes must be {len(counts)} names to match the matrix, got {len(names)}: {list(names)}")
    lines = [f"UF1 {uf1(counts):.4f}   UAR {uar(counts):.4f}   WAR {war(counts):.4f}"]
    if isinstance(book, ScoreBook):
        subjects = f" of {len(book.subjects)} subjects" if book.subjects else ""
        lines += [f"{len(book)} clips{subjects}", f"selection: {book.selection or NOT_STATED}"]
    else:
        lines.append(f"{int(counts.sum())} clips")
    lines = (
        [*_lines(title).split("\n"), *map(escape_unprintable, lines)] if title else list(map(escape_unprintable, lines))
    )
    longest = max(len(escape_unprintable(name, 60)) for name in names)
    side = max(0.95 * len(names), 2.6)
    default = max(side + 0.09 * longest + 1.5, 0.085 * max(map(len, lines)))

    def size(width: float) -> tuple[float, float]:
        text = _text(width)
        square = side if figsize is None else width - 0.008 * text * longest - 0.6  # labels at its left
        return square + 0.009 * text * longest, 0.5 + 0.022 * text * len(lines)

    figure, text = _prepared("plot_confusion", ax, figsize, path, size, default=default)
    _head(figure, ax, "\n".join(lines), text)
    axes = figure.subplots() if ax is None else ax
    _draw_confusion(axes, counts.double().numpy(), names, normalise, text)
    return _written(figure, path)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure whole or not at all, see :func:`atomic_write`; the ending says what it becomes."""
    kind = check_figure_path(path)
    data = io.BytesIO()
    figure.savefig(data, format=kind)
    atomic_write(Path(path), data.getvalue())


def check_figure_path(path: str | os.PathLike[str]) -> str:
    """What a figure of this name becomes, png without an ending; before the work that makes the figure.

    Raises:
        OSError: nothing can be written there.
        ValueError: matplotlib writes no such kind.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kind = Path(path).suffix.lower() or ".png"
    if kind[1:] not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(
            f"the file's suffix must be one that matplotlib writes (.png, .pdf, .svg, .jpg, ...), got {kind!r}"
        )
    check_target(Path(path))
    return kind[1:]


# --- what the figures have in common ----------------------------------------------------------------------------------


def _width(figsize: Figsize, default: float) -> float:
    if figsize is None:
        return default
    if isinstance(figsize, str):
        check_choice("figsize", figsize, tuple(_WIDTHS))
        return _WIDTHS[figsize]
    if not isinstance(figsize, (tuple, list)) or len(figsize) != 2:
        raise ValueError(f"figsize must be (width, height) in inches, 'column' or 'page', got {figsize!r}")
    for name, side in zip(("width", "height"), figsize, strict=True):
        if check_number(f"figsize's {name}", side, 0) == 0:
            raise ValueError(f"figsize must be (width, height) in inches, got {figsize!r}")
    return float(figsize[0])


def _text(width: float) -> float:
    """Points of text in a figure so wide: a paper's column is shown as it is, a wide figure is shrunk."""
    return 7.0 if width < 5 else 8.0 if width < 8 else 10.0


def _prepared(
    name: str,
    ax: Axes | None,
    figsize: Figsize,
    path: str | os.PathLike[str] | None,
    size: Callable[[float], tuple[float, float]],
    default: float = 0,
) -> tuple[Any, float]:
    """The figure to draw in and the points of its text; ``size`` gives the parts of its height for a width."""
    if ax is not None:
        if figsize is not None:
            raise ValueError("figsize must be None with ax: the axes have their size")
        if not hasattr(ax, "get_position"):
            raise TypeError(f"ax must be the axes of one plot, got {type(ax).__name__}: pass plt.subplots()[1]")
        figure: Any = ax.get_figure()
        width = ax.get_position().width * figure.bbox.width / figure.dpi
        text = _text(width / 0.8)
    else:
        width = _width(figsize, default)
        height = sum(size(width)) if figsize is None or isinstance(figsize, str) else float(figsize[1])
        figure, text = figure_of((width, height), 130, name), _text(width)
    if path is not None:
        check_figure_path(path)
    return figure, text


def _head(figure: Any, ax: Axes | None, text: str, size: float) -> None:
    if not text:
        return
    if ax is not None:
        ax.set_title(text, loc="left", fontsize=size, color=INK, parse_math=False)
        return
    heading = figure.suptitle(text, x=0.02, ha="left", fontsize=size, color=INK, parse_math=False)
    heading.set_linespacing(1.35)


def _written(figure: Any, path: str | os.PathLike[str] | None) -> Figure:
    finished: Figure = figure
    if path is None:
        return finished
    data = io.BytesIO()
    write_figure(figure, data, format=check_figure_path(path))
    atomic_write(Path(path), data.getvalue())
    return finished


def _fits(texts: Sequence[str], size: float, room: float) -> bool:
    """Whether texts of ``size`` points stand side by side, ``room`` points for each."""
    return max(map(len, texts)) * 0.58 * size < room


# --- a confusion matrix, a prior --------------------------------------------------------------------------------------


def _matrix(counts: Any) -> Any:
    if isinstance(counts, (list, tuple)) and counts and not isinstance(counts[0], (list, tuple, Tensor, np.ndarray)):
        raise ValueError(
            f"book must be a ScoreBook or a matrix of counts (e, e), got a list of {len(counts)} values: of labels and "
            "predictions make one with confusion_matrix(predictions, targets, num_classes=e)"
        )
    return counts


def _draw_confusion(axes: Any, counts: np.ndarray, names: tuple[str, ...], normalise: bool, text: float) -> None:
    whole = counts.sum(1, keepdims=True)
    share = np.divide(counts, whole, out=np.zeros_like(counts), where=whole > 0)
    shade = share if normalise else counts / counts.max()
    axes.imshow(shade, cmap="GnBu", vmin=0, vmax=1)
    shown = [escape_unprintable(name, 60) for name in names]
    axes.set_xticks(range(len(names)), shown, color=INK, fontsize=text, parse_math=False)
    axes.set_yticks(range(len(names)), shown, color=INK, fontsize=text, parse_math=False)
    width, height = _inches(axes)
    # The picture is square, and its labels are beside it in the same room.
    cell = 72 * min(width - 0.6 - 0.008 * text * max(map(len, shown)), height) / len(names)
    if not _fits(shown, text, cell):
        _slanted(axes)
    axes.set_xlabel("predicted", color=MUTED, fontsize=text)
    brief = normalise and cell < 4 * text  # no room for the counts
    axes.set_ylabel("true, % of the row" if brief else "true", color=MUTED, fontsize=text)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(counts.shape):
        word = f"{counts[row, column]:.0f}"
        if normalise:
            # A class without clips has no percentages.
            percent = f"{100 * share[row, column]:.0f}"
            word = "–" if not whole[row] else percent if brief else f"{percent} %\n{word}"
        white = shade[row, column] > 0.6
        size = max(text - 1, 7)
        axes.text(column, row, word, ha="center", va="center", fontsize=size, color="white" if white else INK)


def _inches(axes: Any) -> tuple[float, float]:
    """Room for axes: of the whole figure before it is laid out, or what they have in a figure of yours."""
    figure = axes.get_figure()
    alone = len(figure.axes) == 1
    place = (1.0, 0.8) if alone else (axes.get_position().width, axes.get_position().height)
    return place[0] * figure.bbox.width / figure.dpi, place[1] * figure.bbox.height / figure.dpi


def _slanted(axes: Any) -> None:
    axes.tick_params(axis="x", labelrotation=35)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


def _draw_heat_map(axes: Any, values: np.ndarray, labels: list[str], names: tuple[str, ...], text: float) -> None:
    image = axes.imshow(values, cmap="GnBu", vmin=0, vmax=1, aspect="auto")
    shown, units = ([escape_unprintable(name, 60) for name in some] for some in (names, labels))
    axes.set_xticks(range(len(shown)), shown, color=INK, fontsize=text, parse_math=False)
    axes.set_yticks(range(len(units)), units, color=INK, fontsize=text, parse_math=False)
    axes.xaxis.tick_top()
    room = 72 * (_inches(axes)[0] - 0.008 * text * max(map(len, units)) - 0.6) / len(shown)
    if not _fits(shown, text, room):
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        word = "–" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
        colour = "white" if value > 0.6 else INK
        axes.text(column, row, word, ha="center", va="center", fontsize=max(text - 2, 7), color=colour)
    if text == 7:  # the cells have their numbers, and a column has no room for more
        return
    bar = axes.get_figure().colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("prior weight of the unit", color=MUTED, fontsize=text)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0, labelsize=text)


def _draw_profiles(axes: Any, pair: np.ndarray, labels: list[str], compare: tuple[str, str], text: float) -> None:
    order = np.argsort(pair[0] - pair[1])
    place = np.arange(len(labels))
    axes.hlines(place, pair[0][order], pair[1][order], color=GRID, lw=3, zorder=1)
    for row, name, key in zip(pair, compare, ("apex", "offset"), strict=True):
        shown = escape_unprintable(name, 60)
        axes.plot(row[order], place, MARKERS[key], color=COLOURS[key], ms=0.65 * text, label=shown, zorder=2)
    units = [escape_unprintable(labels[i], 60) for i in order]
    axes.set_yticks(place, units, color=INK, fontsize=text, parse_math=False)
    axes.set(xlim=(0, 1))
    axes.set_xlabel("prior weight of the unit", color=MUTED, fontsize=text)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=text)
    legend = axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=text,
        borderaxespad=0,
        handletextpad=0,
    )
    for line in legend.get_texts():
        line.set_parse_math(False)


# --- key frames -------------------------------------------------------------------------------------------------------


def _draw_curve(
    axes: Any, clip: Tensor, found: Keys, spread: Sequence[float] | None, annotation: Keys | None, truth_name: str,
    text: float,
) -> None:  # fmt: skip
    distance = pairwise_distance(clip[None])[0, found[0]].cpu().numpy()
    # Per value and in grey levels, so that clips of any size can be compared. Noise adds to a distance in quadrature.
    scale = 1 if clip.dtype == torch.uint8 else 255
    change = distance / np.sqrt(clip[0].numel()) * scale
    floor = _noise_floor(clip, scale)
    change = np.sqrt(np.maximum(change**2 - floor**2, 0))
    height = float(change.max()) or 1.0
    axes.plot(change, color=MUTED, lw=0.07 * text, zorder=2)
    # What the robust search fitted decides, so that picture and answer agree; windows look at distances alone.
    extent = measured_extent(clip, found).numpy() if spread is not None else np.full(len(clip), np.nan)
    fitted = bool(np.isfinite(extent).any())
    curve = extent * (change[found[1]] or height) if fitted else change
    height = max(height, float(np.nanmax(curve)))
    axes.plot(curve, color=INK, lw=0.16 * text, zorder=3)
    axes.fill_between(np.arange(len(curve)), curve, color=INK, alpha=0.06, lw=0)
    small = max(text - 2, 7)
    if spread is not None:
        for colour, frame, width in zip(COLOURS.values(), found, spread, strict=True):
            low, high = max(frame - width, 0), min(frame + width, len(clip) - 1)
            axes.axvspan(low, high, ymax=0.035, color=colour, alpha=0.45, lw=0, zorder=4)
    first, last = _plateau(curve, found, 0.0)
    axes.axvspan(first - 0.4, last + 0.4, color=COLOURS["apex"], alpha=0.10, lw=0, zorder=0)
    margin = 0.012 * len(change)  # or the markers of the first and last frame are cut in half
    low, high = -margin, len(change) - 1 + margin
    labels = [f"{name} {frame}" for name, frame in zip(COLOURS, found, strict=True)]
    per_point = (high - low) / (72 * _inches(axes)[0] * 0.9)
    places = _apart(found, [0.8 * text * len(label) * per_point for label in labels], low, high)
    for (name, colour), frame, label, place, dashes in zip(
        COLOURS.items(), found, labels, places, ("-", "--", ":"), strict=True
    ):
        axes.axvline(frame, color=colour, lw=0.15 * text, ls=dashes, zorder=2)
        axes.plot(
            frame,
            curve[frame] if np.isfinite(curve[frame]) else change[frame],
            MARKERS[name],
            color=colour,
            ms=0.65 * text,
            mec="white",
            mew=1,
            zorder=4,
            clip_on=False,
        )
        axes.annotate(
            label, (frame, 1), (place, 1.06), xycoords=("data", "axes fraction"), color=colour, fontsize=text,
            ha="center", va="bottom", fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    words = [f"tinted: apex plateau, frames {first} to {last}, at least 90 % of its change"]
    if spread is not None:
        widths = ", ".join(f"{name} ± {width:.0f}" for name, width in zip(COLOURS, spread, strict=True))
        words.append(f"bars at the foot: intervals that hold the true frame nine times in ten, {widths}")
    if fitted:
        words.append(f"thick: extent of the movement that was fitted; thin: plain distance, less {floor:.1f} of noise")
    else:
        words.append(f"distance to the onset, less {floor:.1f} of noise")
    if annotation is not None:
        for (name, colour), frame in zip(COLOURS.items(), annotation, strict=True):
            axes.plot(
                frame, 0.06, MARKERS[name], color=colour, ms=0.75 * text, mfc="white", mew=1.4, zorder=5, clip_on=False,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        o, a, k = annotation
        words.insert(0, f"hollow, {escape_unprintable(truth_name, 60)}: onset {o}, apex {a}, offset {k}")
    room = int(_inches(axes)[0] * 72 * 0.86 / (0.52 * small))  # characters
    lines = [line for word in words for line in textwrap.wrap(word, room)]
    axes.annotate(
        "\n".join(lines), (1, 0), (0, -3.6 * text - 8), xycoords="axes fraction", textcoords="offset points",
        ha="right", va="top", fontsize=small, color=MUTED, parse_math=False,
    )  # fmt: skip
    axes.set(xlim=(low, high), ylim=(min(0, float(np.nanmin(curve))), height * 1.12))
    axes.set_xlabel("frame (0-based)", color=MUTED, fontsize=text)
    axes.set_ylabel("change from onset\n(RMS grey levels of 255)", color=MUTED, fontsize=text)
    quiet(axes)
    axes.tick_params(labelsize=text)


def _apart(places: Sequence[float], widths: Sequence[float], low: float, high: float) -> list[float]:
    """Centres of labels of these widths, as near to ``places`` as can be without touching, all within the bounds."""
    found: list[float] = []
    edge = low
    for place, width in zip(places, widths, strict=True):
        found.append(max(place, edge + width / 2))
        edge = found[-1] + width / 2
    edge = high
    for i in reversed(range(len(found))):
        found[i] = min(found[i], edge - widths[i] / 2)
        edge = found[i] - widths[i] / 2
    return found


def _intervals(keys: KeyFrames | tuple[int, int, int]) -> list[float] | None:
    """Half-widths around onset, apex and offset, of the robust search."""
    spread = getattr(keys, "spread", None)
    widths: list[float] | None = None if spread is None else spread[0].tolist()
    return widths


def _noise_floor(clip: Tensor, scale: float) -> float:
    """RMS change between frames at rest, in grey levels: that of the calmer half of the neighbouring frames."""
    steps = [(after.float() - before.float()).square().mean().sqrt() for before, after in pairwise(clip)]
    return float(torch.stack(steps).median()) * scale


def _plateau(change: np.ndarray, found: Keys, floor: float) -> tuple[int, int]:
    """First and last frame around the apex that change nearly as much as it does."""
    onset, apex, offset = found
    if change[apex] <= floor:
        return apex, apex
    least = floor + 0.9 * (change[apex] - floor)
    first = last = apex
    while first - 1 > onset and change[first - 1] >= least:
        first -= 1
    while last + 1 < offset and change[last + 1] >= least:
        last += 1
    return first, last


def _moved(clip: Tensor, found: Keys) -> np.ndarray:
    """How far each pixel moved from onset to apex, without what the whole picture did, ``(h, w)`` pixels."""
    import cv2

    images = clip.float().mean(1) * (1 if clip.dtype == torch.uint8 else 255)
    onset, apex, _ = found
    before, after = images[max(onset - 2, 0) : onset + 1].mean(0), images[apex : apex + 2].mean(0)
    grey = [image.round().clamp(0, 255).byte().numpy() for image in (before, after)]
    if min(grey[0].shape) < 24:  # too small for the flow's patches
        return np.zeros(grey[0].shape, np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[0], grey[1], None)  # type: ignore[call-overload]
    flow = cv2.GaussianBlur(flow, (0, 0), max(grey[0].shape) / 60)
    rest = flow - np.median(flow, (0, 1))
    distance: np.ndarray = np.hypot(rest[..., 0], rest[..., 1])
    limit = float(np.quantile(distance, 0.99))  # the flow's outliers are no movement
    clipped: np.ndarray = np.minimum(distance, limit)
    return clipped


def _lines(title: str) -> str:
    return "\n".join(map(escape_unprintable, title.split("\n")))


def _draw_images(panels: Iterable[Any], clip: Tensor, found: Keys, text: float) -> None:
    panels = list(panels)
    images = clip.float() / (255 if clip.dtype == torch.uint8 else 1)
    onset, apex, offset = (images[frame] for frame in found)
    for axes, (name, colour), image in zip(panels[:3], COLOURS.items(), (onset, apex, offset), strict=True):
        axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy())
        axes.set_title(f"{name} {found[list(COLOURS).index(name)]}", color=colour, fontsize=text)
    distance = _moved(clip, found)
    panels[3].imshow(apex.mean(0).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
    changed = np.ma.masked_less(distance, 0.25 * max(float(distance.max()), 0.4))
    panels[3].imshow(changed, cmap="YlOrRd", vmin=0, vmax=max(float(distance.max()), 0.4), alpha=0.65)
    panels[3].set_title(f"moved up to {distance.max():.1f} px", color=INK, fontsize=text)
    motions = [(apex - onset).mean(0), (apex - offset).mean(0)]
    limit = max(float(torch.stack(motions).abs().flatten().quantile(0.995)), 2 / 255) if onset.numel() < 5e6 else 0.1
    for axes, name, motion in zip(panels[4:], ("apex − onset", "apex − offset"), motions, strict=True):
        axes.imshow(motion.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name, color=INK, fontsize=text)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GRID)


def _one_clip(frames: Any) -> Tensor:
    if not isinstance(frames, Tensor):
        mend = ": pass torch.from_numpy(frames).permute(0, 3, 1, 2)" if isinstance(frames, np.ndarray) else ""
        raise TypeError(f"frames must be a torch.Tensor (t, 3, h, w), got {type(frames).__name__}{mend}")
    clip: Tensor = frames[0] if frames.ndim == 5 and frames.shape[0] == 1 else frames
    if clip.ndim != 4 or clip.shape[1] not in (1, 3):
        mend = channels_first("frames", tuple(frames.shape))
        raise ValueError(f"frames must be one clip of images (t, 3, h, w), got shape {tuple(frames.shape)}{mend}")
    if len(clip) < 2 or (clip.is_floating_point() and not bool(torch.isfinite(clip).all())):
        raise ValueError("frames must be at least two, and finite")
    if clip.is_floating_point() and float(clip.abs().max()) > 2:  # magnified clips go a little beyond [0, 1]
        raise ValueError(
            f"frames must be uint8, or floating in [0, 1], got floating values up to {float(clip.max()):g}: "
            "pass frames / 255"
        )
    return clip.detach().cpu()


def _positions(name: str, keys: KeyFrames | tuple[int, int, int], t: int) -> Keys:
    if not isinstance(keys, tuple) or len(keys) < 3:
        raise TypeError(f"{name} must be KeyFrames of one clip or (onset, apex, offset), got {keys!r}")
    values = []
    for value in keys[:3]:
        try:
            tensor = torch.as_tensor(value).flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must hold integer frame positions, got {value!r}") from error
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise TypeError(f"{name} must hold integer frame positions, got {value!r}")
        if len(tensor) != 1:
            raise ValueError(f"{name} must hold the key frames of one clip, got {len(tensor)}: plot clips one by one")
        values.append(int(tensor))
    if not 0 <= values[0] <= values[1] <= values[2] < t:
        raise ValueError(f"{name} must lie in order within the clip's {t} frames, got {values}")
    return values[0], values[1], values[2]
