"""AUPriorLoss in three host models, one for each way of use, on random clips.

    python examples/au_prior.py

What changes in the training loop is marked with `# <-`; everything else is the host's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mertools as mt

# The labels of this synthetic dataset, in its own order: rows of the prior are taken by name.
CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


class FrameLSTM(nn.Module):
    """A frame CNN and an LSTM, as in many DFER baselines."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.fc = nn.Linear(32, len(CLASSES))

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips ``(b, t, 3, h, w)``."""
        frames = self.cnn(clips.flatten(0, 1)).view(*clips.shape[:2], -1)
        logits: Tensor = self.fc(self.lstm(frames)[0][:, -1])
        return logits


class ClipTransformer(nn.Module):
    """A transformer whose classifier sits in a head module: ``head.fc``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 8 * 8, 32)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(32), "fc": nn.Linear(32, len(CLASSES))})

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips ``(b, t, 3, h, w)``."""
        frames = nn.functional.adaptive_avg_pool2d(clips.flatten(0, 1), 8).view(*clips.shape[:2], -1)
        logits: Tensor = self.head["fc"](self.head["norm"](self.encoder(self.embed(frames)).mean(1)))
        return logits


class WithFeatures(nn.Module):
    """A 3-D CNN that returns its logits and its features."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv3d(3, 32, 3, stride=(1, 2, 2)), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, len(CLASSES)))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of clips ``(b, t, 3, h, w)``."""
        features = self.cnn(clips.transpose(1, 2))
        return self.classifier(features), features


def batches(steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Random clips, classes and AU labels (of OpenFace, say)."""
    return [
        (torch.rand(4, 8, 3, 32, 32), torch.randint(0, len(CLASSES), (4,)), torch.randint(0, 2, (4, 18)).float())
        for _ in range(steps)
    ]


def no_labels_no_head(steps: int = 3) -> float:
    """1. The loss alone."""
    model = FrameLSTM()
    criterion = mt.AUPriorLoss(mt.au_prior(CLASSES))  # <- was nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW(model.parameters())
    for clips, target, _ in batches(steps):
        loss = criterion(model(clips), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss)


def head_without_labels(steps: int = 3) -> float:
    """2. An AU head that learns the prior's rows."""
    model = mt.attach_au_head(ClipTransformer(), "head.fc")  # <- was ClipTransformer()
    criterion = mt.AUPriorLoss(mt.au_prior(CLASSES))  # <- was nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW(model.parameters())
    for clips, target, _ in batches(steps):
        logits, au_logits = model(clips)  # <- was logits = model(clips)
        loss = criterion(logits, target, au_logits)  # <- was criterion(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model = mt.detach_au_head(model)  # <- for inference
    return float(loss)


def head_with_labels(steps: int = 3) -> float:
    """3. An AU head that learns AU labels: the loss of the paper."""
    model = mt.attach_au_head(WithFeatures(), "classifier")  # <- was WithFeatures()
    weight = mt.au_pos_weight("DFEW", "minor", classes=CLASSES)
    criterion = mt.AUPriorLoss(mt.au_prior(CLASSES), pos_weight=weight)  # <- was nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW(model.parameters())
    for clips, target, au_target in batches(steps):
        (logits, _), au_logits = model(clips)  # <- was logits, _ = model(clips)
        loss = criterion(logits, target, au_logits, au_target)  # <- was criterion(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model = mt.detach_au_head(model)  # <- for inference
    return float(loss)


if __name__ == "__main__":
    torch.manual_seed(0)
    for use in (no_labels_no_head, head_without_labels, head_with_labels):
        print(f"{use.__doc__}  loss after three steps: {use():.3f}")
