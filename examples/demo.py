"""The main job on one clip: key frames, two-branch TSFmicro, one training step with the AU prior loss, a figure.

python examples/demo.py                     a synthetic clip, with known key frames
python examples/demo.py CLIP [--out FILE]   your own video file or folder of frames
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

import mertools as mt
from mertools.cli import silence_decoders, telling
from mertools.plots import check_figure_path

# Grace Hopper's official portrait (US Navy, public domain), part of matplotlib's sample data, and where its eyes are.
EYES = ((225.0, 190.0), (306.0, 186.0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in the papers


def main() -> int:
    """Run the demonstration; exit status 2 when the clip can't be used."""
    parser = argparse.ArgumentParser(description="Key frames, two-branch TSFmicro and an AU prior step on one clip.")
    parser.add_argument(
        "clip", nargs="?", default="", help="a video file or a folder of frames; default: a synthetic clip"
    )
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="where to write the figure")
    parser.add_argument("--label", default="happy", choices=mt.EXPRESSIONS, help="expression for the training step")
    args = parser.parse_args()
    silence_decoders()
    torch.manual_seed(0)
    try:
        check_figure_path(args.out)  # before the work, not after it
        run(args.clip, args.out, args.label)
    except (ImportError, OSError, ValueError) as error:
        print(f"demo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run(clip: str, out: Path, label: str) -> None:
    """The job itself, step by step."""
    with telling("reading the clip"):
        frames, truth, name = load(clip)
    t, _, h, w = frames.shape
    print(f"clip        {name}: {t} frames of {h}x{w}", flush=True)

    # 1. Key frames: where the face changes most.
    with telling(f"searching {t} frames"):
        keys = mt.FrameSelector()(frames[None])
    found = [int(frame) for frame in keys[:3]]
    print("key frames  onset {}  apex {}  offset {}".format(*found), flush=True)
    if found[0] == 0 or found[2] == t - 1:
        print("            (the movement reaches an end of the clip: the onset or offset may lie beyond it)")
    if truth is not None:
        print("true        onset {}  apex {}  offset {}".format(*truth))

    # 2. Two branches around TSFmicro: the rise and the fall of the expression, one set of weights.
    onset, apex, offset = (network_input(frame) for frame in keys.gather(frames[None]))
    model = mt.TwoBranch(mt.TSFmicro(num_classes=len(mt.EXPRESSIONS), drop_path=0.0))
    criterion = mt.AUPriorLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-5)
    target = torch.tensor([mt.EXPRESSIONS.index(label)])

    # 3. One optimiser step towards the label.
    losses = []
    for step in range(2):
        front, back = model(onset, apex, offset)
        loss = criterion(front, target) + criterion(back, target)
        losses.append(loss.item())
        if step == 0:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"model       TwoBranch(TSFmicro), {weights / 1e6:.1f} million weights, untrained")
    print(f"AU prior    loss {losses[0]:.4f} -> {losses[1]:.4f} after one step towards {label!r}")

    # 4. A picture of it.
    with telling("drawing"):
        mt.plot_keyframes(frames, keys, truth=truth, title=f"Key frames of {name}", path=out)
    print(f"figure      {out}")


def load(clip: str) -> tuple[Tensor, tuple[int, int, int] | None, str]:
    """The clip's frames, its true key frames where they are known, and its name."""
    if clip:
        return mt.read_clip(clip), None, Path(clip).name
    smile = mt.synthetic_clip(portrait(), eyes=EYES, size=224, amplitude=3.0)
    return smile.frames, (smile.onset, smile.apex, smile.offset), "a synthetic smile"


def portrait() -> Tensor:
    """A public-domain portrait that matplotlib ships, ``(3, h, w)`` uint8 RGB."""
    from matplotlib.cbook import get_sample_data
    from matplotlib.image import imread

    image = imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return torch.tensor(image).permute(2, 0, 1).contiguous()


def network_input(frame: Tensor) -> Tensor:
    """A uint8 frame ``(1, 3, h, w)`` as the network wants it: the middle square, 224 pixels, ImageNet mean and std."""
    h, w = frame.shape[-2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = frame[..., top : top + side, left : left + side].float() / 255
    small = torch.nn.functional.interpolate(square, (224, 224), mode="bilinear", antialias=True)
    return (small - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


if __name__ == "__main__":
    sys.exit(main())
