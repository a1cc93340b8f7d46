"""The expressions of long videos: how many are found, and how often something is that is none.

    python -m benchmarks.spotting [--quick] [--videos 4] [--first 1000] [--workers 2]

Method: synthetic videos of 60 to 120 s at 30 fps with 3 to 12 expressions of 0.2 to 3 s, two faces in random crops,
three movements, frames of 112 pixels. F1 is that of the Micro-Expression Grand Challenges: counts pooled over the
videos of a condition, an interval right at IoU 0.5 (0.3 and 0.7 beside it), one to one. False alarms a minute are those
in the same conditions without any expression. Nothing was tuned on the videos from number 1000 on.

The peers: MDMD, the main directional maximal difference of optical flow in 36 cells (Wang et al. 2017), the baseline of
MEGC 2020, written anew from its description, at both of the baseline's scales; and the peaks of the difference between
a frame and that of 12 frames earlier. Both get, in every condition, the threshold that is best there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise, product

import cv2
import numpy as np
import torch
from torch import Tensor

import mertools as mt
from benchmarks.keyframes import draw_face
from mertools.clips.read import clip_frames
from mertools.spotting.synthetic import SyntheticExpression, SyntheticVideo

ARGUMENTS = ("--videos", "4")
FPS = 30
CONDITIONS = ("plain", "blinks and nods", "speech", "cuts", "everything")
TARGETS = {"plain": 0.97, "blinks and nods": 0.95, "everything": 0.85}
MOVEMENTS = ("smile", "brow-raise", "brow-lower")
Interval = tuple[int, int]


def draw_video(
    condition: str, number: int, *, expressions: bool = True, seconds: tuple[float, float] = (60, 120)
) -> SyntheticVideo:
    """A video of a condition, another for every number, the same every time."""
    random = torch.Generator().manual_seed(1000 * number + 29)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    portrait, eyes = draw_face(number, uniform)
    t = round(uniform(*seconds) * FPS)
    everything = condition == "everything"
    wanted = whole(3, 12) if expressions else 0
    made: list[SyntheticExpression] = []
    for _ in range(40 * wanted):  # by rejection: at least a quarter of a second of rest between any two
        if len(made) == wanted:
            break
        length = round(FPS * math.exp(uniform(math.log(0.2), math.log(3))))
        onset = whole(8, t - length - 9)
        if any(onset <= one.offset + 8 and one.onset <= onset + length + 8 for one in made):
            continue
        rise, fall = (max(2, min(round(length * uniform(0.2, 0.45)), 20)) for _ in range(2))
        keys = onset, onset + rise, max(onset + length - fall, onset + rise), onset + length
        made.append(SyntheticExpression(*keys, MOVEMENTS[whole(0, 2)], uniform(1.0, 3.0)))
    made.sort()
    settings: dict[str, object] = {"noise": uniform(0.5, 2.0), "drift": uniform(0.0, 1.5)}
    if condition == "blinks and nods" or everything:
        settings["blinks"] = spread_out(whole(round(10 * t / 1800), round(20 * t / 1800)), t, 14, whole)
        settings["nods"] = [
            (first, whole(20, 60), uniform(1.0, 3.0)) for first in spread_out(whole(2, 6), t, 70, whole)
        ]
    if condition == "speech" or (everything and number % 2):
        settings["speech"] = [
            (first, first + length)
            for first in spread_out(whole(2, 4), t, 130, whole)
            if (length := whole(30, 120))
            and not any(first - 9 <= one.offset and one.onset <= first + length + 9 for one in made)
        ]
    if condition == "cuts" or (everything and number % 3 == 0):
        settings["cuts"] = [
            cut for cut in spread_out(whole(1, 4), t, 60, whole)
            if not any(one.onset - 9 < cut <= one.offset + 9 for one in made)
        ]  # fmt: skip
    if everything:
        settings |= {"drift": uniform(1.0, 4.0), "flicker": 0.01, "noise": uniform(1.0, 3.0)}
    return SyntheticVideo(t, made, portrait=portrait, eyes=eyes, seed=number, **settings)


def spread_out(count: int, t: int, apart: int, whole: Callable[[int, int], int]) -> list[int]:
    """Random frames of which no two are nearer than ``apart``."""
    chosen: list[int] = []
    for _ in range(50 * count):
        frame = whole(5, t - apart)
        if len(chosen) < count and all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
    return sorted(chosen)


# --- methods --------------------------------------------------------------------------------------------------------


def spotted(video: SyntheticVideo) -> list[Interval]:
    """What the library finds."""
    return [(one.onset, one.offset) for one in mt.spot_expressions(iter(video))]


def grey(video: SyntheticVideo) -> np.ndarray:
    """All frames as grey pictures ``(t, h, w)`` uint8, for the peers."""
    return np.stack([cv2.cvtColor(frame.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for frame in video])


def mdmd_feature(frames: np.ndarray, k: int, *, cells: int = 6, directions: int = 4) -> np.ndarray:
    """How much the flow from k frames earlier exceeds the flow to k frames later, in its main direction ``(t,)``.

    In each of 36 cells the directions of the flow from frame i - k to i are counted in four sectors; of the vectors in
    the fullest one, the third whose length exceeds that of the flow from i - k to i + k most counts, and of the cells
    the third with the largest values. From this the mean of the feature k frames earlier and later is taken.
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    t, h, w = frames.shape
    rows, columns = (np.linspace(0, side, cells + 1).astype(int) for side in (h, w))
    feature = np.zeros(t)
    for i in range(k, t - k):
        here = flow.calc(frames[i - k], frames[i], None)
        there = flow.calc(frames[i - k], frames[i + k], None)
        length = np.hypot(here[..., 0], here[..., 1])
        sector = ((np.arctan2(here[..., 1], here[..., 0]) / (2 * np.pi) + 0.5) * directions).astype(int) % directions
        more = length - np.hypot(there[..., 0], there[..., 1])
        values = []
        for (a, b), (c, d) in product(pairwise(rows), pairwise(columns)):
            inside = sector[a:b, c:d].ravel()
            main = more[a:b, c:d].ravel()[inside == np.bincount(inside, minlength=directions).argmax()]
            values.append(np.sort(main)[-max(len(main) // 3, 1) :].mean())
        feature[i] = np.sort(values)[-max(len(values) // 3, 1) :].mean()
    contrast = feature.copy()
    contrast[k:-k] -= (feature[: -2 * k] + feature[2 * k :]) / 2
    return np.maximum(contrast, 0)


def difference_feature(frames: np.ndarray, k: int = 12) -> np.ndarray:
    """Mean absolute difference of each frame to that of k frames earlier, smoothed ``(t,)``."""
    values = frames.astype(np.float32)
    feature = np.zeros(len(values))
    feature[k:] = np.abs(values[k:] - values[:-k]).mean((1, 2))
    return np.convolve(feature, np.ones(5) / 5, "same")


def above(feature: np.ndarray, share: float, shortest: int, longest: int) -> list[Interval]:
    """Stretches above mean + share x (maximum - mean) of the right length."""
    over = np.concatenate(([False], feature >= feature.mean() + share * (feature.max() - feature.mean()), [False]))
    edges = np.flatnonzero(over[1:] != over[:-1])
    pairs = zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True)
    return [(a, b) for a, b in pairs if shortest <= b - a + 1 <= longest]


def features(video: SyntheticVideo) -> dict[str, list[np.ndarray]]:
    """What the peers threshold: MDMD at the baseline's scales for 30 fps, micro (k = 12) and macro (k = 39)."""
    frames = grey(video)
    return {
        "MDMD": [mdmd_feature(frames, 12), mdmd_feature(frames, 39)],
        "frame difference": [difference_feature(frames)],
    }


def peer_intervals(name: str, feature: list[np.ndarray], share: float) -> list[Interval]:
    """The intervals of a peer for one threshold; MDMD's are micro (7 to 16 frames) and macro (17 to 120)."""
    if name == "MDMD":
        return [*above(feature[0], share, 7, 16), *above(feature[1], share, 17, 120)]
    return above(feature[0], share, 4, 120)


# --- the study ------------------------------------------------------------------------------------------------------

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
COMPARED = ("plain", "everything")  # conditions in which the peers run: they take longer than all else


def one_video(job: tuple[str, int, bool, tuple[float, float]]) -> dict[str, object]:
    """Everything about one video: the truth, what each method finds, minutes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    condition, number, expressions, seconds = job
    video = draw_video(condition, number, expressions=expressions, seconds=seconds)
    found = {"mertools": [spotted(video)]}
    if expressions and condition in COMPARED:
        for name, feature in features(video).items():
            found[name] = [peer_intervals(name, feature, share) for share in SHARES]
    return {
        "condition": condition, "expressions": expressions, "true": video.intervals, "found": found,
        "minutes": video.num_frames / FPS / 60,
    }  # fmt: skip


def best_f1(videos: list[dict], method: str, iou: float) -> mt.SpottingScores:
    """The scores of a method, for a peer at the threshold that is best here."""
    tried = [
        mt.spotting_scores([v["found"][method][i] for v in videos], [v["true"] for v in videos], iou=iou, fps=FPS)
        for i in range(len(videos[0]["found"][method]))
    ]
    return max(tried, key=lambda scores: scores.f1)


def report(videos: list[dict]) -> None:
    """The tables."""
    print("| condition | method | F1 at IoU 0.3 | 0.5 | 0.7 | micro at 0.5 | macro at 0.5 | goal at 0.5 |")
    print("|---|---|---|---|---|---|---|---|")
    for condition in CONDITIONS:
        these = [v for v in videos if v["condition"] == condition and v["expressions"]]
        for method in these[0]["found"] if these else ():
            scores = {iou: best_f1(these, method, iou) for iou in (0.3, 0.5, 0.7)}
            goal = f"{TARGETS[condition]:.2f}" if condition in TARGETS and method == "mertools" else ""
            f1s = " | ".join(f"{scores[iou].f1:.3f}" for iou in (0.3, 0.5, 0.7))
            half = scores[0.5]
            print(f"| {condition} | {method} | {f1s} | {half.micro.f1:.2f} | {half.macro.f1:.2f} | {goal} |")
    print()
    print("| without expressions | false alarms | minutes | a minute |")
    print("|---|---|---|---|")
    for condition in CONDITIONS:
        these = [v for v in videos if v["condition"] == condition and not v["expressions"]]
        if these:
            alarms = sum(len(v["found"]["mertools"][0]) for v in these)
            minutes = sum(v["minutes"] for v in these)
            print(f"| {condition} | {alarms} | {minutes:.1f} | {alarms / minutes:.2f} |")


def speed(frames: int) -> None:
    """Frames per second of a 640x480 video file, decode included, with two threads."""
    import tempfile
    from pathlib import Path

    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    source = draw_video("everything", 1)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "video.avi")
        writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"MJPG"), FPS, (640, 480))
        for _, frame in zip(range(frames), source, strict=False):
            picture = cv2.resize(frame.permute(1, 2, 0).numpy()[..., ::-1].copy(), (480, 480))
            writer.write(cv2.copyMakeBorder(picture, 0, 0, 80, 80, cv2.BORDER_REPLICATE))
        writer.release()
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            mt.spot_expressions(file)
            times.append(time.perf_counter() - begin)
        decode = time.perf_counter()
        for _ in clip_frames(file):
            pass
        decode = time.perf_counter() - decode
    rate = frames / min(times)
    print()
    print("| 640x480 | frames a second | times real time at 30 fps | of it decoding |")
    print("|---|---|---|---|")
    print(f"| {frames} frames, two threads | {rate:.0f} | {rate / FPS:.1f} | {decode / min(times):.0%} |")


def memory(minutes: tuple[float, ...]) -> None:
    """Peak memory of the process after videos of different length."""
    import resource

    print()
    print("| minutes of 640x480 at 30 fps | peak memory of the process, MiB |")
    print("|---|---|")
    clip = [frame for _, frame in zip(range(60 if max(minutes) < 1 else 300), draw_video("plain", 1), strict=False)]
    clip = [torch.nn.functional.interpolate(frame[None].float(), (480, 640))[0].byte() for frame in clip]

    def frames(count: int) -> Iterator[Tensor]:
        for i in range(count):
            yield clip[i % len(clip)]

    for length in minutes:
        mt.spot_expressions(frames(round(length * 60 * FPS)), box=(80, 0, 480, 480))
        print(f"| {length} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} |")


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description="The expressions of long videos.")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that all of it runs")
    parser.add_argument("--videos", type=int, default=4, help="of each condition")
    parser.add_argument("--first", type=int, default=1000, help="number of the first video")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", choices=("all", "scores", "speed", "memory"), default="all")
    args = parser.parse_args()
    videos, seconds = (1, (8.0, 9.0)) if args.quick else (args.videos, (60.0, 120.0))
    if args.part in ("all", "scores"):
        numbers = range(args.first, args.first + videos)
        jobs = [(c, n, True, seconds) for c in CONDITIONS for n in numbers]
        jobs += [(c, n, False, seconds) for c in CONDITIONS for n in numbers]
        if args.quick:
            jobs = [job for job in jobs if job[0] == "everything"]
            done = [one_video(job) for job in jobs]
        else:
            with ProcessPoolExecutor(args.workers) as pool:
                done = list(pool.map(one_video, jobs))
        report(done)
    if args.part in ("all", "speed"):
        speed(90 if args.quick else 1800)
    if args.part in ("all", "memory"):
        memory((0.1,) if args.quick else (1, 10))


if __name__ == "__main__":
    main()
