"""A small synthetic dataset in the layout of CASME II, to try things on: folders of frames and a coding table.

python examples/made_dataset.py FOLDER [--subjects 4] [--off 4]

Every subject is a drawn face with its own colours; expressions are smiles (happiness), raised brows (surprise) and
lowered brows (disgust), with sensor noise. The table's key frames are the true ones, moved by up to --off frames either
way, as an annotator's are. truth.csv beside it has the true ones.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from pathlib import Path

import cv2
import torch

import mertools as mt

HEADER = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]
KINDS = (("happiness", "smile", "6+12"), ("surprise", "brow-raise", "1+2"), ("disgust", "brow-lower", "4"))
FIRST = 46  # the number of a clip's first image: file numbers are not positions


def make(folder: Path, *, subjects: int = 4, off: int = 4, clips_each: int = 3, size: int = 64) -> Path:
    """Write the dataset and return the path of its table.

    Args:
        folder: where to; made if it is not there.
        subjects: how many faces.
        off: annotated key frames lie up to this many frames from the true ones.
        clips_each: clips of each subject, one per expression in turn.
        size: side of the images in pixels.
    """
    draw = random.Random(0)
    annotated: list[list[object]] = [[*HEADER]]
    true: list[list[object]] = [[*HEADER]]
    for subject in range(1, subjects + 1):
        tint = torch.tensor([draw.uniform(0.8, 1.1) for _ in range(3)]).view(3, 1, 1)
        portrait = (mt.drawn_portrait() * tint).clamp(0, 255).byte()
        for k in range(clips_each):
            label, movement, units = KINDS[k % len(KINDS)]
            onset = draw.randint(12, 18)
            apex = onset + draw.randint(9, 13)
            offset = apex + draw.randint(14, 20)
            clip = mt.synthetic_clip(
                portrait, num_frames=64, onset=onset, apex=apex, offset=offset, movement=movement, size=size, noise=1.5,
                seed=100 * subject + k,
            )  # fmt: skip
            name = f"EP{subject:02d}_{k + 1:02d}"
            images = folder / "frames" / f"sub{subject:02d}" / name
            images.mkdir(parents=True, exist_ok=True)
            for i, frame in enumerate(clip.frames):
                cv2.imwrite(str(images / f"img{FIRST + i}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1].copy())
            keys = [clip.onset, clip.apex, clip.offset]
            moved = [key + draw.randint(-off, off) for key in keys]
            for rows, row_keys in ((true, keys), (annotated, moved)):
                rows.append([subject, name, *(FIRST + key for key in row_keys), units, label])
    for path, rows in ((folder / "codes.csv", annotated), (folder / "truth.csv", true)):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder / "codes.csv"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Make a small synthetic dataset in the layout of CASME II.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--off", type=int, default=4, help="frames that annotations are off, at most")
    args = parser.parse_args()
    table = make(args.folder, subjects=args.subjects, off=args.off)
    clips = len(table.read_text().splitlines()) - 1
    print(f"{clips} clips of {args.subjects} subjects: {table}, frames below {args.folder / 'frames'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
