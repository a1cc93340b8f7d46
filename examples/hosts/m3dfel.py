"""M3DFEL's interface: a clip is a bag of short instances, a 3-D CNN sees each, an aggregator goes through the bag.

    python examples/hosts/m3dfel.py

After Wang et al., "Rethinking the Learning Paradigm for Dynamic Facial Expression Recognition" (CVPR 2023), written
anew and made small; only the interface is theirs. Clips come as ``(b, t, c, h, w)``; a 3-D convolution wants
``(b, c, t, h, w)``, and cutting the clip into a bag turns the one into the other.
"""

from __future__ import annotations

import torch
from einops import rearrange
from made_clips import CLASSES, made_clips, normalised, report
from torch import Tensor, nn

import mertools as mt

DIM = 64


class LSTM(nn.Module):
    """The host's own aggregator: a bidirectional LSTM, ``(b, n, d) -> (b, n, d)``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(DIM, DIM // 2, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, bag: Tensor) -> Tensor:
        """Instances that know of each other."""
        output: Tensor = self.lstm(bag)[0]
        return output


class M3DFEL(nn.Module):
    """``(b, t, c, h, w) -> (b, e)``, the clip cut into ``instances`` of ``t / instances`` frames."""

    def __init__(self, num_classes: int, aggregator: nn.Module, instances: int = 4) -> None:
        super().__init__()
        self.instances = instances
        self.cnn = nn.Sequential(  # theirs: R3D-18
            nn.Conv3d(3, 16, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(16), nn.ReLU(),
            nn.Conv3d(16, 32, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(32), nn.ReLU(),
            nn.Conv3d(32, DIM, 3, stride=(2, 2, 2), padding=1), nn.BatchNorm3d(DIM), nn.ReLU(),
            nn.AdaptiveAvgPool3d((1, 4, 4)), nn.Flatten(), nn.Linear(16 * DIM, DIM),
        )  # fmt: skip
        self.aggregator = aggregator
        self.attention = nn.MultiheadAttention(DIM, 4, batch_first=True)
        self.norm = nn.LayerNorm(DIM)
        self.fc = nn.Linear(DIM, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of a bag: the mean of its instances, once each has looked at the others."""
        parts = rearrange(clips, "b (n t) c h w -> (b n) c t h w", n=self.instances)
        bag = rearrange(self.cnn(parts), "(b n) d -> b n d", n=self.instances)
        bag = self.aggregator(bag)
        bag = self.norm(bag + self.attention(bag, bag, bag, need_weights=False)[0])
        logits: Tensor = self.fc(bag.mean(1))
        return logits


def before() -> tuple[nn.Module, nn.Module]:
    """The host and its loss."""
    return M3DFEL(len(CLASSES), LSTM()), nn.CrossEntropyLoss()


def after() -> tuple[nn.Module, nn.Module]:
    """The same with retention through the bag, and the AU prior in the loss."""
    aggregator = mt.RetNetTemporal(DIM, depth=2, num_heads=4, causal=False)  # <- mertools: was LSTM()
    criterion = mt.AUPriorLoss(mt.au_prior(CLASSES))  # <- mertools: was nn.CrossEntropyLoss()
    return M3DFEL(len(CLASSES), aggregator), criterion


def main() -> None:
    """A few steps of each."""
    data = made_clips()
    clips = normalised(data.frames)
    for name, build in {"before": before, "after": after}.items():
        torch.manual_seed(0)
        report(name, *build(), [clips], data.target)


if __name__ == "__main__":
    main()
