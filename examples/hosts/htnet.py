"""HTNet's interface: optical flow and strain between onset and apex, 28 × 28, in four areas of the face.

    python examples/hosts/htnet.py

After Wang et al., "HTNet for micro-expression recognition" (Neurocomputing 2024), written anew and made small; only the
interface is theirs. The input is ``(b, 3, 28, 28)``: horizontal flow u, vertical flow v and strain. Theirs is put
together from four areas around landmarks of eyes and lips; here the four quarters of an aligned face stand in for them.
In training the onset and apex between which the flow is taken are chosen again; in evaluation the annotation stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from made_clips import CLASSES, MadeClips, made_clips, report
from torch import Tensor, nn

import mertools as mt

DIM, SIDE = 64, 28


class HTNet(nn.Module):
    """``(b, 3, 28, 28) -> (b, e)``: attention within each area, then over the areas."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, DIM, 7, stride=7)  # 4 × 4 patches, 2 × 2 in each area
        self.within_position = nn.Parameter(0.02 * torch.randn(1, 4, DIM))
        self.over_position = nn.Parameter(0.02 * torch.randn(1, 4, DIM))
        self.within = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True)
        self.merge = nn.Linear(4 * DIM, DIM)
        self.over = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(DIM, num_classes)

    def forward(self, motion: Tensor) -> Tensor:
        """Logits from u, v and strain."""
        patches = rearrange(self.embed(motion), "b d (i h) (j w) -> (b i j) (h w) d", i=2, j=2)
        areas = self.merge(self.within(patches + self.within_position).flatten(1))
        face = self.over(rearrange(areas, "(b p) d -> b p d", p=4) + self.over_position)
        logits: Tensor = self.fc(face.mean(1))
        return logits


def motion_image(onset: Tensor, apex: Tensor) -> Tensor:
    """Two frames ``(3, h, w)`` uint8 to u, v and strain ``(3, 28, 28)``, flow in pixels of the frames."""
    flow = mt.optical_flow(onset, apex)  # <- mertools: (2, h, w)
    strain = mt.optical_strain(flow)  # <- mertools: (h, w), before anything is resized
    image = torch.cat([flow, strain[None]])
    return F.interpolate(image[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]


def annotated(data: MadeClips) -> tuple[Tensor, Tensor]:
    """Motion images and the apex, as annotated: for evaluation, and for training before."""
    return _images(data, mt.KeyFrames(data.onset, data.apex, data.offset, score=torch.zeros(len(data.target))))


def reselected(data: MadeClips) -> tuple[Tensor, Tensor]:
    """The same between key frames chosen again, each moved either way: for training only."""
    selector = mt.FrameSelector(refine=True)  # <- mertools
    return _images(data, selector(data.frames, data.onset, data.apex, data.offset))  # <- mertools


def _images(data: MadeClips, keys: mt.KeyFrames) -> tuple[Tensor, Tensor]:
    onset, apex, _ = keys.gather(data.frames)
    images = torch.stack([motion_image(first, second) for first, second in zip(onset, apex, strict=True)])
    scale = images.abs().amax((0, 2, 3), keepdim=True)  # strain is a hundredth of what flow is
    return images / scale, keys.apex


def main() -> None:
    """A few steps on the annotated motion, and on that between frames chosen again."""
    data = made_clips(num_frames=40, size=64, hasty=4)
    for name, choose in {"before": annotated, "after": reselected}.items():
        torch.manual_seed(0)
        images, apex = choose(data)
        off = (apex - data.true_apex).abs().float().mean()
        report(name, HTNet(len(CLASSES)), nn.CrossEntropyLoss(), [images], data.target)
        print(f"        apex {off:.2f} frames off the true one, on average")


if __name__ == "__main__":
    main()
