"""What AUPriorLoss costs, side by side with what it replaces and with the published way of computing it.

    python -m benchmarks.au_loss [--quick]

Method: forward and backward to the logits, float32, two threads. One process; the candidates run in turn (A B C A B C
...), each turn a block of repetitions after one warm-up turn; the figure is the median block, the ratios are medians of
the ratios within a turn, so that a machine that slows down slows all of them. Checks of values are on, as for users.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mertools as mt
from benchmarks import plain
from benchmarks.measure import in_turn, ratio

E, A = 7, 18


def candidates(b: int, device: str = "cpu") -> dict[str, Callable[[], None]]:
    """One step of each candidate on the same batch."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(b, E, generator=generator).to(device).requires_grad_()
    au_logits = torch.randn(b, A, generator=generator).to(device).requires_grad_()
    target = torch.randint(0, E, (b,), generator=generator).to(device)
    au_target = torch.randint(0, 2, (b, A), generator=generator).float().to(device)
    weight, rows = mt.au_pos_weight().to(device), mt.au_prior().tolist()
    ce, bce = nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(pos_weight=weight)
    ours = mt.AUPriorLoss(pos_weight=weight).to(device)

    def published() -> Tensor:
        return plain.au_prior_loss(logits, target, au_logits, au_target, rows, weight)

    torch.testing.assert_close(ours(logits, target, au_logits, au_target), published())
    return {
        "CE + BCE": lambda: (ce(logits, target) + bce(au_logits, au_target)).backward(),
        "AUPriorLoss, AU labels": lambda: ours(logits, target, au_logits, au_target).backward(),
        "AUPriorLoss, AU head": lambda: ours(logits, target, au_logits).backward(),
        "AUPriorLoss alone": lambda: ours(logits, target).backward(),
        "published way": lambda: published().backward(),
    }


def measure(b: int, turns: int, repetitions: int, device: str = "cpu") -> None:
    """Print one table."""

    def block(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repetitions):
                step()

        return run

    blocks = in_turn({name: block(step) for name, step in candidates(b, device).items()}, turns, device=device)
    times = {name: [ms / repetitions * 1e3 for ms in values] for name, values in blocks.items()}
    base, slow = times["CE + BCE"], times["published way"]
    print(f"\n{device}, batch {b}: {turns} turns of {repetitions} steps\n")
    print("| forward + backward | median µs | min–max | ÷ (CE + BCE) | published way ÷ it |")
    print("|---|---|---|---|---|")
    for name, values in times.items():
        cost, gain = ratio(values, base), ratio(slow, values)
        spread = f"{min(values):.0f}–{max(values):.0f}"
        print(f"| {name} | {statistics.median(values):.0f} | {spread} | {cost:.2f} | {gain:.1f} |")


def main() -> None:
    """Run both batch sizes."""
    parser = argparse.ArgumentParser(description="Cost of AUPriorLoss.")
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1 if quick else 2)
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {E} classes, {A} action units")
    measure(32, *((2, 5) if quick else (15, 200)))
    measure(4096, *((2, 1) if quick else (9, 5)))
    if torch.cuda.is_available():
        measure(64, *((2, 5) if quick else (15, 200)), device="cuda")
    else:
        print("\nno GPU: its part is left out")


if __name__ == "__main__":
    main()
