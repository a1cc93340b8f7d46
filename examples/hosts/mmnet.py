"""MMNet's interface: motion is the difference of apex and onset, position is read from a small onset frame.

    python examples/hosts/mmnet.py

After Li et al., "MMNet: Muscle Motion-Guided Network for Micro-Expression Recognition" (IJCAI 2022), written anew and
made small; only the interface is theirs. The network takes two frames ``(b, c, h, w)``, so what it learns from hangs on
where the annotation puts them. Nothing of the network changes: in training the two frames are chosen again around the
annotation, in evaluation the annotation stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from made_clips import CLASSES, MadeClips, made_clips, normalised, report
from torch import Tensor, nn

import mertools as mt

DIM, GRID = 64, 6


class MotionBlock(nn.Module):
    """Convolutions whose output an attention map weighs; the map goes on to the next block."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.attend = nn.Conv2d(channels + 1, 1, 3, padding=1)

    def forward(self, x: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Map and attention at half the size."""
        x = self.conv(x)
        attention = self.attend(torch.cat([x, F.interpolate(attention, x.shape[2:])], 1)).sigmoid()
        return x * attention, attention


class PositionBranch(nn.Module):
    """The onset frame at ``GRID × GRID``, each place a token: where on the face it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, DIM, 1)
        self.position = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, DIM))
        self.encoder = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True)

    def forward(self, onset: Tensor) -> Tensor:
        """``(b, 3, h, w) -> (b, d, GRID, GRID)``."""
        small = self.embed(F.interpolate(onset, (GRID, GRID), mode="bilinear", antialias=True))
        tokens: Tensor = self.encoder(small.flatten(2).mT + self.position)
        return tokens.mT.reshape(len(onset), DIM, GRID, GRID)


class MMNet(nn.Module):
    """``(b, 3, h, w)`` onset and apex ``-> (b, e)``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.motion = nn.ModuleList([MotionBlock(3, 16), MotionBlock(16, 32), MotionBlock(32, DIM)])
        self.position = PositionBranch()
        self.fc = nn.Linear(DIM * GRID * GRID, num_classes)

    def forward(self, onset: Tensor, apex: Tensor) -> Tensor:
        """Logits from how the face moved, and where."""
        x, attention = apex - onset, torch.ones_like(onset[:, :1])
        for block in self.motion:
            x, attention = block(x, attention)
        logits: Tensor = self.fc((x + self.position(onset)).flatten(1))
        return logits


def annotated(data: MadeClips) -> tuple[Tensor, Tensor, Tensor]:
    """Onset frames, apex frames and the apex, as the annotation has them: for evaluation, and for training before."""
    keys = mt.KeyFrames(data.onset, data.apex, data.offset, score=torch.zeros(len(data.target)))
    onset, apex, _ = keys.gather(data.frames)
    return onset, apex, keys.apex


def reselected(data: MadeClips) -> tuple[Tensor, Tensor, Tensor]:
    """The same, chosen again where the face changes most: for training only."""
    selector = mt.FrameSelector.preset("wide")  # <- mertools
    keys = selector(data.frames, data.onset, data.apex, data.offset)  # <- mertools
    onset, apex, _ = keys.gather(data.frames)  # <- mertools
    return onset, apex, keys.apex


def main() -> None:
    """A few steps on the annotated frames, and on those chosen again."""
    data = made_clips(num_frames=40, hasty=4)
    for name, choose in {"before": annotated, "after": reselected}.items():
        torch.manual_seed(0)
        *frames, apex = choose(data)
        off = (apex - data.true_apex).abs().float().mean()
        report(name, MMNet(len(CLASSES)), nn.CrossEntropyLoss(), [normalised(x) for x in frames], data.target)
        print(f"        apex {off:.2f} frames off the true one, on average")


if __name__ == "__main__":
    main()
