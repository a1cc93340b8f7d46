"""How much of a result is test-set leakage? The same runs, scored at the last, the inner and the best test epoch.

    python -m benchmarks.leakage [--quick] [--processes 2] [--out docs/leakage.json]

Method. Eight synthetic subjects (``mt.synthetic_dataset``), nine clips each, three expressions; leave one subject
out. The movements are faint (0.3 to 0.6 % of the frame's side), so that an honest score lies where those of real sets
do. For every fold an inner split sets about a fifth of the training subjects aside; the network is trained on the
rest, and after each epoch it predicts the subjects set aside and the held-out subject. The three scores come from
these same predictions:

    last     the held-out predictions of the last epoch
    inner    of the epoch with the best UF1 on the subjects set aside (the last of several that are as good)
    test     of the epoch with the most correct held-out predictions, for each subject: leakage

Then once more with labels that mean nothing: of each person's three clips of an expression, one gets each label, at
random. Nothing that is seen in a clip tells its label, so any score above chance, a third, is no knowledge. UF1 and UAR
are pooled over all folds; five seeds make other people, other initial weights and another shuffle.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import mertools as mt
from benchmarks.small_runs import in_parallel, make_people, settings, spread, train
from examples import train_mer
from mertools._files import atomic_write

SLOW = True  # a study of several minutes
RULES = ("last", "inner", "test")


class Task(NamedTuple):
    """One run over all folds."""

    seed: int
    noise: bool
    subjects: int
    epochs: int


def run(task: Task) -> dict[str, tuple[float, float]]:
    """UF1 and UAR of each rule."""
    with tempfile.TemporaryDirectory() as folder:
        people = make_people(folder, subjects=task.subjects, amplitude=0.45, seed=task.seed)
        args = settings(people, task.seed, task.epochs)
        data = train_mer.Clips(args)
        if task.noise:
            shuffle_labels(data, task.seed)
        books = {rule: mt.ScoreBook(data.clips.classes, selection=rule) for rule in RULES}
        for name, (rest, held_out) in train_mer.named_folds(args, data.clips).items():
            inner = mt.inner_split(rest, data.clips.subjects, data.clips.targets, seed=task.seed)
            seen: list[dict[str, mt.ScoreBook]] = []

            def look(
                epoch: int, model: nn.Module, name: str = name, held_out: list[int] = held_out,
                inner: mt.Fold = inner, seen: list[dict[str, mt.ScoreBook]] = seen,
            ) -> None:  # fmt: skip
                here = mt.Processes(0, 1, torch.device("cpu"))
                sides = {"inner": inner.test, "test": held_out}
                seen.append({k: train_mer.predict(args, model, data, v, name, here) for k, v in sides.items()})

            train(args, data, name, mt.Fold(inner.train, held_out), look)
            last = len(seen) - 1
            chosen = {
                "last": last,
                "inner": max(range(last + 1), key=lambda epoch: (seen[epoch]["inner"].uf1(), epoch)),
                "test": max(range(last + 1), key=lambda epoch: seen[epoch]["test"].war()),
            }
            for rule, epoch in chosen.items():
                for row in seen[epoch]["test"]:
                    books[rule].add(
                        [row.predicted], [row.target], clips=[row.clip], subjects=[row.subject], fold=row.fold
                    )
        return {rule: (book.uf1(), book.uar()) for rule, book in books.items()}


def shuffle_labels(data: train_mer.Clips, seed: int) -> None:
    """Labels that mean nothing: the three clips of each expression and person get one label of each kind, at random."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(data.clips.targets)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, (subject, target) in enumerate(zip(data.clips.subjects, data.clips.targets, strict=True)):
        groups.setdefault((subject, target), []).append(i)
    for own in groups.values():
        targets[own] = torch.randperm(len(own), generator=generator)
    # One list, shared by the clips and both datasets.
    data.clips.targets[:] = targets.tolist()
    data.targets = targets


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What choosing the epoch on the test subject adds.")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs, to see that it runs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    seeds, subjects, epochs = (1, 3, 1) if args.quick else (5, 8, 25)
    tasks = [Task(seed, noise, subjects, epochs) for noise in (False, True) for seed in range(seeds)]
    results = in_parallel(run, tasks, 1 if args.quick else args.processes)
    figures = []
    for noise in (False, True):
        found = [result for task, result in zip(tasks, results, strict=True) if task.noise == noise]
        for rule in RULES:
            uf1, uar = (100 * torch.tensor([result[rule] for result in found])).T.tolist()
            figures.append({"labels": "shuffled" if noise else "true", "epoch": rule, "uf1": uf1, "uar": uar})
    print(f"{seeds} seeds, {subjects} people left out in turn, {epochs} epochs; mean ± deviation over seeds, in %\n")
    print(table(figures))
    if args.out:
        atomic_write(args.out, (json.dumps(figures, indent=2) + "\n").encode())


def table(figures: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    words = {"last": "last", "inner": "chosen on training subjects", "test": "**best on the held-out subject**"}
    lines = ["| labels | epoch | UF1 | UAR | UF1 above the last epoch's |", "|---|---|---|---|---|"]
    last = {row["labels"]: np.array(row["uf1"]) for row in figures if row["epoch"] == "last"}
    for row in figures:
        cells = [spread(row["uf1"]), spread(row["uar"]), "–"]
        if row["epoch"] != "last":
            gain = row["uf1"] - last[row["labels"]]
            cells[2] = f"{gain.mean():+.1f} ({gain.min():+.1f} to {gain.max():+.1f})"
        lines.append(f"| {row['labels']} | {words[row['epoch']]} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
