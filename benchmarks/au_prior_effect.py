"""Does the AU prior help? A synthetic, imbalanced problem whose truth is another prior than the loss knows.

    python -m benchmarks.au_prior_effect [--quick] [--shift 0.15]

Method. For every seed a *true* prior is drawn: the shipped table plus Gaussian noise of ``shift`` (0.15; its
classes differ by 0.10 on average), clipped to [0.02, 0.98]. A clip of class y has action units drawn from row y of
the true prior; its features are a random mixture of the units plus noise, so AUs are evidence, but noisy, and
nothing else separates the classes. AU labels for the third way of use have 10 % of their entries flipped. Training
set: 7 classes with 400 to 8 clips; test set: 300 clips a class. The host is a two-layer network; every way of use
gets the same initial weights, batches and number of steps, no tuning, and the last epoch is scored. WAR here is
over a test set with the training frequencies (weighted recalls), UAR the mean recall, minority the mean recall of
the two rarest classes.
"""

from __future__ import annotations

import argparse
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mertools as mt

SLOW = True
COUNTS = torch.tensor([400, 200, 240, 160, 100, 15, 8])  # happy sad neutral angry surprise disgust fear
TEST = 300
D = 24


def clips(true: Tensor, mixing: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features ``(n, d)`` and AU labels ``(n, a)`` of clips of these classes."""
    units = torch.bernoulli(true[target], generator=generator)
    features = units @ mixing + torch.randn(len(target), D, generator=generator)
    flipped = torch.rand(units.shape, generator=generator) < 0.1
    return features, torch.where(flipped, 1 - units, units)


class Host(nn.Module):
    """A two-layer network with a classifier that an AU head can share the input of."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, 64), nn.ReLU())
        self.fc = nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.fc(self.body(x))
        return logits


def run(seed: int, shift: float, epochs: int) -> dict[str, tuple[float, float, float]]:
    """WAR, UAR and minority recall of every way of use, for one seed."""
    g = torch.Generator().manual_seed(seed)
    prior = mt.au_prior()
    true = (prior + shift * torch.randn(prior.shape, generator=g)).clamp(0.02, 0.98)
    mixing = torch.randn(18, D, generator=g) / 2
    target = torch.repeat_interleave(torch.arange(7), COUNTS)
    test_target = torch.arange(7).repeat_interleave(TEST)
    x, au = clips(true, mixing, target, g)
    test_x, _ = clips(true, mixing, test_target, g)
    torch.manual_seed(seed)
    start = Host()
    weight = mt.class_weights(COUNTS)
    ways: dict[str, tuple[nn.Module, int]] = {
        "cross entropy": (mt.AUPriorLoss(au_ratio=0.0), 0),
        "1. loss alone": (mt.AUPriorLoss(), 0),
        "2. AU head": (mt.AUPriorLoss(), 1),
        "3. AU head and labels": (mt.AUPriorLoss(), 2),
        "cross entropy, class weights": (mt.AUPriorLoss(au_ratio=0.0, class_weight=weight), 0),
        "1. loss alone, class weights": (mt.AUPriorLoss(class_weight=weight), 0),
        "3. AU head and labels, class weights": (mt.AUPriorLoss(class_weight=weight), 2),
        "3. with the prior estimated from the labels": (
            mt.AUPriorLoss(mt.estimate_au_prior(au, target, num_classes=7)), 2
        ),
    }  # fmt: skip
    return {name: train(start, *way, x, au, target, test_x, seed, epochs) for name, way in ways.items()}


def train(
    start: nn.Module,
    criterion: nn.Module,
    use: int,
    x: Tensor,
    au: Tensor,
    target: Tensor,
    test_x: Tensor,
    seed: int,
    epochs: int,
) -> tuple[float, float, float]:
    """Train a copy of ``start`` and score it."""
    host = copy.deepcopy(start)
    torch.manual_seed(seed)
    model = mt.attach_au_head(host, "fc") if use else host
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    g = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=g).split(64):
            if use:
                logits, au_logits = model(x[part])
                loss = criterion(logits, target[part], au_logits, *([au[part]] if use == 2 else []))
            else:
                loss = criterion(model(x[part]), target[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        predicted = host(test_x).argmax(1).view(7, TEST)
    recall = F.one_hot(predicted, 7).float().mean(1).diagonal()
    share = COUNTS / COUNTS.sum()
    return float((recall * share).sum()), float(recall.mean()), float(recall[COUNTS.argsort()[:2]].mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Effect of the AU prior on a synthetic problem.")
    parser.add_argument("--quick", action="store_true", help="two seeds and few epochs, to see that it runs")
    parser.add_argument("--shift", type=float, default=0.15, help="how far the true prior is from the loss's")
    args = parser.parse_args()
    torch.set_num_threads(1 if args.quick else 2)
    seeds, epochs = (2, 2) if args.quick else (10, 40)
    results = [run(seed, args.shift, epochs) for seed in range(seeds)]
    base = torch.tensor([result["cross entropy"] for result in results])
    print(f"{seeds} seeds, {epochs} epochs, true prior shifted by {args.shift}; mean ± deviation, in %")
    print("\n| way of use | WAR | UAR | minority recall | UAR − cross entropy's, per seed |\n|---|---|---|---|---|")
    for name in results[0]:
        scores = torch.tensor([result[name] for result in results])
        cells = [f"{100 * c.mean():.1f} ± {100 * c.std():.1f}" for c in scores.T]
        gain = 100 * (scores - base)[:, 1]
        print(f"| {name} | {' | '.join(cells)} | {gain.mean():+.1f} ± {gain.std():.1f} |")


if __name__ == "__main__":
    main()
