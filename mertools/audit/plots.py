"""Figures of an audit: how far the key frames move, and the clips in which they move most. Needs matplotlib."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mertools._text import escape_unprintable
from mertools.audit.statistics import KEYS, Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by protanopes and deuteranopes, and by their shapes in grey.
COLOURS = {"onset": "#00856f", "apex": "#c44e00", "offset": "#33348e"}
MARKERS = {"onset": "o", "apex": "D", "offset": "s"}
INK, MUTED, GRID = "#22262b", "#6b737c", "#e4e7ea"


def plot_shifts(shifts: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Histograms of the shifts by search, then key frame, in frames: a row per search, one scale of frames for all."""
    everything = np.concatenate([x[np.isfinite(x)] for row in shifts.values() for x in row.values()] or [np.zeros(1)])
    reach = max(int(np.ceil(np.quantile(np.abs(everything), 0.99))) if everything.size else 0, 3)
    step = -(-reach // 20)  # whole frames a bar, so that a bar stands on zero
    edges = np.arange(-(reach // step) - 0.5, reach // step + 1) * step
    figure = figure_of((9, 2.3 * len(shifts) + 0.4))
    grid = figure.subplots(len(shifts), 3, sharex=True, sharey="row", squeeze=False)
    for axes, key in zip(grid[0], KEYS, strict=True):
        axes.set_title(key, color=COLOURS[key], fontsize=11)
    for row, (search, values) in zip(grid, shifts.items(), strict=True):
        for axes, key in zip(row, KEYS, strict=True):
            x = values[key][np.isfinite(values[key])]
            axes.hist(np.clip(x, edges[0], edges[-1]), bins=edges.tolist(), color=COLOURS[key], alpha=0.85)
            axes.axvline(0, color=INK, lw=0.8)
            if x.size:
                text = f"median {np.median(x):+.1f}\nmean |shift| {np.abs(x).mean():.1f}"
                axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=MUTED)
            quiet(axes)
            axes.yaxis.get_major_locator().set_params(integer=True)  # they are clips
        row[0].set_ylabel(f"{search} search\nclips", color=MUTED)
    for axes in grid[-1]:
        axes.set_xlabel("frames, later is positive", color=MUTED)
    return figure


def plot_uncertain(groups: Sequence[Group], title: str) -> Figure:
    """Share of clips with an uncertain onset, apex and offset, with 95 % intervals, a row per group."""
    figure = figure_of((9, 0.5 * len(groups) + 1.1))
    axes = figure.subplots()
    named: set[str] = set()
    for i, group in enumerate(groups):
        for key, nudge in zip(KEYS, (-0.22, 0, 0.22), strict=True):
            found = getattr(group, key)
            if found.n:
                share, y = 100 * found.share, i + nudge
                axes.plot([100 * found.low, 100 * found.high], [y, y], color=COLOURS[key], lw=2, alpha=0.45)
                axes.plot(share, y, MARKERS[key], color=COLOURS[key], ms=5, label=None if key in named else key)
                named.add(key)
    axes.set_yticks(
        range(len(groups)), [f"{escape_unprintable(group.name, 40)} ({group.n})" for group in groups], parse_math=False
    )
    axes.set(xlim=(-2, 102), ylim=(len(groups) - 0.5, -0.5))
    axes.set_xlabel(f"clips with an uncertain key frame, %, by {title}", color=MUTED)
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    quiet(axes, grid="x")
    return figure


def plot_contact_sheet(
    images: np.ndarray,
    numbers: Sequence[int],
    old: Sequence[int],
    new: Sequence[int],
    intervals: Sequence[tuple[int, int]] | None = None,
) -> Figure:
    """One clip: its annotated key frames above, those found below, and where they lie.

    Args:
        images: ``(6, h, w, 3)`` uint8 RGB: three annotated, three found.
        numbers: first and last file number that was looked at.
        old: annotated file numbers.
        new: found file numbers.
        intervals: first and last file number of the interval around each that was found.
    """
    figure = figure_of((6, 3.9 * images.shape[1] / images.shape[2] + 1.0))
    grid = figure.add_gridspec(3, 3, height_ratios=(1, 1, 0.16), hspace=0.16, wspace=0.04)
    for i, (image, number) in enumerate(zip(images, (*old, *new), strict=True)):
        axes = figure.add_subplot(grid[i // 3, i % 3])
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GRID)
        key = KEYS[i % 3]
        words = f"{key} {number}"
        if i > 2:
            moved = f"{number - old[i - 3]:+d}"
            words += f" ({moved})" if intervals is None else " ({}–{}), {}".format(*intervals[i - 3], moved)
        axes.set_title(words, color=COLOURS[key], fontsize=9, pad=3)
        if i % 3 == 0:
            axes.set_ylabel("found" if i else "annotated", color=MUTED, fontsize=9)
    axes = figure.add_subplot(grid[2, :])
    axes.plot(numbers, [0, 0], color=GRID, lw=3, solid_capstyle="butt")  # annotated above the line, found below it
    for key, ends in zip(KEYS, intervals or (), strict=intervals is not None):
        axes.plot(ends, [-0.7, -0.7], color=COLOURS[key], lw=4, alpha=0.3, solid_capstyle="butt", clip_on=False)
    for key, before, after in zip(KEYS, old, new, strict=True):
        axes.plot(before, 0.7, MARKERS[key], ms=5, mfc="white", color=COLOURS[key], clip_on=False)
        axes.plot(after, -0.7, MARKERS[key], ms=5, color=COLOURS[key], clip_on=False)
    axes.set(yticks=[], ylim=(-1, 1))
    axes.tick_params(colors=MUTED, labelsize=8, length=2)
    axes.spines[:].set_visible(False)
    return figure


def figure_of(size: tuple[float, float], dpi: int = 110, what: str = "the audit's report") -> Figure:
    """An empty figure whose fonts are ones that journals take: TrueType in PDF and PostScript, never Type 3."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{what} needs matplotlib: pip install 'mertools[plot]'") from error
    figure = Figure(figsize=size, dpi=dpi, layout="constrained", facecolor="white")
    vars(figure)["savefig"] = functools.partial(write_figure, figure)
    return figure


def write_figure(figure: Figure, *args: Any, **kwargs: Any) -> None:
    """``figure.savefig(...)`` with fonts as :func:`figure_of` says, whatever the user's settings."""
    from matplotlib import rc_context

    with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
        type(figure).savefig(figure, *args, **kwargs)


def quiet(axes: Any, grid: str = "y") -> None:
    """Few lines: what is drawn stands out."""
    axes.grid(axis=grid, color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, length=3)
