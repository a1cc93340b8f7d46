"""The pictures of the documentation, drawn by the library itself: `make figures`, or python docs/figures.py [NAME ...].

Those that the demo and the audit write (demo.png, audit.png) come from `make demo` and `mertools audit`; those of the
calibration and of what fails are drawn for light and for dark pages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawings
import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

import mertools as mt
from mertools.keyframes.robust import measured_extent

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.hard_clips import empty_clip, hard_clip  # noqa: E402
from benchmarks.keyframes import as_ints, hard_face  # noqa: E402

FOLDER = Path(__file__).parent / "figures"
# Grace Hopper's official portrait (US Navy, public domain), part of matplotlib's sample data, and where its eyes are.
EYES = ((225.0, 190.0), (306.0, 186.0))
ONSET, APEX, OFFSET, INK, MUTED, GRID = "#1b7f6b", "#c2452d", "#3559a8", "#22262b", "#6b737c", "#e4e7ea"

KEY_COLOURS = {"light": (ONSET, APEX, OFFSET), "dark": ("#4dc0a4", "#e98a73", "#8fb0f0")}
KEYS = ("onset", "apex", "offset")


def smile(**settings: Any) -> mt.SyntheticClip:
    """A synthetic smile on the portrait, with known key frames 24, 36 and 56 unless said otherwise."""
    image = imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    portrait = torch.tensor(image).permute(2, 0, 1).contiguous()
    return mt.synthetic_clip(portrait, eyes=EYES, **{"size": 160, "amplitude": 3.0, **settings})


def sheet(w: float, h: float) -> Figure:
    """A white figure without axes."""
    return Figure(figsize=(w, h), dpi=110, layout="constrained", facecolor="white")


def quiet(axes: Any) -> None:
    """Axes in muted colours, without the top and right line, with a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, length=3, labelsize=9)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)


def show(axes: Any, image: torch.Tensor, title: str, colour: str = INK, **how: Any) -> None:
    """An image ``(3, h, w)`` in [0, 1] or a map ``(h, w)``, without ticks."""
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy() if image.ndim == 3 else image.numpy(), **how)
    axes.set_title(title, fontsize=10, color=colour)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GRID)


def distances() -> Figure:
    """All distances of a clip, true and wrapped, with the windows of the published search."""
    clip = smile(noise=2, seed=3).frames
    annotation = {"onset": 27, "apex": 38, "offset": 60}
    flat = clip.flatten(1)[:, ::7]
    wrapped = torch.stack([(flat - frame).double().square().sum(1).sqrt() for frame in flat])  # uint8 − uint8 wraps
    figure = sheet(10, 4.6)
    for axes, d, name in zip(
        figure.subplots(1, 2),
        (mt.pairwise_distance(clip[None])[0], wrapped),
        ("true distance", "uint8 differences that wrap, as published"),
        strict=True,
    ):
        off = d[~torch.eye(len(d), dtype=torch.bool)]
        image = axes.imshow(d / off.mean(), cmap="GnBu", vmin=0, vmax=float(off.max() / off.mean()), origin="lower")
        spread = float((off.max() - off.min()) / off.mean())
        axes.set_title(f"{name}\n(largest − smallest: {spread:.0%} of the mean)", fontsize=10, color=INK)
        rise, fall = annotation["apex"] - annotation["onset"], annotation["offset"] - annotation["apex"]
        # Window sizes are those of the preset "wide", enlarged from the default so that they can be seen.
        axes.add_patch(
            Rectangle((annotation["apex"], annotation["onset"]), 0.48 * fall, 0.32 * rise, fill=False, ec=APEX, lw=1.8)
        )
        axes.plot(annotation["apex"], annotation["onset"], "o", color=APEX, ms=5)
        axes.set_xlabel("apex candidate (frame)", color=MUTED)
        axes.set_ylabel("onset candidate (frame)", color=MUTED)
        axes.tick_params(colors=MUTED, length=3, labelsize=9)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
        bar.set_label("÷ mean", color=MUTED)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=MUTED, length=0, labelsize=8)
    return figure


def blink() -> Figure:
    """A clip with a blink: what the plain search and the robust one find."""
    synthetic = smile(noise=3, blink=62, amplitude=2.0, size=128, seed=1)
    clip = synthetic.frames[None]
    truth = (synthetic.onset, synthetic.apex, synthetic.offset)
    found = [int(x) for x in mt.select_keyframes(clip)[:3]]
    plain = [int(x) for x in mt.select_keyframes(clip, distance=mt.pairwise_distance)[:3]]
    change = mt.pairwise_distance(clip)[0, synthetic.onset] / np.sqrt(clip[0, 0].numel())
    change[synthetic.onset] = change[synthetic.onset - 1]  # an onset has distance 0 to itself: leave out the dip
    figure = sheet(10, 3.6)
    axes = figure.subplots()
    quiet(axes)
    axes.plot(change, color=INK, lw=1.6)
    axes.axvspan(62, 69, color=MUTED, alpha=0.15, lw=0)
    axes.text(65.5, float(change.max()) * 1.05, "a blink", color=MUTED, ha="center", fontsize=9.5)
    top = float(change.max()) * 1.32
    for y, frames, name, marker in (
        (1.28, truth, "true", "D"), (1.20, found, "mertools", "o"), (1.12, plain, "largest distances", "X"),
    ):  # fmt: skip
        height = float(change.max()) * y
        for frame, colour in zip(frames, (ONSET, APEX, OFFSET), strict=True):
            axes.plot(frame, height, marker, color=colour, ms=8, mec="white", clip_on=False)
        axes.text(0.5, height, f"{name}: {', '.join(map(str, frames))}", fontsize=9.5, color=INK, va="center")
    for frame, colour in zip(truth, (ONSET, APEX, OFFSET), strict=True):
        axes.axvline(frame, color=colour, lw=1, alpha=0.5, ls=":")
    axes.set(xlim=(0, len(change) - 1), ylim=(0, top))
    axes.set_xlabel("frame", color=MUTED)
    axes.set_ylabel("change from the onset\n(RMS grey levels)", color=MUTED)
    return figure


def au_cost() -> Figure:
    """What the AU term costs when a class is taken for another, with full confidence."""
    names = list(mt.EXPRESSIONS)
    logits = torch.eye(len(names), dtype=torch.float64) * 30
    cost = torch.stack(
        [
            mt.au_prior_loss(logits, torch.full((7,), i), prior=mt.au_prior().double(), au_ratio=1.0, reduction="none")
            for i in range(7)
        ]
    )
    figure = sheet(6.4, 5)
    axes = figure.subplots()
    image = axes.imshow(cost, cmap="YlOrRd", vmin=0)
    axes.set_xticks(range(7), names, color=INK)
    axes.set_yticks(range(7), names, color=INK)
    axes.set_xlabel("predicted, with certainty", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i in range(7):
        for j in range(7):
            value = float(cost[i, j])
            colour = "white" if value > 0.6 * float(cost.max()) else INK
            axes.text(j, i, f"{abs(value):.2f}".removeprefix("0"), ha="center", va="center", fontsize=9, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("AU term of the loss", color=MUTED)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0)
    return figure


def au_compare() -> Figure:
    """Two classes of the prior beside each other."""
    return mt.plot_au_prior(compare=("surprise", "fear"))


def decay() -> Figure:
    """How long each head remembers, and the decay matrix of a causal and of a two-sided layer."""
    layer = mt.Retention(64, 8)
    gamma = torch.tensor(layer.decay)
    figure = sheet(10, 3)
    curve, causal, both = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    quiet(curve)
    ages = torch.arange(0, 257)
    shades = [(0.1 + 0.09 * h, 0.5 - 0.03 * h, 0.45 + 0.03 * h) for h in range(8)]
    for h, (g, shade) in enumerate(zip(gamma, shades, strict=True)):
        curve.plot(ages, g**ages, color=shade, lw=1.6, label=f"head {h}, γ = {float(g):.4f}")
    curve.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), labelcolor=INK)
    curve.set(xlim=(0, 256), ylim=(0, 1.02))
    curve.set_xlabel("frames ago, n − m", color=MUTED)
    curve.set_ylabel("weight γⁿ⁻ᵐ", color=MUTED)
    n = torch.arange(24)
    age = n[:, None] - n
    for axes, table, name in (
        (causal, torch.where(age >= 0, 0.9 ** age.abs().double(), 0.0), "causal=True"),
        (both, 0.9 ** age.abs().double(), "causal=False"),
    ):
        show(axes, table, f"D, {name}, γ = 0.9", cmap="GnBu", vmin=0, vmax=1)
        axes.set_xlabel("key frame m", color=MUTED)
        axes.set_ylabel("query frame n", color=MUTED)
    return figure


def manhattan() -> Figure:
    """How far a place of a map looks: the decay around one place in each stage of the backbone."""
    net = mt.ManhattanRetNet()
    figure = sheet(10, 2.9)
    for axes, (stage, head, side) in zip(
        figure.subplots(1, 4), ((0, 0, 28), (0, 1, 28), (2, 0, 28), (2, 1, 28)), strict=True
    ):
        block = net.stages[stage].blocks[0].retention
        row = torch.arange(side)
        distance = (row[:, None] - 13).abs() + (row - 13).abs()
        weight = torch.exp(block.log_decay[head].detach() * distance)
        show(
            axes, weight, f"stage {stage + 1}, head {head}, γ = {float(block.log_decay[head].exp()):.3f}",
            cmap="GnBu", vmin=0, vmax=1,
        )  # fmt: skip
    return figure


def how_and_where() -> Figure:
    """The inputs of the two branches, the optical flow and the optical strain."""
    synthetic = smile(size=224)
    onset, apex = (synthetic.frames[i].float() / 255 for i in (synthetic.onset, synthetic.apex))
    flow = mt.optical_flow(synthetic.frames[synthetic.onset], synthetic.frames[synthetic.apex])
    motion = (apex - onset).mean(0)
    figure = sheet(10, 2.9)
    panels = figure.subplots(1, 4)
    show(panels[0], onset, "where: the onset frame")
    limit = float(motion.abs().max())
    show(panels[1], motion, "how: apex − onset", cmap="RdBu_r", vmin=-limit, vmax=limit)
    show(panels[2], flow.norm(dim=0), f"optical flow, up to {float(flow.norm(dim=0).max()):.1f} px", cmap="YlOrRd")
    show(panels[3], mt.optical_strain(flow), "optical strain", cmap="YlOrRd")
    return figure


def magnify() -> Figure:
    """A weak movement made visible."""
    synthetic = smile(amplitude=0.8, size=160)
    clip = synthetic.frames.float() / 255
    louder = mt.magnify_motion(clip, factor=6, fps=100, low=0.5, high=6)
    figure = sheet(10, 2.9)
    panels = figure.subplots(1, 4)
    for k, (frames, name) in enumerate(((clip, "as it is"), (louder, "magnified 6 times"))):
        motion = (frames[synthetic.apex] - frames[synthetic.onset]).mean(0)
        show(panels[2 * k], frames[synthetic.apex], f"apex, {name}")
        show(panels[2 * k + 1], motion, f"apex − onset, {name}", cmap="RdBu_r", vmin=-0.2, vmax=0.2)
    return figure


def augment() -> Figure:
    """The augmentation of GAMDSS: the three frames of a clip move together."""
    synthetic = smile(size=112)
    frames = synthetic.frames[[synthetic.onset, synthetic.apex, synthetic.offset]].permute(0, 2, 3, 1).numpy()
    figure = sheet(10, 3.6)
    rows = figure.subplots(2, 6)
    random = torch.Generator().manual_seed(1)
    for k in range(4):
        moved = mt.transform_clip(frames, mt.ClipAugment(degrees=8).draw(random)) if k else frames
        for j, (name, colour) in enumerate((("onset", ONSET), ("apex", APEX), ("offset", OFFSET))):
            axes = rows[k // 2][3 * (k % 2) + j]
            show(axes, torch.from_numpy(moved[j]).permute(2, 0, 1) / 255, f"{name}{'' if k else ', as it is'}", colour)
    return figure


def conditions() -> Figure:
    """The movements and disturbances of synthetic clips."""
    figure = sheet(10, 4.2)
    kinds: list[tuple[str, dict[str, Any], int]] = [
        ("rest", {}, 0), ("smile", {}, 38), ("brow raise", {"movement": "brow-raise"}, 38),
        ("brow lowered", {"movement": "brow-lower"}, 38), ("sensor noise", {"noise": 8}, 38),
        ("JPEG", {"jpeg": 10}, 38),
        ("blink", {"blink": 34}, 37), ("nod", {"nod": 8, "seed": 4}, 38), ("drift", {"drift": 10}, 79),
        ("flicker", {"flicker": 0.2}, 38),
    ]  # fmt: skip
    for axes, (name, settings, frame) in zip(figure.subplots(2, 5).flat, kinds, strict=True):
        show(axes, smile(size=128, **settings).frames[frame].float() / 255, name)
    return figure


def themed_axes(axes: Any, palette: str) -> None:
    """Quiet axes in the colours of a light or dark page."""
    quiet(axes)
    colours = drawings.PALETTES[palette]
    line = str(colours["data"][1])
    axes.set_facecolor("none")
    axes.spines[["left", "bottom"]].set_color(line)
    axes.tick_params(colors=str(colours["muted"]))
    axes.grid(axis="y", color=line, lw=0.6, alpha=0.5)


def calibration(palette: str) -> Figure:
    """How many intervals of a nominal share hold the truth, from the figures of the benchmark."""
    blocks = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))["keyframes"]["blocks"]
    (table,) = (block for block in blocks if block.get("header", [""])[0] == "nominal")
    column = table["header"].index("untouched")
    nominal = [float(row[0].removesuffix("%")) for row in table["rows"]]
    found = [[float(value) for value in row[column].split("/")] for row in table["rows"]]
    ink, muted = (str(drawings.PALETTES[palette][name]) for name in ("ink", "muted"))
    figure = sheet(5.6, 4.4)
    figure.set_facecolor("none")
    axes = figure.subplots()
    themed_axes(axes, palette)
    axes.plot((45, 100), (45, 100), color=muted, lw=1, ls=":")
    axes.annotate("as nominal", (56, 56), (2, -14), textcoords="offset points", color=muted, fontsize=9)
    for name, colour, marker, values in zip(KEYS, KEY_COLOURS[palette], "o^s", zip(*found, strict=True), strict=True):
        axes.plot(nominal, values, marker=marker, color=colour, lw=1.6, ms=5, label=name)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9.5, loc="lower right")
    axes.set(xlim=(47, 98), ylim=(47, 101), xticks=nominal)
    axes.set_xlabel("nominal share of the interval, %", color=muted)
    axes.set_ylabel("holds the true frame, %", color=muted)
    return figure


def failure(palette: str, condition: str, number: int, shown: int = 6) -> Figure:
    """A clip that the search gets wrong: the true extent and what was found, with frames beneath."""
    face = hard_face(number, None)
    if condition == "large head turn":
        frames, truth, extent = empty_clip(condition, number, face), None, None
    else:
        clip = hard_clip(condition, number, face)
        frames, truth, extent = clip.frames, (clip.onset, (clip.apex + clip.apex_end) // 2, clip.offset), clip.motion
    keys = mt.select_keyframes(frames[None])
    found, t = as_ints(keys), len(frames)
    ink, muted = (str(drawings.PALETTES[palette][name]) for name in ("ink", "muted"))
    figure = sheet(8, 3.9)
    figure.set_facecolor("none")
    rows = figure.add_gridspec(2, shown, height_ratios=(1.7, 1))
    axes = figure.add_subplot(rows[0, :])
    themed_axes(axes, palette)
    axes.plot(extent if extent is not None else torch.zeros(t), color=muted, lw=4, alpha=0.45, solid_capstyle="round")
    axes.plot(measured_extent(frames, found), color=ink, lw=1.6)
    for name, at, width, colour in zip(KEYS, found, keys.spread[0].tolist(), KEY_COLOURS[palette], strict=True):
        axes.plot((at - width, at + width), (1.2, 1.2), color=colour, lw=3, alpha=0.5, solid_capstyle="butt")
        axes.plot(at, 1.2, "o", color=colour, ms=7, clip_on=False)
        if truth is not None:
            axes.plot(truth[KEYS.index(name)], 1.4, "D", color=colour, ms=6)
    told = f"◆ true (thick): {', '.join(map(str, truth)) if truth else 'no expression'}"
    what = f"● found (thin): {', '.join(map(str, found))}, evidence {float(keys.evidence):.2f}"
    axes.set_title(f"{told}     {what}", loc="left", fontsize=10, color=ink)
    axes.set(xlim=(-0.5, t - 0.5), ylim=(-0.25, 1.5), yticks=(0, 0.5, 1))
    axes.set_ylabel("extent", color=muted)
    axes.set_xlabel("frame", color=muted)
    for k in range(shown):
        at = round(k * (t - 1) / (shown - 1))
        show(figure.add_subplot(rows[1, k]), frames[at].float() / 255, f"{at}", muted)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "distances": distances, "blink": blink, "au-cost": au_cost, "au-compare": au_compare, "decay": decay,
    "manhattan": manhattan, "how-and-where": how_and_where, "magnify": magnify, "augment": augment,
    "conditions": conditions,
}  # fmt: skip
# Twice each, for light and for dark pages.
THEMED: dict[str, Callable[[str], Figure]] = {
    "calibration": calibration,
    "fails-head": lambda palette: failure(palette, "head 2-8 px", 400),
    "fails-parallax": lambda palette: failure(palette, "parallax", 410),
    "fails-turn": lambda palette: failure(palette, "large head turn", 409),
}


def main(names: list[str]) -> int:
    """Write the pictures named, or all of them and the drawings."""
    known = [*FIGURES, *THEMED]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"figures: no picture is called {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    drawings.write(FOLDER)
    for name in names or known:
        if name in FIGURES:
            FIGURES[name]().savefig(FOLDER / f"{name}.png")
            continue
        for palette in drawings.PALETTES:
            THEMED[name](palette).savefig(FOLDER / f"{name}-{palette}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
