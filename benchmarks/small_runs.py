"""Small training runs on synthetic subjects, for the studies of how results come about: what they have in common.

The recipe is ``examples/train_mer.py`` itself, narrowed: TSFmicro at 48x48 with widths 8 to 32, onset and apex only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import mertools as mt
from examples import train_mer

Task, Result = TypeVar("Task"), TypeVar("Result")


def settings(people: mt.SyntheticDataset, seed: int, epochs: int, *more: str) -> argparse.Namespace:
    """The recipe's arguments for these people."""
    return train_mer.arguments([
        "--table", str(people.table), "--frames", str(people.frames), "--protocol", "megc2019", "--out", os.devnull,
        "--size", "48", "--padding", "3", "--model", "tsfmicro", "--au", "none", "--dims", "8", "16", "24", "32",
        "--hidden", "48", "--epochs", str(epochs), "--batch-size", "16", "--lr", "3e-3", "--weight-decay", "0.05",
        "--schedule", "cosine", "--ema", "0.9", "--device", "cpu", "--seed", str(seed), *more,
    ])  # fmt: skip


def train(
    args: argparse.Namespace,
    data: train_mer.Clips,
    name: str,
    fold: mt.Fold,
    after_epoch: Callable[[int, torch.nn.Module], None] | None = None,
) -> mt.ScoreBook:
    """Train a fold in a folder that is thrown away, and predict its held-out clips with the last epoch."""
    args.checkpoint_every = args.epochs + 1
    with tempfile.TemporaryDirectory() as folder:
        here = mt.Processes(0, 1, torch.device("cpu"))
        return train_mer.train_fold(args, name, fold, data, mt.FoldFolder(folder), here, after_epoch)


def in_parallel(work: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> list[Result]:
    """``work`` on every task, in order of the tasks, one thread for each process."""
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    pool = get_context("spawn").Pool(processes, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return pool.map(work, list(tasks), chunksize=1)
    finally:
        pool.close()
        pool.join()


def spread(values: list[float]) -> str:
    """Mean and deviation over seeds."""
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=min(1, len(values) - 1)):.1f}"


def make_people(root: str | Path, **more: Any) -> mt.SyntheticDataset:
    """The people of a study; the same seed makes the same."""
    return mt.synthetic_dataset(Path(root) / "people", size=48, **more)
