"""DFER-CLIP's interface: an image encoder per frame, a temporal model, and classes that are texts, not a linear layer.

    python examples/hosts/dfer_clip.py

After Zhao and Patras, "Prompting Visual-Language Models for Dynamic Facial Expression Recognition" (BMVC 2023), written
anew and made small; only the interface is theirs. Clips come as ``(b, t, c, h, w)``. Their encoders are CLIP's, with
weights that are downloaded; here a small convolutional encoder and fixed random texts stand in for them. Logits are
cosines between a clip and the texts, so there is no linear layer whose width an AU head could be told by: it is named.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from made_clips import CLASSES, MadeClips, made_clips, normalised, report
from torch import Tensor, nn

import mertools as mt

DIM = 64


class FrameEncoder(nn.Sequential):
    """Frames ``(n, c, h, w)`` to embeddings ``(n, d)``; theirs: the image encoder of CLIP ViT-B/32."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, DIM, 3, stride=2, padding=1), nn.BatchNorm2d(DIM), nn.ReLU(),
            nn.Flatten(), nn.Linear(36 * DIM, DIM),
        )  # fmt: skip


class TextClasses(nn.Module):
    """Logits as cosines between clips ``(b, d)`` and a text of each class ``(e, d)``, over a temperature."""

    texts: Tensor

    def __init__(self, num_classes: int, temperature: float = 0.1) -> None:  # theirs: learned prompts, 0.01
        super().__init__()
        self.register_buffer("texts", torch.randn(num_classes, DIM, generator=torch.Generator().manual_seed(0)))
        self.temperature = temperature

    def forward(self, clips: Tensor) -> Tensor:
        """Logits ``(b, e)``."""
        return F.normalize(clips, dim=-1) @ F.normalize(self.texts, dim=-1).mT / self.temperature


class Transformer(nn.Module):
    """The host's own temporal model: a class token and frame positions, ``(b, t, d) -> (b, d)``."""

    def __init__(self, frames: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(1, frames + 1, DIM))  # the class token's place is the first
        layer = nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """What the class token has gathered."""
        clip: Tensor = self.encoder(F.pad(embeddings, (0, 0, 1, 0)) + self.tokens)[:, 0]
        return clip


class DFERCLIP(nn.Module):
    """``(b, t, c, h, w) -> (b, e)``."""

    def __init__(self, num_classes: int, temporal: nn.Module) -> None:
        super().__init__()
        self.image_encoder, self.temporal, self.classes = FrameEncoder(), temporal, TextClasses(num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips."""
        embeddings = rearrange(self.image_encoder(clips.flatten(0, 1)), "(b t) d -> b t d", b=len(clips))
        logits: Tensor = self.classes(self.temporal(embeddings))
        return logits


class Loss(nn.Module):
    """The loss of AU-DFER for a host with an AU head; ``units (b, 18)`` are the AU labels of the batch."""

    def __init__(self, units: Tensor) -> None:
        super().__init__()
        self.units = units
        self.criterion = mt.AUPriorLoss(mt.au_prior(CLASSES))  # <- mertools: was nn.CrossEntropyLoss()

    def forward(self, output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Expression and AU terms."""
        logits, au_logits = output
        loss: Tensor = self.criterion(logits, target, au_logits, self.units)
        return loss


def before(_: MadeClips) -> tuple[nn.Module, nn.Module]:
    """The host and its loss."""
    return DFERCLIP(len(CLASSES), Transformer()), nn.CrossEntropyLoss()


def after(data: MadeClips) -> tuple[nn.Module, nn.Module]:
    """The same with retention over the frames' embeddings, and an AU head on the clip's."""
    temporal = nn.Sequential(mt.RetNetTemporal(DIM, depth=1, num_heads=4), mt.FramePool("mean"))  # <- mertools
    model = DFERCLIP(len(CLASSES), temporal)
    return mt.attach_au_head(model, "classes", in_features=DIM), Loss(data.units)  # <- mertools


def main() -> None:
    """A few steps of each; then the AU head comes off, and the host is what it was."""
    data = made_clips()
    clips = normalised(data.frames)
    for name, build in {"before": before, "after": after}.items():
        torch.manual_seed(0)
        model, criterion = build(data)
        report(name, model, criterion, [clips], data.target)
    print("inference:", tuple(mt.detach_au_head(model)(clips).shape))  # <- mertools


if __name__ == "__main__":
    main()
