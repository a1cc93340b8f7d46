"""What AUPriorLoss costs, side by side with what it replaces and with the published way of computing it.

    python -m benchmarks.au_loss [--quick]

Method: forward and backward to the logits, float32, two threads. One process; the candidates run in turn (A B C A B C
...), each turn a block of repetitions after one warm-up turn; the figure is the median block, the ratios are medians of
the ratios within a turn, so that a machine that slows down slows all of them. Checks of values are on, as for users.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mertools as mt

E, A = 7, 18


def published(logits: Tensor, target: Tensor, au_logits: Tensor, au_target: Tensor, pos_weight: Tensor) -> Tensor:
    """The plain way: the weights of each clip assembled in a Python loop, then turned into a tensor."""
    table = mt.au_prior().tolist()
    weights = []
    for y in target.tolist():
        row = []
        for a in range(A):
            row.append(5.0 * table[y][a])
        weights.append(row)
    weight = torch.tensor(weights)
    au = F.binary_cross_entropy_with_logits(au_logits, au_target, weight=weight, pos_weight=pos_weight)
    return 0.75 * F.cross_entropy(logits, target) + 0.25 * au


def candidates(b: int) -> dict[str, Callable[[], None]]:
    """One step of each candidate on the same batch."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(b, E, generator=generator, requires_grad=True)
    au_logits = torch.randn(b, A, generator=generator, requires_grad=True)
    target = torch.randint(0, E, (b,), generator=generator)
    au_target = torch.randint(0, 2, (b, A), generator=generator).float()
    weight = mt.au_pos_weight()
    ce, bce = nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(pos_weight=weight)
    ours = mt.AUPriorLoss(pos_weight=weight)
    torch.testing.assert_close(
        ours(logits, target, au_logits, au_target), published(logits, target, au_logits, au_target, weight)
    )
    return {
        "CE + BCE": lambda: (ce(logits, target) + bce(au_logits, au_target)).backward(),
        "AUPriorLoss, AU labels": lambda: ours(logits, target, au_logits, au_target).backward(),
        "AUPriorLoss, AU head": lambda: ours(logits, target, au_logits).backward(),
        "AUPriorLoss alone": lambda: ours(logits, target).backward(),
        "published way": lambda: published(logits, target, au_logits, au_target, weight).backward(),
    }


def measure(b: int, turns: int, repetitions: int) -> None:
    """Print one table."""
    steps = candidates(b)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(repetitions):
                step()
            if turn:
                times[name].append((time.perf_counter() - start) / repetitions * 1e6)
    base, slow = times["CE + BCE"], times["published way"]
    print(f"\nbatch {b}: {turns} turns of {repetitions} steps\n")
    print("| forward + backward | median µs | min–max | ÷ (CE + BCE) | published way ÷ it |")
    print("|---|---|---|---|---|")
    for name, values in times.items():
        ratio = statistics.median(x / y for x, y in zip(values, base, strict=True))
        gain = statistics.median(y / x for x, y in zip(values, slow, strict=True))
        spread = f"{min(values):.0f}–{max(values):.0f}"
        print(f"| {name} | {statistics.median(values):.0f} | {spread} | {ratio:.2f} | {gain:.1f} |")


def main() -> None:
    """Run both batch sizes."""
    parser = argparse.ArgumentParser(description="Cost of AUPriorLoss.")
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {E} classes, {A} action units")
    measure(32, *((2, 5) if quick else (15, 200)))
    measure(4096, *((2, 1) if quick else (9, 5)))


if __name__ == "__main__":
    main()
