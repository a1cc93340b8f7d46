"""Does the audit find which key frame is uncertain, and does the corrected table come closer to the truth?

    python -m benchmarks.audit_recovery [--quick] [--keep DIR] [--workers N]

Method: clips of a drawn face with known onset, apex and offset (``synthetic_clip``, sensor noise, light flicker, drift,
JPEG on disk), in the layouts of CASME II and SAMM, 60 each. Annotations are the truth moved by known random amounts:
onsets by at most 3 frames, apexes by at most 2, offsets by up to 10. Then ``mertools audit`` as users run it. Errors
are mean absolute differences to the truth, before (the perturbed table) and after (the corrected table).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

import mertools as mt

SLOW = True
CASME2 = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
SAMM = [
    "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro",
    "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
]  # fmt: skip
LABELS = ("happiness", "surprise", "disgust")
MOVEMENTS = ("smile", "brow-raise", "brow-lower")


def make_dataset(folder: Path, dataset: str, count: int, size: int = 112) -> np.ndarray:
    """Write frames and a perturbed table; return the true file numbers ``(count, 3)``."""
    random = np.random.default_rng({"casme2": 1, "samm": 2}[dataset])
    rows: list[list[object]] = [CASME2] if dataset == "casme2" else [*[["-"] * 12] * 13, SAMM]
    truth = []
    for i in range(count):
        onset = int(random.integers(16, 24))
        apex = onset + int(random.integers(10, 22))
        offset = apex + int(random.integers(16, 32))
        t = offset + int(random.integers(14, 24))
        made = mt.synthetic_clip(
            num_frames=t, onset=onset, apex=apex, offset=offset, hold=int(random.integers(0, 5)), size=size,
            movement=MOVEMENTS[i % 3], amplitude=float(random.uniform(1.2, 2.4)), noise=2.0, flicker=0.004,
            drift=float(random.uniform(0, 1.5)), seed=i,
        )  # fmt: skip
        first = int(random.integers(1, 400))
        keys = np.array([onset, (apex + made.apex_end) // 2, offset]) + first
        wrong = [int(random.integers(-3, 4)), int(random.integers(-2, 3)), int(random.integers(-10, 11))]
        told = keys + wrong
        subject, label = f"{i % 12 + 1:02d}", LABELS[i % 3]
        if dataset == "casme2":
            clip, name = f"EP{i:02d}_01f", f"sub{subject}/EP{i:02d}_01f/reg_img{{}}.jpg"
            rows.append([subject, clip, *told, "12", label])
        else:
            clip, name = f"0{subject}_{i}_1", f"0{subject}/0{subject}_{i}_1/0{subject}_{{:05d}}.jpg"
            rows.append([f"0{subject}", clip, 1, *told, told[2] - told[0] + 1, "Micro", "12", label.title(), 1, ""])
        (folder / name).parent.mkdir(parents=True)
        for k, image in enumerate(made.frames.permute(0, 2, 3, 1).numpy()[..., ::-1]):
            cv2.imwrite(str(folder / name.format(first + k)), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        truth.append(keys)
    with (folder / "codes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return np.array(truth)


def keys_of(table: Path, dataset: str) -> np.ndarray:
    """File numbers of the key frames of a table, ``(count, 3)``."""
    return np.array([(clip.onset, clip.apex, clip.offset) for clip in mt.read_annotations(table, dataset)])


def measure(folder: Path, dataset: str, count: int, workers: int) -> None:
    """Make one dataset, audit it, print what came out."""
    folder.mkdir(parents=True)
    truth = make_dataset(folder, dataset, count)
    done = mt.audit_table(folder / "codes.csv", dataset, folder, folder / "corrected.csv", workers=workers)
    before = np.abs(keys_of(folder / "codes.csv", dataset) - truth)
    after = np.abs(keys_of(folder / "corrected.csv", dataset) - truth)
    print(f"\n{dataset}: {len(done.audit.searched)} clips, report {done.report}\n")
    print("| key frame | error of the table | after correction | ratio | mean shift found | uncertain |")
    print("|---|---|---|---|---|---|")
    shares = done.audit.uncertain()
    shifts = done.audit.shifts()
    for i, key in enumerate(("onset", "apex", "offset")):
        ratio = after[:, i].mean() / before[:, i].mean()
        found = f"{np.abs(shifts[key]).mean():.2f} | {100 * shares[key].mean():.0f} %"
        print(f"| {key} | {before[:, i].mean():.2f} | {after[:, i].mean():.2f} | {ratio:.2f} | {found} |")
    print(f"| mean | {before.mean():.2f} | {after.mean():.2f} | {after.mean() / before.mean():.2f} | | |\n")
    for unit in ("phase", "frames"):
        for test in done.audit.tests(unit=unit):
            if test.name.startswith(("Wilcoxon offset", "spread offset")):
                p = f", p {test.p_corrected:.2g}" if np.isfinite(test.p_corrected) else ""
                print(f"- {test.name} ({unit}): {test.effect_name} {test.effect:.2f}{p}")


def main() -> None:
    """Both layouts."""
    parser = argparse.ArgumentParser(description="Recovery of perturbed annotations.")
    parser.add_argument("--quick", action="store_true", help="three clips each, to see that it runs")
    parser.add_argument("--keep", type=Path, help="keep frames, tables and reports in this folder")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for dataset in ("casme2", "samm"):
            measure((args.keep or Path(temporary)) / dataset, dataset, 3 if args.quick else 60, args.workers)


if __name__ == "__main__":
    main()
