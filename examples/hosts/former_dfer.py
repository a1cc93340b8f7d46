"""Former-DFER's interface: a convolutional spatial transformer per frame, a temporal transformer over the frames.

    python examples/hosts/former_dfer.py

After Zhao and Liu, "Former-DFER: Dynamic Facial Expression Recognition Transformer" (ACM MM 2021), written anew and
made small; only the interface is theirs. Clips come as ``(b, t, c, h, w)``. The temporal transformer has a class token
and a table of frame positions, which fixes t. Retention needs neither: clips may be of any length, and of unequal
lengths in one batch.
"""

from __future__ import annotations

import torch
from einops import rearrange
from made_clips import CLASSES, made_clips, normalised, report
from torch import Tensor, nn

import mertools as mt

DIM, FRAMES = 64, 16


class SpatialFormer(nn.Module):
    """Frames ``(n, c, h, w)`` to features ``(n, d)``: convolutions, then attention over the places of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(  # theirs: the first stages of a ResNet-18
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, DIM, 3, stride=2, padding=1), nn.BatchNorm2d(DIM), nn.ReLU(),
        )  # fmt: skip
        self.position = nn.Parameter(0.02 * torch.randn(1, 36, DIM))
        self.encoder = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True)
        self.to_features = nn.Linear(36 * DIM, DIM)

    def forward(self, frames: Tensor) -> Tensor:
        """One feature vector per frame."""
        tokens = rearrange(self.cnn(frames), "n d h w -> n (h w) d")
        features: Tensor = self.to_features(self.encoder(tokens + self.position).flatten(1))
        return features


class TemporalFormer(nn.Module):
    """The host's own way through the frames, ``(b, t, d) -> (b, d)``: a class token reads them; t is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, DIM))
        self.position = nn.Parameter(0.02 * torch.randn(1, FRAMES + 1, DIM))
        layer = nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, features: Tensor) -> Tensor:
        """What the class token has gathered."""
        tokens = torch.cat([self.token.expand(len(features), -1, -1), features], 1) + self.position
        clip: Tensor = self.encoder(tokens)[:, 0]
        return clip


class TemporalRetention(nn.Module):
    """In its place, ``(b, t, d) -> (b, d)``: any t, padding left out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mt.RetNetTemporal(DIM, depth=2, num_heads=4)  # <- mertools
        self.pool = mt.FramePool("mean")  # <- mertools

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The mean of the frames, of those that are real."""
        clip: Tensor = self.pool(self.encoder(features, lengths=lengths), lengths)
        return clip


class FormerDFER(nn.Module):
    """``(b, t, c, h, w) -> (b, e)``; the frames are folded into the batch for the spatial part."""

    def __init__(self, num_classes: int, temporal: nn.Module) -> None:
        super().__init__()
        self.spatial, self.temporal, self.fc = SpatialFormer(), temporal, nn.Linear(DIM, num_classes)

    def forward(self, clips: Tensor, **padding: Tensor) -> Tensor:
        """Logits of clips; ``lengths=`` is for a temporal part that takes it."""
        features = rearrange(self.spatial(clips.flatten(0, 1)), "(b t) d -> b t d", b=len(clips))
        logits: Tensor = self.fc(self.temporal(features, **padding))
        return logits


def before() -> FormerDFER:
    """The host."""
    return FormerDFER(len(CLASSES), TemporalFormer())


def after() -> FormerDFER:
    """The same with retention over the frames."""
    return FormerDFER(len(CLASSES), TemporalRetention())  # <- mertools: was TemporalFormer()


def main() -> None:
    """A few steps of each; then what only the second can do."""
    data = made_clips(FRAMES)
    clips, criterion = normalised(data.frames), nn.CrossEntropyLoss()
    for name, build in {"before": before, "after": after}.items():
        torch.manual_seed(0)
        model = build()
        report(name, model, criterion, [clips], data.target)
    padded = normalised(made_clips(num_frames=24, per_class=1).frames)
    print("after   on 24, 17 and 20 frames:", tuple(model(padded, lengths=torch.tensor([24, 17, 20])).shape))


if __name__ == "__main__":
    main()
