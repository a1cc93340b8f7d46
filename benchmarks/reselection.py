"""Do key frames that are re-selected make a better model? The same recipe on true, shifted and corrected annotations.

    python -m benchmarks.reselection [--quick] [--processes 2] [--out docs/reselection.json]

Method. Eight synthetic subjects, nine clips each, three expressions; leave one subject out; the last epoch is scored,
pooled over all folds. The annotation of every key frame is moved by a whole number of frames drawn evenly from -4 to
4, which is what people who annotate disagree by (onset < apex < offset is kept). Then

    true          trains and predicts with the true key frames
    shifted       with the moved ones, as they are
    training      re-selects in training and predicts with the moved ones, as GAMDSS does
    always        re-selects in training and in prediction; no label is looked at

Re-selection is ``FrameSelector(refine=True)``, the robust search near the annotation, or with its name behind it the
published windowed search. Three seeds: other people, other shifts, other initial weights; chance is a third.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mertools as mt
from benchmarks.small_runs import in_parallel, make_people, settings, spread, train
from examples import train_mer
from mertools._files import atomic_write

SLOW = True  # a study of several minutes
SHIFT = 4
VARIANTS = {
    "true": ("never", "refine", 0),
    "shifted": ("never", "refine", SHIFT),
    "training": ("training", "refine", SHIFT),
    "always": ("always", "refine", SHIFT),
    "training, published": ("training", "full", SHIFT),
    "always, published": ("always", "full", SHIFT),
}


class Task(NamedTuple):
    """One run over all folds."""

    seed: int
    variant: str
    subjects: int
    epochs: int


def run(task: Task) -> tuple[float, float, float]:
    """UF1, UAR, and how far the key frames that are predicted with are from the truth, in frames."""
    reselect, selector, shift = VARIANTS[task.variant]
    with tempfile.TemporaryDirectory() as folder:
        people = make_people(folder, subjects=task.subjects, seed=task.seed)
        args = settings(people, task.seed, task.epochs, "--reselect", reselect, "--selector", selector)
        truth = train_mer.Clips(args)
        if shift:
            args.repair = [lambda clip: moved(clip, task.seed, shift)]
        data = train_mer.Clips(args)
        book = mt.ScoreBook(data.clips.classes, selection=train_mer.selection(args))
        for name, fold in train_mer.named_folds(args, data.clips).items():
            book.merge(train(args, data, name, fold))
        n = len(data.plain)
        true = np.array([(c.onset, c.apex, c.offset) for c in truth.clips.clips])
        used = np.array([data.plain.key_positions(i) for i in range(n)]) + 1
        return book.uf1(), book.uar(), float(np.abs(used - true).mean())


def moved(clip: mt.ClipAnnotation, seed: int, shift: int) -> mt.ClipAnnotation:
    """The annotation with each key frame off by up to ``shift`` frames, still in order and within the clip."""
    draw = np.random.default_rng([seed, *clip.name.encode()])
    true = np.array([clip.onset, clip.apex, clip.offset])
    while True:
        onset, apex, offset = (true + draw.integers(-shift, shift + 1, 3)).tolist()
        if 1 <= onset < apex < offset <= 48:
            return replace(clip, onset=onset, apex=apex, offset=offset)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What re-selected key frames are worth to a model.")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs, to see that it runs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    seeds, subjects, epochs = (1, 2, 1) if args.quick else (3, 8, 30)
    tasks = [Task(seed, variant, subjects, epochs) for seed in range(seeds) for variant in VARIANTS]
    results = in_parallel(run, tasks, 1 if args.quick else args.processes)
    figures = []
    for variant in VARIANTS:
        found = [result for task, result in zip(tasks, results, strict=True) if task.variant == variant]
        uf1, uar, error = np.array(found).T
        figures.append({
            "key_frames": variant, "uf1": (100 * uf1).tolist(), "uar": (100 * uar).tolist(), "error": error.tolist(),
        })  # fmt: skip
    print(f"{seeds} seeds, {subjects} people left out in turn, {epochs} epochs; mean ± deviation over seeds, in %\n")
    print(table(figures))
    if args.out:
        atomic_write(args.out, (json.dumps(figures, indent=2) + "\n").encode())


def table(figures: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| key frames | UF1 | UF1 per seed | UAR | error of the key frames predicted with |",
        "|---|---|---|---|---|",
    ]
    for row in figures:
        each = ", ".join(f"{score:.1f}" for score in row["uf1"])
        lines.append(
            f"| {row['key_frames']} | {spread(row['uf1'])} | {each} | {spread(row['uar'])} "
            f"| {np.mean(row['error']):.2f} frames |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
