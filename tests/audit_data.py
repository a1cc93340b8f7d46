"""A small dataset in CASME II layout with known key frames, for the tests of the audit."""

import csv

import cv2
import numpy as np

import mertools as mt

HEADER = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]


def make_dataset(root, count, size=48, suffix="png"):
    """Frames and ``codes.csv`` with annotations a few frames off; the true file numbers ``(count, 3)``."""
    rows, truth = [HEADER], []
    random = np.random.default_rng(0)
    for i in range(count):
        onset, apex, offset = 10, 20 + i % 3, 36 + i % 5
        smile = mt.synthetic_clip(
            num_frames=52, onset=onset, apex=apex, offset=offset, hold=2, size=size, noise=1, seed=i
        )
        folder = root / f"sub{i % 4 + 1:02d}" / f"EP{i:02d}"
        folder.mkdir(parents=True)
        for k, image in enumerate(smile.frames.permute(0, 2, 3, 1).numpy()[..., ::-1]):
            cv2.imwrite(str(folder / f"img{k + 100}.{suffix}"), image)
        keys = np.array([onset + 100, apex + 100, offset + 100])
        told = keys + np.array([int(random.integers(-1, 2)), int(random.integers(-1, 2)), int(random.integers(-6, 7))])
        rows.append([i % 4 + 1, f"EP{i:02d}", *told, "L1+R4", ("disgust", "happiness", "others")[i % 3]])
        truth.append(keys)
    with (root / "codes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return np.array(truth)
