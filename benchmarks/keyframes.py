"""How far the key frames that are found lie from the true ones: without annotation, and near one that is off.

    python -m benchmarks.keyframes [--quick] [--clips 100] [--workers 2]

Method: clips of ``synthetic_clip`` with known truth, the same for every method: crops of a photograph and of a drawn
face (shifted, turned, scaled, mirrored), frames of 128 to 224 pixels, three movements, random timing and strength. An
error is the distance in frames; an apex anywhere on the plateau is right. The annotations of the second table are the
truth moved by 1 to 6 frames either way, each key frame on its own. The third table is that of ``hard_clips.py``:
errors, how often the intervals hold the truth, and the share of clips with an evidence of 0.5 or more; last, clips
without any expression.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import torch
from torch import Tensor

import mertools as mt
from benchmarks.hard_clips import HARD, NOTHING, empty_clip, hard_clip

ARGUMENTS = ("--clips", "10")
# Grace Hopper's official portrait (US Navy, public domain), part of matplotlib's sample data, and where its eyes are.
HOPPER_EYES = ((225.0, 190.0), (306.0, 186.0))
MOVEMENTS = ("smile", "brow-raise", "brow-lower")
METHODS = ("mertools", "argmax over pairs", "joint argmax", "uint8 that wraps")
ANNOTATED = ("clean", "noisy", "one blink", "nod", "all together")
TARGETS = dict.fromkeys(("one blink", "two blinks", "nod"), (2.0, 1.0, 2.5)) | {"all together": (4.0, 2.0, 4.0)}
Keys = tuple[int, int, int]
Result = tuple[str, dict[str, Keys], dict[str, Keys]]  # condition, errors without annotation, errors near one
CONDITIONS = (
    "clean", "noisy", "weak", "JPEG", "jitter", "drift", "flicker", "one blink", "two blinks", "nod", "all together",
)  # fmt: skip


def draw_clip(condition: str, number: int) -> mt.SyntheticClip:
    """A clip of a condition: another face crop, movement, timing and strength for every number, the same every time."""
    random = torch.Generator().manual_seed(1000 * number + 17)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    portrait, eyes = draw_face(number, uniform)
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
    if condition == "all together":
        chosen = {name: value for each in settings.values() for name, value in each.items() if name != "amplitude"}
    made = {"amplitude": amplitude, "hold": hold, "movement": movement, "seed": number} | chosen
    return mt.synthetic_clip(
        portrait, eyes=eyes, num_frames=t, onset=onset, apex=apex, offset=offset, size=size, **made
    )


def draw_face(
    number: int, uniform: Callable[[float, float], float]
) -> tuple[Tensor, tuple[tuple[float, float], tuple[float, float]]]:
    """A portrait, a photograph's or the drawn one, and a crop of it: shifted, turned, nearer or farther, mirrored."""
    if number % 4 == 3:
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
    from matplotlib.image import imread

    image = imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return torch.tensor(image).permute(2, 0, 1).contiguous()


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


def run(job: tuple[str, int]) -> Result:
    """Errors of every method on one clip."""
    torch.set_num_threads(1)
    condition, number = job
    clip = draw_clip(condition, number)
    frames = clip.frames
    d = mt.pairwise_distance(frames[None])
    free = {
        "mertools": as_ints(mt.select_keyframes(frames[None])),
        "argmax over pairs": argmax_over_pairs(d[0]),
        "joint argmax": joint_argmax(frames, lambda _: d),
        "uint8 that wraps": joint_argmax(frames, wrapped_distance),
    }
    near = {}
    if condition in ANNOTATED:
        mark = perturbed(clip, number)
        near = {
            "annotation": mark,
            "published windows": as_ints(mt.select_keyframes(frames[None], *mark)),
            "wide windows": as_ints(mt.FrameSelector.preset("wide")(frames[None], *mark)),
            "refine": as_ints(mt.select_keyframes(frames[None], *mark, refine=True)),
        }
    return (
        condition,
        {name: error(keys, clip) for name, keys in free.items()},
        {name: error(keys, clip) for name, keys in near.items()},
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def cell(errors: Iterable[Keys], statistic: Callable[[Tensor], Tensor], digits: int) -> str:
    """Onset / apex / offset."""
    table = torch.tensor(list(errors), dtype=torch.float64)
    return " / ".join(f"{float(statistic(column)):.{digits}f}" for column in table.T)


def print_tables(conditions: Iterable[str], count: int, results: list[Result]) -> None:
    """Errors without annotation, and near one."""
    mean, median, worst = torch.mean, torch.median, torch.max
    print(f"{count} clips per condition; errors in frames, onset / apex / offset\n")
    print(
        "| condition | mean | median | worst | " + " | ".join(f"{name}, mean" for name in METHODS[1:]) + " | target |"
    )
    print("|---" * (len(METHODS) + 4) + "|")
    for condition in conditions:
        own = [free for name, free, _ in results if name == condition]
        ours = [free["mertools"] for free in own]
        others = " | ".join(cell((free[name] for free in own), mean, 0) for name in METHODS[1:])
        target = " / ".join(f"{value:g}" for value in TARGETS.get(condition, (1.5, 0.5, 1.5)))
        print(f"| {condition} | {cell(ours, mean, 2)} | {cell(ours, median, 0)} | {cell(ours, worst, 0)} "
              f"| {others} | {target} |")  # fmt: skip
    print("\nNear an annotation that is 1 to 6 frames off; mean errors, onset / apex / offset\n")
    print("| condition | annotation | published windows | published, wide | `refine=True` |")
    print("|---|---|---|---|---|")
    for condition in conditions:
        rows = [near for name, _, near in results if name == condition and near]
        if rows:
            print(
                f"| {condition} | " + " | ".join(cell((row[name] for row in rows), mean, 1) for name in rows[0]) + " |"
            )


def run_hard(job: tuple[str, int]) -> tuple[str, Keys | None, list[bool], bool]:
    """Condition, errors, which intervals hold the truth, and whether a movement was found."""
    torch.set_num_threads(1)
    condition, number = job
    random = torch.Generator().manual_seed(1000 * number + 17)
    face = draw_face(number, lambda low, high: low + (high - low) * float(torch.rand((), generator=random)))
    if condition in NOTHING:
        keys = mt.select_keyframes(empty_clip(condition, number, face)[None])
        return condition, None, [], float(keys.evidence) >= 0.5
    clip = hard_clip(condition, number, face)
    keys = mt.select_keyframes(clip.frames[None])
    off = error(as_ints(keys), clip)
    held = [one <= math.floor(width + 0.5) for one, width in zip(off, keys.spread[0].tolist(), strict=True)]
    return condition, off, held, float(keys.evidence) >= 0.5


def print_hard(results: list[tuple[str, Keys | None, list[bool], bool]]) -> None:
    """Errors in the harder conditions, and what is found in clips without an expression."""
    print("\nHarder clips (target 2.5 / 1 / 3)\n")
    print("| condition | mean | worst | within 4 frames | intervals hold the truth | evidence of 0.5 or more |")
    print("|---|---|---|---|---|---|")
    for condition in dict.fromkeys(result[0] for result in results):
        own = [result for result in results if result[0] == condition]
        found = f"{100 * sum(result[3] for result in own) / len(own):.0f} %"
        errors = [result[1] for result in own if result[1] is not None]
        if not errors:
            print(f"| {condition} | - | - | - | - | {found} |")
            continue
        near = 100 * sum(max(off) <= 4 for off in errors) / len(own)
        held = " / ".join(f"{100 * sum(column) / len(own):.0f} %" for column in zip(*(r[2] for r in own), strict=True))
        means, worst = cell(errors, torch.mean, 2), cell(errors, torch.max, 0)
        print(f"| {condition} | {means} | {worst} | {near:.0f} % | {held} | {found} |")


def main() -> None:
    """Draw the clips, run every method, print all tables."""
    parser = argparse.ArgumentParser(description="Accuracy of the key frames.")
    parser.add_argument("--quick", action="store_true", help="two clips per condition, to see that it runs")
    parser.add_argument("--clips", type=int, default=100, help="clips per condition")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    conditions, count = (("clean", "all together"), 2) if args.quick else (CONDITIONS, args.clips)
    jobs = list(product(conditions, range(count)))
    harder = list(product(("folds and teeth", "still face") if args.quick else (*HARD, *NOTHING), range(count)))
    start = time.perf_counter()
    if args.workers > 1 and not args.quick:
        with ProcessPoolExecutor(args.workers) as pool:
            results = list(pool.map(run, jobs, chunksize=4))
            hard = list(pool.map(run_hard, harder, chunksize=4))
    else:
        results, hard = [run(job) for job in jobs], [run_hard(job) for job in harder]
    print_tables(conditions, count, results)
    print_hard(hard)
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
