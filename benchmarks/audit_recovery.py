"""Does the audit find which key frame is uncertain, correct it, and leave right annotations alone?

    python -m benchmarks.audit_recovery [--quick] [--clips 60] [--keep DIR] [--workers N]

Method: clips with known onset, apex and offset as JPEG on disk, 60 each: in the layouts of CASME II and SAMM a drawn
face (``synthetic_clip``, sensor noise, light flicker, drift), and ``hard``, the conditions of ``hard_clips.py`` in
turn on a photograph and the drawn face, from numbers that no other benchmark uses. Each is audited twice, as users run
``mertools audit``.

A *perturbed* table is the truth moved by known random amounts: onsets by at most 3 frames, apexes by at most 2, offsets
by up to 10. Errors are mean absolute differences to the truth (of the apex: the middle of its plateau), before and
after the correction. A *right* table is the truth, with any frame of the plateau for the apex. Flagged is what the
audit calls uncertain; moved is the mean |shift|, clips without a movement found included as 0. The last table compares
the standard deviations that ``variance_components`` gives with the true ones of the annotations and of the search.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

import mertools as mt
from benchmarks.hard_clips import HARD, hard_clip
from benchmarks.keyframes import draw_face

SLOW = True
CASME2 = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
SAMM = [
    "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro",
    "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
]  # fmt: skip
LABELS = ("happiness", "surprise", "disgust")
MOVEMENTS = ("smile", "brow-raise", "brow-lower")
KEYS = ("onset", "apex", "offset")
HARD_FROM = 40_000  # the first number of the hard clips


def make_dataset(folder: Path, dataset: str, count: int, size: int = 112) -> np.ndarray:
    """Write frames, a perturbed table ``codes.csv`` and a right one, ``right.csv``; the true numbers ``(count, 3)``."""
    random = np.random.default_rng({"casme2": 1, "samm": 2, "hard": 3}[dataset])
    choice = np.random.default_rng(4)
    header: list[list[object]] = [*[["-"] * 12] * 13, SAMM] if dataset == "samm" else [CASME2]
    perturbed, right, truth = list(header), list(header), []
    for i in range(count):
        made = _hard(i) if dataset == "hard" else _drawn(random, i, size)
        first = int(random.integers(1, 400))
        keys = np.array([made.onset, (made.apex + made.apex_end) // 2, made.offset]) + first
        wrong = [int(random.integers(-3, 4)), int(random.integers(-2, 3)), int(random.integers(-10, 11))]
        apex = int(choice.integers(made.apex, made.apex_end + 1)) + first
        frames = made.frames.permute(0, 2, 3, 1).numpy()[..., ::-1]
        told = np.clip(keys + wrong, first, first + len(frames) - 1)
        told[1:] = np.maximum(told[1:], [told[0] + 1, max(told[:2]) + 1])  # in order, which few moves are not
        name = ""
        for rows, numbers in ((perturbed, told), (right, np.array([keys[0], apex, keys[2]]))):
            row, name = _row(dataset, i, [int(number) for number in numbers])
            rows.append(row)
        (folder / name).parent.mkdir(parents=True)
        for k, image in enumerate(frames):
            cv2.imwrite(str(folder / name.format(first + k)), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        truth.append(keys)
    for table, rows in (("codes.csv", perturbed), ("right.csv", right)):
        with (folder / table).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return np.array(truth)


def _drawn(random: np.random.Generator, i: int, size: int) -> mt.SyntheticClip:
    onset = int(random.integers(16, 24))
    apex = onset + int(random.integers(10, 22))
    offset = apex + int(random.integers(16, 32))
    t = offset + int(random.integers(14, 24))
    return mt.synthetic_clip(
        num_frames=t, onset=onset, apex=apex, offset=offset, hold=int(random.integers(0, 5)), size=size,
        movement=MOVEMENTS[i % 3], amplitude=float(random.uniform(1.2, 2.4)), noise=2.0, flicker=0.004,
        drift=float(random.uniform(0, 1.5)), seed=i,
    )  # fmt: skip


def _hard(i: int) -> mt.SyntheticClip:
    number = HARD_FROM + i // len(HARD)
    random = torch.Generator().manual_seed(number)
    face = draw_face(number, lambda low, high: low + (high - low) * float(torch.rand((), generator=random)))
    return hard_clip(HARD[i % len(HARD)], number, face)


def _row(dataset: str, i: int, keys: list[int]) -> tuple[list[object], str]:
    """A clip's row in the table, and the pattern of its frames' names."""
    subject, label = f"{i % 12 + 1:02d}", LABELS[i % 3]
    if dataset == "samm":
        clip, name = f"0{subject}_{i}_1", f"0{subject}/0{subject}_{i}_1/0{subject}_{{:05d}}.jpg"
        return [f"0{subject}", clip, 1, *keys, keys[2] - keys[0] + 1, "Micro", "12", label.title(), 1, ""], name
    clip = f"EP{i:02d}_01f"
    return [subject, clip, *keys, "12", label], f"sub{subject}/{clip}/reg_img{{}}.jpg"


def keys_of(table: Path, dataset: str) -> np.ndarray:
    """File numbers of the key frames of a table, ``(count, 3)``."""
    return np.array([(clip.onset, clip.apex, clip.offset) for clip in mt.read_annotations(table, dataset)])


class Audited(NamedTuple):
    """One table: its audit, the key frames in it, those in the corrected one, the true ones ``(count, 3)``."""

    audit: mt.AnnotationAudit
    told: np.ndarray
    after: np.ndarray
    truth: np.ndarray

    @property
    def estimate(self) -> np.ndarray:
        """What the search itself found."""
        return np.array([entry.certainty["robust"].estimate for entry in self.audit.clips])

    @property
    def inside(self) -> np.ndarray:
        """Which annotations lie inside their intervals, of clips with a movement."""
        return np.array([entry.inside("robust") if not entry.nothing_found("robust") else (False,) * 3
                         for entry in self.audit.clips])  # fmt: skip


def audit(folder: Path, dataset: str, table: str, truth: np.ndarray, workers: int) -> Audited:
    """As users do."""
    layout, out = "samm" if dataset == "samm" else "casme2", folder / f"corrected-{table}"
    done = mt.audit_table(folder / table, layout, folder, out, workers=workers)
    assert not done.audit.skipped
    return Audited(done.audit, keys_of(folder / table, layout), keys_of(out, layout), truth)


def print_perturbed(dataset: str, one: Audited) -> None:
    """How far off before and after."""
    before, after = np.abs(one.told - one.truth), np.abs(one.after - one.truth)
    nothing = len(one.audit.nothing_found())
    print(f"\n{dataset}, perturbed: {len(one.audit.searched)} clips, no movement found in {nothing}\n")
    print("| key frame | error of the table | after correction | ratio | mean shift found | uncertain |")
    print("|---|---|---|---|---|---|")
    shares, shifts = one.audit.uncertain(), one.audit.shifts()
    for i, key in enumerate(KEYS):
        ratio = after[:, i].mean() / before[:, i].mean()
        found = f"{np.nanmean(np.abs(shifts[key])):.2f} | {100 * shares[key].mean():.0f} %"
        print(f"| {key} | {before[:, i].mean():.2f} | {after[:, i].mean():.2f} | {ratio:.2f} | {found} |")
    print(f"| mean | {before.mean():.2f} | {after.mean():.2f} | {after.mean() / before.mean():.2f} | | |\n")
    for unit in ("phase", "frames"):
        for test in one.audit.tests(unit=unit):
            if test.name.startswith(("Wilcoxon offset", "spread offset")):
                p = f", p {test.p_corrected:.2g}" if np.isfinite(test.p_corrected) else ""
                print(f"- {test.name} ({unit}): {test.effect_name} {test.effect:.2f}{p}")


def print_right(dataset: str, one: Audited, *, every: bool) -> None:
    """What happens to right annotations: goals are at most 5 % flagged, and less than 0.5 frames moved."""
    nothing = len(one.audit.nothing_found())
    print(f"\n{dataset}, right: {len(one.audit.searched)} clips, no movement found in {nothing}\n")
    print("| key frame | flagged | outside the interval | mean move | largest move |")
    print("|---|---|---|---|---|")
    flags, moves = one.audit.uncertain(), np.abs(one.after - one.told)
    there = np.array([not entry.nothing_found("robust") for entry in one.audit.clips])
    for i, key in enumerate(KEYS):
        outside = 100 * (~one.inside[there, i]).mean()
        print(
            f"| {key} | {100 * flags[key].mean():.1f} % | {outside:.1f} % | {moves[:, i].mean():.2f} | "
            f"{moves[:, i].max()} |"
        )
    for entry, row in zip(one.audit.clips if every else (), np.transpose([flags[key] for key in KEYS]), strict=every):
        if row.any():
            sure = entry.certainty["robust"]
            print(f"- {entry.clip.name}: {entry.keys} -> {entry.found['robust']}, intervals {sure.intervals}, "
                  f"evidence {sure.evidence:.2f}")  # fmt: skip


def print_inside(parts: Iterable[Audited]) -> None:
    """Whether an annotation inside the interval comes back exactly as it was."""
    inside = moved = 0
    for one in parts:
        inside += int(one.inside.sum())
        moved += int((one.inside & (one.after != one.told)).sum())
    print(f"\nAnnotations inside their interval: {inside}; of these moved by the correction: {moved}")


def print_components(dataset: str, name: str, one: Audited) -> None:
    """Standard deviations in frames: as the audit splits them, and as they are."""
    there = np.array([not entry.nothing_found("robust") for entry in one.audit.clips])
    told, found = (one.told - one.truth)[there], (one.estimate - one.truth)[there]
    for row in one.audit.variance_components():
        i = KEYS.index(row.key)
        print(
            f"| {dataset}, {name} | {row.key} | {row.annotators:.2f} [{row.low:.2f}, {row.high:.2f}] | "
            f"{told[:, i].std(ddof=1):.2f} | {row.method:.2f} | {found[:, i].std(ddof=1):.2f} |"
        )


def main() -> None:
    """Three datasets, two tables each."""
    parser = argparse.ArgumentParser(description="Recovery of perturbed annotations, and what happens to right ones.")
    parser.add_argument("--quick", action="store_true", help="three clips each, to see that it runs")
    parser.add_argument("--clips", type=int, default=60, help="of each dataset")
    parser.add_argument("--datasets", nargs="+", default=["casme2", "samm", "hard"], help="which of the three")
    parser.add_argument("--list", action="store_true", help="name the right annotations that are flagged")
    parser.add_argument("--keep", type=Path, help="keep frames, tables and reports in this folder")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[tuple[str, str], Audited] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for dataset in args.datasets:
            folder = (args.keep or Path(temporary)) / dataset
            folder.mkdir(parents=True)
            truth = make_dataset(folder, dataset, 3 if args.quick else args.clips)
            for name, table in (("perturbed", "codes.csv"), ("right", "right.csv")):
                done[dataset, name] = audit(folder, dataset, table, truth, args.workers)
            print_perturbed(dataset, done[dataset, "perturbed"])
            print_right(dataset, done[dataset, "right"], every=args.list)
    print_inside(done.values())
    print("\n| table | key frame | annotators, found [95 %] | annotators, true | search, by itself | search, true |")
    print("|---|---|---|---|---|---|")
    for (dataset, name), one in done.items():
        print_components(dataset, name, one)


if __name__ == "__main__":
    main()
