"""How far the key frames that are found lie from the true ones, how sure they are, and what a crop changes.

    python -m benchmarks.keyframes [--quick] [--clips 24] [--tuned 8] [--crops 8] [--portrait FILE X Y X Y]

Method: clips of ``synthetic_clip`` with known truth, the same for every method: crops of a photograph and of a drawn
face (shifted, turned, scaled, mirrored), frames of 128 to 224 pixels, three movements, random timing and strength; the
harder ones, and those without any expression, are of ``hard_clips.py``. The search was developed on the clips 0 to 7
of every condition (tuned) and on none from 400 on (untouched); ``--portrait`` takes another photograph in place of both
faces, with the places of its eyes. An error is the distance in frames; an apex anywhere on the plateau is right.
Annotations are the truth moved by 1 to 6 frames either way, each key frame on its own.

An interval for a nominal share p is ``spread`` · z(p) / 1.645, the half-width of 90 % scaled as a normal distribution
would be, rounded half up, and a frame at least for onset and offset, as the library does: below 90 % that one frame
alone holds more than p. For the apex it has to meet the true plateau.

Crops: each untouched clip is rendered at 200 pixels, cut to 80 % of that, moved and resized by up to 8 % of it, and
brought to 128 pixels, eight times. What is given is the mean distance of a key frame from its mean over the eight.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import NormalDist
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import mertools as mt
from benchmarks.hard_clips import HARD, NOTHING, Face, empty_clip, hard_clip

ARGUMENTS = ("--clips", "16", "--tuned", "8")
TUNED, UNTOUCHED = range(8), 400  # numbers of the clips the search was developed on, and the first of the others
# Grace Hopper's official portrait (US Navy, public domain), part of matplotlib's sample data, and where its eyes are.
HOPPER_EYES = ((225.0, 190.0), (306.0, 186.0))
MOVEMENTS = ("smile", "brow-raise", "brow-lower")
METHODS = ("mertools", "argmax over pairs", "joint argmax", "uint8 that wraps")
ANNOTATED = ("clean", "noisy", "one blink", "nod", "all together")
TARGETS: dict[str, tuple[float, ...]] = dict.fromkeys(("one blink", "two blinks", "nod"), (2.0, 1.0, 2.5)) | {
    "all together": (4.0, 2.0, 4.0)
}
TARGETS |= dict.fromkeys(HARD, (2.5, 1.0, 3.0)) | {"faint, strong JPEG": ()}
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RENDERED, BASE, BY, CROPPED, CROPS = 200, 0.8, 0.08, 128, 8  # pixels, shares of them, shares of these, pixels, count
Keys = tuple[int, int, int]
Photograph = tuple[str, float, float, float, float]  # a file, x and y of the eyes
CONDITIONS = (
    "clean", "noisy", "weak", "JPEG", "jitter", "drift", "flicker", "one blink", "two blinks", "nod", "all together",
    "faint, strong JPEG",
)  # fmt: skip


class Outcome(NamedTuple):
    """What was found in one clip: errors of each method without annotation, and near one."""

    condition: str
    number: int
    free: dict[str, Keys]  # empty where no expression is
    near: dict[str, Keys]
    spread: tuple[float, ...]
    evidence: float

    @property
    def tuned(self) -> bool:
        """Whether the search was developed on this clip."""
        return self.number in TUNED

    def holds(self, level: float) -> list[bool]:
        """Which of the three intervals hold the truth, at a nominal share."""
        scale = NormalDist().inv_cdf((1 + level) / 2) / NormalDist().inv_cdf(0.95)
        widths = (
            max(math.floor(width * scale + 0.5), least) for width, least in zip(self.spread, (1, 0, 1), strict=True)
        )
        return [off <= width for off, width in zip(self.free["mertools"], widths, strict=True)]


def draw_clip(
    condition: str, number: int, photograph: Photograph | None = None, rendered: int | None = None
) -> mt.SyntheticClip:
    """A clip of a condition: another face crop, movement, timing and strength for every number, the same every time.

    Of the size that the number brings, or rendered at another.
    """
    random = torch.Generator().manual_seed(1000 * number + 17)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    portrait, eyes = draw_face(number, uniform, photograph)
    size = (128, 160, 192, 224)[whole(0, 3)]
    movement = MOVEMENTS[number % 3]
    # Timing by rejection: at least five frames of rest on either side.
    while True:
        t, rise, hold, fall = whole(50, 200), whole(8, 25), whole(0, 10), whole(10, 30)
        if rise + hold + fall + 10 < t:
            break
    onset = whole(5, t - 6 - rise - hold - fall)
    apex, offset = onset + rise, onset + rise + hold + fall
    amplitude, weak = uniform(0.8, 3.0), uniform(0.8, 1.2)
    blinks = sorted(whole(0, t - 11) for _ in range(2))
    settings: dict[str, dict[str, object]] = {
        "clean": {},
        "noisy": {"noise": 4.0},
        "weak": {"amplitude": weak},
        "JPEG": {"jpeg": whole(60, 80)},
        "jitter": {"jitter": 0.15},
        "drift": {"drift": uniform(1.0, 3.0)},
        "flicker": {"flicker": 0.01},
        "one blink": {"blink": blinks[0], "blink_frames": whole(6, 10)},
        "two blinks": {"blink": blinks, "blink_frames": whole(6, 10)},
        "nod": {"nod": uniform(1.0, 2.0)},
    }
    chosen = settings.get(condition, {})
    if condition == "faint, strong JPEG":
        chosen = {"amplitude": uniform(0.2, 0.8) * size / 112, "noise": 2.0, "jpeg": whole(20, 40)}
    if condition == "all together":
        chosen = {name: value for each in settings.values() for name, value in each.items() if name != "amplitude"}
    made = {"amplitude": amplitude, "hold": hold, "movement": movement, "seed": number} | chosen
    if rendered:  # what is in pixels goes with it
        made |= {key: made[key] * rendered / size for key in ("amplitude", "jitter", "drift", "nod") if key in made}
        size = rendered
    return mt.synthetic_clip(
        portrait, eyes=eyes, num_frames=t, onset=onset, apex=apex, offset=offset, size=size, **made
    )


def draw_face(number: int, uniform: Callable[[float, float], float], photograph: Photograph | None = None) -> Face:
    """A portrait, a photograph's or the drawn one, and a crop of it: shifted, turned, nearer or farther, mirrored."""
    if photograph:
        file, *places = photograph
        portrait, (left, right) = read_image(file), (tuple(places[:2]), tuple(places[2:]))
    elif number % 4 == 3:
        portrait, (left, right) = mt.drawn_portrait(320), ((106.7, 112.0), (213.3, 112.0))
    else:
        portrait, (left, right) = hopper(), HOPPER_EYES
    x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    half = math.dist(left, right) / 2 * uniform(0.88, 1.15)
    x, y = x + uniform(-0.15, 0.15) * half, y + uniform(-0.15, 0.15) * half
    angle = math.atan2(right[1] - left[1], right[0] - left[0]) + math.radians(uniform(-5, 5))
    if uniform(0, 1) < 0.5:
        portrait, x, angle = portrait.flip(2), portrait.shape[2] - x, -angle
    dx, dy = half * math.cos(angle), half * math.sin(angle)
    return portrait, ((x - dx, y - dy), (x + dx, y + dy))


def hopper() -> Tensor:
    """The portrait ``(3, h, w)`` uint8 RGB."""
    from matplotlib.cbook import get_sample_data

    return read_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


@functools.cache
def read_image(file: str) -> Tensor:
    """An image file as ``(3, h, w)`` uint8 RGB."""
    import cv2

    image = cv2.imread(file, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{file} must be an image that OpenCV reads")
    return torch.from_numpy(image).flip(2).permute(2, 0, 1).contiguous()


def make_clip(
    condition: str, number: int, photograph: Photograph | None, rendered: int | None = None
) -> mt.SyntheticClip:
    """A clip of any condition in which something is expressed."""
    if condition in CONDITIONS:
        return draw_clip(condition, number, photograph, rendered)
    return hard_clip(condition, number, hard_face(number, photograph), rendered)


def hard_face(number: int, photograph: Photograph | None) -> Face:
    """The face of a harder clip."""
    random = torch.Generator().manual_seed(1000 * number + 17)
    return draw_face(number, lambda low, high: low + (high - low) * float(torch.rand((), generator=random)), photograph)


def random_crops(frames: Tensor, number: int) -> Iterable[Tensor]:
    """Crops of a clip ``(t, 3, h, h)``: the middle, moved and resized by up to ``BY`` of its side."""
    random = torch.Generator().manual_seed(number)
    whole = frames.shape[-1]
    for x, y, size in (2 * torch.rand(CROPS, 3, generator=random) - 1).tolist():
        side = round(BASE * (1 + BY * size) * whole)
        left, top = (round((whole - side) / 2 + BY * BASE * shift * whole) for shift in (x, y))
        part = frames[..., top : top + side, left : left + side].float()
        resized = F.interpolate(part, (CROPPED, CROPPED), mode="bilinear", antialias=True, align_corners=False)
        yield resized.round().to(torch.uint8)


# --- methods --------------------------------------------------------------------------------------------------------


def argmax_over_pairs(d: Tensor) -> Keys:
    """The two frames farthest apart are onset and apex, the frame farthest from the apex after it the offset."""
    t = len(d)
    onset, apex = divmod(int(d.triu().argmax()), t)
    return onset, apex, apex + int(d[apex, apex:].argmax())


def joint_argmax(frames: Tensor, distance: Callable[[Tensor], Tensor]) -> Keys:
    """The triple with the largest d(onset, apex) + d(apex, offset)."""
    return as_ints(mt.select_keyframes(frames[None], distance=distance))


def wrapped_distance(clips: Tensor) -> Tensor:
    """Distances of ``uint8`` differences that wrap, as published; every fourth pixel, to have it in bearable time."""
    values = clips[0, :, :, ::4, ::4].flatten(1)
    d = torch.stack([(values - frame).float().square().sum(1).sqrt() for frame in values])
    return d.maximum(d.mT)[None].double()


def as_ints(keys: mt.KeyFrames) -> Keys:
    """Key frames of one clip as plain numbers."""
    return int(keys.onset), int(keys.apex), int(keys.offset)


def error(found: Keys, clip: mt.SyntheticClip) -> Keys:
    """Frames between what was found and the truth."""
    onset, apex, offset = found
    return abs(onset - clip.onset), max(clip.apex - apex, apex - clip.apex_end, 0), abs(offset - clip.offset)


def perturbed(clip: mt.SyntheticClip, number: int) -> Keys:
    """An annotation that is 1 to 6 frames off, in order and within the clip."""
    random = torch.Generator().manual_seed(number)
    off = torch.randint(1, 7, (3,), generator=random) * (2 * torch.randint(0, 2, (3,), generator=random) - 1)
    t = len(clip.frames)
    onset = min(max(clip.onset + int(off[0]), 0), t - 1)
    apex = min(max(clip.apex + int(off[1]), onset + 1), t - 1)
    return onset, apex, min(max(clip.offset + int(off[2]), apex), t - 1)


def run(job: tuple[str, int, Photograph | None]) -> Outcome:
    """One clip: the search in every condition, the other methods in those of ``CONDITIONS``."""
    torch.set_num_threads(1)
    condition, number, photograph = job
    if condition in NOTHING:
        keys = mt.select_keyframes(empty_clip(condition, number, hard_face(number, photograph))[None])
        return Outcome(condition, number, {}, {}, (), float(keys.evidence))
    clip = make_clip(condition, number, photograph)
    frames = clip.frames
    keys = mt.select_keyframes(frames[None])
    free, near = {"mertools": as_ints(keys)}, {}
    if condition in CONDITIONS:
        d = mt.pairwise_distance(frames[None])
        free |= {
            "argmax over pairs": argmax_over_pairs(d[0]),
            "joint argmax": joint_argmax(frames, lambda _: d),
            "uint8 that wraps": joint_argmax(frames, wrapped_distance),
        }
    if condition in ANNOTATED:
        mark = perturbed(clip, number)
        near = {
            "annotation": mark,
            "published windows": as_ints(mt.select_keyframes(frames[None], *mark)),
            "wide windows": as_ints(mt.FrameSelector.preset("wide")(frames[None], *mark)),
            "refine": as_ints(mt.select_keyframes(frames[None], *mark, refine=True)),
        }
    off = {name: error(found, clip) for name, found in free.items()}
    left = {name: error(found, clip) for name, found in near.items()}
    return Outcome(condition, number, off, left, tuple(keys.spread[0].tolist()), float(keys.evidence))


def run_crops(job: tuple[str, int, Photograph | None]) -> tuple[str, tuple[float, ...], int]:
    """Condition, mean distance of each key frame from its mean over the crops, and how many crops are within 4."""
    torch.set_num_threads(1)
    condition, number, photograph = job
    clip = make_clip(condition, number, photograph, RENDERED)
    found = [as_ints(mt.select_keyframes(frames[None])) for frames in random_crops(clip.frames, number)]
    table = torch.tensor(found, dtype=torch.float64)
    deviation = (table - table.mean(0)).abs().mean(0)
    return condition, tuple(deviation.tolist()), sum(max(error(keys, clip)) <= 4 for keys in found)


# --- tables ---------------------------------------------------------------------------------------------------------


def cell(rows: Iterable[tuple[float, ...]], statistic: Callable[[Tensor], Tensor], digits: int) -> str:
    """Onset / apex / offset."""
    columns = torch.tensor(list(rows), dtype=torch.float64).view(-1, 3).mT
    return " / ".join(f"{float(statistic(column)):.{digits}f}" for column in columns) if columns.numel() else "-"


def percent(told: Iterable[bool]) -> str:
    """The share that is true."""
    values = list(told)
    return f"{100 * sum(values) / len(values):.0f} %" if values else "-"


def held(outcomes: Iterable[Outcome], level: float) -> str:
    """How often the intervals hold the truth: onset / apex / offset."""
    columns = zip(*(outcome.holds(level) for outcome in outcomes), strict=True)
    return " / ".join(f"{100 * sum(column) / len(column):.0f}" for column in columns) or "-"


def print_header(*titles: str) -> None:
    """The first two lines of a table."""
    print("| " + " | ".join(titles) + " |")
    print("|---" * len(titles) + "|")


def parted(outcomes: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """The tuned clips, and the untouched."""
    return [one for one in outcomes if one.tuned], [one for one in outcomes if not one.tuned]


def print_errors(moving: dict[str, list[Outcome]]) -> None:
    """Errors without annotation, of the search and of other methods, and near an annotation."""
    print("\nWithout annotation; errors in frames, onset / apex / offset\n")
    print_header(
        "condition", "mean, tuned", "mean, untouched", "worst, untouched", "within 4 frames, tuned",
        "within 4 frames, untouched", "goal",
    )  # fmt: skip
    for condition, outcomes in moving.items():
        parts = [[one.free["mertools"] for one in part] for part in parted(outcomes)]
        near = " | ".join(percent(max(off) <= 4 for off in part) for part in parts)
        means = " | ".join(cell(part, torch.mean, 2) for part in parts)
        goal = " / ".join(f"{value:g}" for value in TARGETS.get(condition, (1.5, 0.5, 1.5))) or "-"
        print(f"| {condition} | {means} | {cell(parts[1], torch.max, 0)} | {near} | {goal} |")
    print("\nOther methods; mean errors, untouched\n")
    print_header("condition", *METHODS)
    for condition, outcomes in moving.items():
        rows = [one.free for one in parted(outcomes)[1]]
        if len(rows[0]) > 1:
            print(f"| {condition} | " + " | ".join(cell((r[m] for r in rows), torch.mean, 1) for m in METHODS) + " |")
    print("\nNear an annotation that is 1 to 6 frames off; mean errors, untouched but for the last column\n")
    print_header(
        "condition", "annotation", "published windows", "published, wide", "`refine=True`", "`refine=True`, tuned"
    )
    for condition, outcomes in moving.items():
        tuned, untouched = ([one.near for one in part] for part in parted(outcomes))
        if untouched[0]:
            row = [cell((near[name] for near in untouched), torch.mean, 1) for name in untouched[0]]
            row.append(cell((near["refine"] for near in tuned), torch.mean, 1))
            print(f"| {condition} | " + " | ".join(row) + " |")


def print_certainty(moving: dict[str, list[Outcome]], empty: dict[str, list[Outcome]]) -> None:
    """What the intervals hold, and where a movement is found."""
    print(
        "\nIntervals of 90 % that hold the truth, in %, onset / apex / offset; clips with an evidence of 0.5 or more\n"
    )
    print_header("condition", "intervals, tuned", "intervals, untouched", "evidence, tuned", "evidence, untouched")
    every = [one for outcomes in moving.values() for one in outcomes]
    nothing = [one for outcomes in empty.values() for one in outcomes]
    groups = {"*all with a movement*": every, **moving, "*all without one*": nothing, **empty}
    for condition, outcomes in groups.items():
        parts = parted(outcomes)
        intervals = " | ".join(held((one for one in part if one.free), 0.9) for part in parts)
        found = " | ".join(percent(one.evidence >= 0.5 for one in part) for part in parts)
        print(f"| {condition} | {intervals} | {found} |")
    print("\nIntervals for other shares: how many hold the truth, in %, onset / apex / offset\n")
    print_header("nominal", "tuned", "untouched")
    for level in LEVELS:
        print(f"| {100 * level:.0f} % | " + " | ".join(held(part, level) for part in parted(every)) + " |")


def print_crops(rows: list[tuple[str, tuple[float, ...], int]]) -> None:
    """How far the key frames of crops of one clip lie apart."""
    print("\nEight crops of a clip, untouched: how far key frames lie from their mean, in frames (goal 2)\n")
    print_header("condition", "mean", "clip that differs most", "crops within 4 frames of the truth")
    conditions = dict.fromkeys(row[0] for row in rows)
    for condition in ("*all*", *conditions):
        own = [row for row in rows if condition in (row[0], "*all*")]
        apart = [row[1] for row in own]
        near = f"{100 * sum(row[2] for row in own) / len(own) / CROPS:.0f} %"
        print(f"| {condition} | {cell(apart, torch.mean, 2)} | {cell(apart, torch.max, 1)} | {near} |")


def main() -> None:
    """Draw the clips, run every method, print all tables."""
    parser = argparse.ArgumentParser(description="Accuracy of the key frames.")
    parser.add_argument("--quick", action="store_true", help="one clip of each kind, to see that it runs")
    parser.add_argument("--clips", type=int, default=24, help="untouched clips per condition, the first with crops")
    parser.add_argument("--first", type=int, default=UNTOUCHED, help="number of the first of them")
    parser.add_argument(
        "--tuned", type=int, default=8, help="clips per condition that the search was developed on, 0 to 8"
    )
    parser.add_argument("--crops", type=int, default=8, help="clips per condition that are cropped")
    parser.add_argument("--portrait", nargs=5, metavar=("FILE", "X", "Y", "X", "Y"), help="a photograph and its eyes")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    photograph = (args.portrait[0], *map(float, args.portrait[1:])) if args.portrait else None
    moving, empty = (CONDITIONS + HARD, NOTHING)
    if args.quick:
        moving, empty = ("clean", "folds and teeth"), ("still face",)
        args.clips = args.tuned = args.crops = 1
    untouched = range(args.first, args.first + args.clips)
    jobs = list(product(moving + empty, (*TUNED[: args.tuned], *untouched), (photograph,)))
    cropped = list(product(moving, untouched[: args.crops], (photograph,)))
    start = time.perf_counter()
    if args.workers > 1 and not args.quick:
        with ProcessPoolExecutor(args.workers) as pool:
            outcomes = list(pool.map(run, jobs, chunksize=4))
            crops = list(pool.map(run_crops, cropped, chunksize=2))
    else:
        outcomes, crops = [run(job) for job in jobs], [run_crops(job) for job in cropped]
    by_condition = {name: [one for one in outcomes if one.condition == name] for name in moving + empty}
    print(f"{args.clips} untouched clips per condition from number {args.first} on, {args.tuned} tuned")
    print_errors({name: by_condition[name] for name in moving})
    print_certainty({name: by_condition[name] for name in moving}, {name: by_condition[name] for name in empty})
    print_crops(crops)
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
