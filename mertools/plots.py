"""Pictures of what the library finds. Needs matplotlib (extra ``plot``), imported when a plot is made."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mertools._files import atomic_write
from mertools._text import escape_unprintable
from mertools.action_units.expressions import EXPRESSIONS, class_names
from mertools.action_units.prior import ACTION_UNITS, au_prior
from mertools.evaluation.metrics import check_counts, uar, uf1, war
from mertools.evaluation.score_book import ScoreBook
from mertools.evaluation.score_io import NOT_STATED
from mertools.keyframes.distance import pairwise_distance
from mertools.keyframes.records import KeyFrames

if TYPE_CHECKING:
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
_COLOURS = {"onset": "#1b7f6b", "apex": "#c2452d", "offset": "#3559a8"}
_INK, _MUTED, _GRID = "#22262b", "#6b737c", "#e4e7ea"


def plot_keyframes(
    frames: Tensor,
    keys: KeyFrames,
    *,
    truth: KeyFrames | tuple[int, int, int] | None = None,
    truth_name: str = "true",
    title: str | None = None,
) -> Figure:
    """Draw a clip's change over time, its three key frames, and what moved between them.

    Above, the distance of every frame to the onset, with the key frames marked, the noise floor (how far two frames at
    rest are apart, from neighbouring frames) and the apex's plateau (frames with at least 90 % of its change above the
    noise). Below, the onset, apex and offset frames, where on the face the skin moved from onset to apex (optical flow
    less the motion of the whole picture, in pixels), and the two motion images ``apex − onset`` (rise) and
    ``apex − offset`` (fall): red is brighter at the apex, blue is darker.

    Args:
        frames: one clip, ``(t, 3, h, w)`` or ``(1, t, 3, h, w)``; grey ``(t, 1, h, w)`` too; uint8, or
            floating in [0, 1].
        keys: its key frames, a batch of one.
        truth: the key frames it is compared with: an annotation, or the truth of a synthetic clip.
        truth_name: what to call those in the legend.
        title: text above the figure.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: frames or keys are of the wrong kind.
        ValueError: not one clip of images, or key frames beyond its end.

    Examples:
        >>> from mertools import select_keyframes, synthetic_clip
        >>> clip = synthetic_clip(num_frames=30, onset=5, apex=12, offset=22, size=48)
        >>> figure = plot_keyframes(clip.frames, select_keyframes(clip.frames[None]))
        >>> len(figure.axes)
        7

    Source: ours.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_keyframes needs matplotlib: pip install 'mertools[plot]'") from error
    clip = _one_clip(frames)
    found = _positions("keys", keys, len(clip))
    marks = None if truth is None else _positions("truth", truth, len(clip))

    aspect = clip.shape[2] / clip.shape[3]
    strip = 2.0 * aspect + 0.45  # six images side by side and their titles
    figure = Figure(figsize=(12, 3.6 + strip), dpi=130, layout="constrained", facecolor="white")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.6, strip))
    top, bottom = parts
    if title:
        top.suptitle(_lines(title), x=0.012, ha="left", fontsize=13, color=_INK, fontweight="bold", parse_math=False)
    _draw_curve(top.subplots(), clip, found, marks, truth_name)
    _draw_images(bottom.subplots(1, 6), clip, found)
    return figure


def plot_au_prior(
    prior: Tensor | None = None,
    *,
    classes: str | Sequence[str] = EXPRESSIONS,
    action_units: Sequence[str] = ACTION_UNITS,
    compare: tuple[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw which action units go with which class: the prior as a heat map, or one class against another.

    Args:
        prior: ``(e, a)`` in [0, 1], a row per class; default :func:`au_prior` of ``classes``. Rows of NaN stay empty.
        classes: the classes' names, in the order of the rows, or a set's name.
        action_units: the units' names, in the order of the columns.
        compare: two classes whose profiles are drawn side by side, units with the largest difference first.
        title: text above the figure.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: prior is no tensor.
        ValueError: names and prior do not fit, or a class to compare is not among them.

    Examples:
        >>> len(plot_au_prior(compare=("happy", "sad")).axes)
        1

    Source: AU-DFER (arXiv 2507.07678).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_au_prior needs matplotlib: pip install 'mertools[plot]'") from error
    names = class_names(classes)
    table = au_prior(names, action_units=action_units) if prior is None else prior
    if not isinstance(table, Tensor):
        raise TypeError(f"prior must be a torch.Tensor (e, a), got {type(table).__name__}")
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
        figure = Figure(figsize=(8, 0.34 * len(labels) + 1.4), dpi=130, layout="constrained", facecolor="white")
        pair = values[[names.index(name) for name in compare]]
        _draw_profiles(figure.subplots(), pair, labels, compare)
    else:
        size = (0.8 * len(names) + 3.6, 0.36 * len(labels) + 1.2)
        figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
        _draw_heat_map(figure, values.T, labels, names)
    if title:
        figure.suptitle(_lines(title), x=0.012, ha="left", fontsize=13, color=_INK, fontweight="bold", parse_math=False)
    return figure


def plot_confusion(
    book: ScoreBook | Tensor | np.ndarray | Sequence[Sequence[int]],
    classes: str | Sequence[str] | None = None,
    *,
    normalise: bool = True,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""Draw a confusion matrix: a row per true class, a column per predicted one.

    Args:
        book: a :class:`ScoreBook`, or counts ``(e, e)`` as :func:`confusion_matrix` gives them.
        classes: the classes' names in the order of the rows, or a set's name; those of the book, or numbers.
        normalise: colour and write each cell as percent of its row (what the class was taken for; the diagonal is the
            recall), with the count below; False: counts alone.
        title: text above the figure, before the scores, the clips and how the epoch was chosen.
        path: write the figure there too; the ending says what it becomes (png, pdf, svg).

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: no counts.
        ValueError: no clips, or names that do not fit the matrix.

    Examples:
        >>> figure = plot_confusion([[8, 2], [1, 4]], ["negative", "positive"])
        >>> [text.get_text() for text in figure.axes[0].texts][:2]
        ['80 %\n8', '20 %\n2']

    Source: ours.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_confusion needs matplotlib: pip install 'mertools[plot]'") from error
    counts = check_counts(book.confusion if isinstance(book, ScoreBook) else book)
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
    side = max(0.95 * len(names), 2.6)
    width = max(
        side + 0.09 * max(len(escape_unprintable(name, 60)) for name in names) + 1.5, 0.085 * max(map(len, lines))
    )
    size = (width, side + 0.9 + 0.22 * len(lines))
    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    heading = figure.suptitle("\n".join(lines), x=0.02, ha="left", fontsize=10, color=_INK, parse_math=False)
    heading.set_linespacing(1.35)
    _draw_confusion(figure.subplots(), counts.double().numpy(), names, normalise)
    if path is not None:
        data = io.BytesIO()
        kind = Path(path).suffix.lstrip(".") or "png"
        figure.savefig(data, format=kind)
        atomic_write(Path(path), data.getvalue())
    return figure


def _draw_confusion(axes: Any, counts: np.ndarray, names: tuple[str, ...], normalise: bool) -> None:
    whole = counts.sum(1, keepdims=True)
    share = np.divide(counts, whole, out=np.zeros_like(counts), where=whole > 0)
    shade = share if normalise else counts / counts.max()
    axes.imshow(shade, cmap="GnBu", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), [escape_unprintable(name, 60) for name in names], color=_INK, parse_math=False)
    axes.set_yticks(range(len(names)), [escape_unprintable(name, 60) for name in names], color=_INK, parse_math=False)
    if len(names) > 3 or max(map(len, names)) > 9:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted", color=_MUTED)
    axes.set_ylabel("true", color=_MUTED)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(counts.shape):
        text = f"{counts[row, column]:.0f}"
        if normalise:
            # A class without clips has no percentages.
            text = f"{100 * share[row, column]:.0f} %\n{text}" if whole[row] else "–"
        white = shade[row, column] > 0.6
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if white else _INK)


def _draw_heat_map(figure: Figure, values: np.ndarray, labels: list[str], names: tuple[str, ...]) -> None:
    axes = figure.subplots()
    image = axes.imshow(values, cmap="GnBu", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), [escape_unprintable(name, 60) for name in names], color=_INK, parse_math=False)
    axes.set_yticks(range(len(labels)), [escape_unprintable(name, 60) for name in labels], color=_INK, parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = "–" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 0.6 else _INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("prior weight of the unit", color=_MUTED)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_MUTED, length=0)


def _draw_profiles(axes: Any, pair: np.ndarray, labels: list[str], compare: tuple[str, str]) -> None:
    order = np.argsort(pair[0] - pair[1])
    place = np.arange(len(labels))
    axes.hlines(place, pair[0][order], pair[1][order], color=_GRID, lw=3, zorder=1)
    for row, name, colour in zip(pair, compare, (_COLOURS["apex"], _COLOURS["offset"]), strict=True):
        axes.plot(row[order], place, "o", color=colour, ms=7, label=escape_unprintable(name, 60), zorder=2)
    axes.set_yticks(place, [escape_unprintable(labels[i], 60) for i in order], color=_INK, parse_math=False)
    axes.set(xlim=(0, 1))
    axes.set_xlabel("prior weight of the unit", color=_MUTED)
    axes.grid(axis="x", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for text in axes.legend(loc="lower right", frameon=False).get_texts():
        text.set_parse_math(False)


def _draw_curve(
    axes: Any, clip: Tensor, found: tuple[int, int, int], marks: tuple[int, int, int] | None, truth_name: str
) -> None:
    distance = pairwise_distance(clip[None])[0, found[0]].cpu().numpy()
    # Per value and in grey levels, so that clips of any size can be compared.
    scale = 1 if clip.dtype == torch.uint8 else 255
    change = distance / np.sqrt(clip[0].numel()) * scale
    axes.plot(change, color=_INK, lw=1.6, zorder=3)
    axes.fill_between(np.arange(len(change)), change, color=_INK, alpha=0.06, lw=0)
    height = float(change.max()) or 1.0
    floor = _noise_floor(clip, scale)
    axes.axhspan(0, floor, color=_GRID, alpha=0.7, lw=0, zorder=0)
    axes.annotate(
        "noise floor", (0.005, floor), xycoords=("axes fraction", "data"), fontsize=8, color=_MUTED,
        ha="left", va="bottom",
    )  # fmt: skip
    first, last = _plateau(change, found, floor)
    axes.axvspan(first - 0.4, last + 0.4, color=_COLOURS["apex"], alpha=0.10, lw=0, zorder=0)
    for place, (name, colour) in enumerate(_COLOURS.items()):
        frame = found[place]
        axes.axvline(frame, color=colour, lw=1.6, zorder=2)
        axes.plot(frame, change[frame], "o", color=colour, ms=7, mec="white", mew=1.2, zorder=4)
        axes.annotate(
            f"{name} {frame}", (frame, 1.02), xycoords=("data", "axes fraction"), color=colour, fontsize=10,
            ha="center", va="bottom", fontweight="bold",
            # Neighbouring labels are set one above the other where they would touch.
            xytext=(0, 12 if place == 1 and _crowded(found, len(change)) else 0), textcoords="offset points",
        )  # fmt: skip
        if marks is not None:
            axes.plot(
                marks[place], 0.06, "v", color=colour, ms=9, mfc="white", mew=1.6, zorder=5, clip_on=False,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
    if marks is not None:
        text = f"▽ {escape_unprintable(truth_name, 60)}: onset {marks[0]}, apex {marks[1]}, offset {marks[2]}"
        axes.text(
            0.995,
            0.95,
            text,
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=9,
            color=_MUTED,
            parse_math=False,
        )
    margin = 0.012 * len(change)  # or the marks of the first and last frame are cut in half
    axes.set(xlim=(-margin, len(change) - 1 + margin), ylim=(0, height * 1.12))
    axes.set_xlabel("frame (0-based)", color=_MUTED)
    axes.set_ylabel("change from onset\n(RMS grey levels of 255)", color=_MUTED)
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(colors=_MUTED, length=3)


def _noise_floor(clip: Tensor, scale: float) -> float:
    """RMS change between frames at rest, in grey levels: that of the calmer half of the neighbouring frames."""
    steps = [(after.float() - before.float()).square().mean().sqrt() for before, after in pairwise(clip)]
    return float(torch.stack(steps).median()) * scale


def _plateau(change: np.ndarray, found: tuple[int, int, int], floor: float) -> tuple[int, int]:
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


def _moved(clip: Tensor, found: tuple[int, int, int]) -> np.ndarray:
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


def _crowded(found: tuple[int, int, int], t: int) -> bool:
    return min(found[1] - found[0], found[2] - found[1]) < 0.1 * t


def _draw_images(panels: Any, clip: Tensor, found: tuple[int, int, int]) -> None:
    images = clip.float() / (255 if clip.dtype == torch.uint8 else 1)
    onset, apex, offset = (images[frame] for frame in found)
    for axes, (name, colour), image in zip(panels[:3], _COLOURS.items(), (onset, apex, offset), strict=True):
        axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy())
        axes.set_title(f"{name}  ·  {found[list(_COLOURS).index(name)]}", color=colour, fontsize=10)
    distance = _moved(clip, found)
    panels[3].imshow(apex.mean(0).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
    changed = np.ma.masked_less(distance, 0.25 * max(float(distance.max()), 0.4))
    panels[3].imshow(changed, cmap="YlOrRd", vmin=0, vmax=max(float(distance.max()), 0.4), alpha=0.65)
    panels[3].set_title(f"moved up to {distance.max():.1f} px", color=_INK, fontsize=10)
    motions = [(apex - onset).mean(0), (apex - offset).mean(0)]
    limit = max(float(torch.stack(motions).abs().flatten().quantile(0.995)), 2 / 255) if onset.numel() < 5e6 else 0.1
    for axes, name, motion in zip(panels[4:], ("apex − onset", "apex − offset"), motions, strict=True):
        axes.imshow(motion.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name, color=_INK, fontsize=10)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(_GRID)


def _one_clip(frames: Tensor) -> Tensor:
    if not isinstance(frames, Tensor):
        raise TypeError(f"frames must be a torch.Tensor (t, 3, h, w), got {type(frames).__name__}")
    clip = frames[0] if frames.ndim == 5 and frames.shape[0] == 1 else frames
    if clip.ndim != 4 or clip.shape[1] not in (1, 3):
        raise ValueError(f"frames must be one clip of images (t, 3, h, w), got shape {tuple(frames.shape)}")
    if len(clip) < 2 or (clip.is_floating_point() and not bool(torch.isfinite(clip).all())):
        raise ValueError("frames must be at least two, and finite")
    return clip.detach().cpu()


def _positions(name: str, keys: KeyFrames | tuple[int, int, int], t: int) -> tuple[int, int, int]:
    if not isinstance(keys, tuple) or len(keys) not in (3, 4):
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
