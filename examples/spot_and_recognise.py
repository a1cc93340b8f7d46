"""A long video, spotted and classified: where expressions are, how sure, and what a model says about each.

python examples/spot_and_recognise.py                          a synthetic video made on the spot
python examples/spot_and_recognise.py VIDEO --box 120,40,300,300 --weights FILE

Each expression is cut to its onset and apex frame, which go through a `TSFmicro`. Without `--weights` the model has
learned nothing: its labels show that the pieces fit together, and mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import mertools as mt
from mertools.clips.read import clip_frames
from mertools.spotting.spot import video_fps

CLASSES = ("negative", "positive", "surprise")  # MEGC 2019


def made_video() -> mt.SyntheticVideo:
    """Three expressions, some blinks and a nod in twelve seconds."""
    expressions = [
        mt.SyntheticExpression(60, 68, 80, 92, "smile"),
        mt.SyntheticExpression(150, 154, 158, 164, "brow-lower", 1.5),
        mt.SyntheticExpression(240, 255, 285, 300, "brow-raise"),
    ]
    return mt.SyntheticVideo(360, expressions, blinks=[30, 120, 210, 320], nods=[(180, 40, 2.0)], drift=1.0)


def chosen(frames: Iterable[Tensor], wanted: set[int]) -> dict[int, Tensor]:
    """The frames of some numbers; the others are not kept."""
    return {i: frame for i, frame in enumerate(frames) if i in wanted}


def as_input(frames: list[Tensor]) -> Tensor:
    """What the model takes: square images ``(b, 3, 224, 224)`` in [0, 1]."""
    images = torch.stack(frames).float() / 255
    return F.interpolate(images, size=(224, 224), mode="bilinear", antialias=True)


def bar(onset: int, offset: int, frames: int, width: int = 40) -> str:
    """Where an expression lies in the video, as text."""
    first, last = (min(key * width // frames, width - 1) for key in (onset, offset))
    return "." * first + "#" * (last - first + 1) + "." * (width - last - 1)


@torch.no_grad()
def main() -> None:
    """Spot, crop, classify, print."""
    parser = argparse.ArgumentParser(description="Spot the expressions of a video and classify each.")
    parser.add_argument("video", nargs="?", help="a video file or a folder of frames; default: a synthetic one")
    parser.add_argument("--box", help="X,Y,W,H of the face")
    parser.add_argument("--weights", help="weights of a TSFmicro with three classes (save_weights)")
    args = parser.parse_args()
    box = tuple(map(int, args.box.split(","))) if args.box else None
    fps = (video_fps(args.video) if args.video else None) or 30.0
    count = 0

    def frames() -> Iterator[Tensor]:
        nonlocal count
        count = 0
        for frame in clip_frames(args.video, box=box) if args.video else made_video():
            count += 1
            yield frame

    found = mt.spot_expressions(frames(), fps=fps)
    if not found:
        print(f"no expression in {count} frames")
        return
    pictures = chosen(frames(), {key for one in found for key in (one.onset, one.apex)})

    torch.manual_seed(0)
    model = mt.TSFmicro(num_classes=len(CLASSES)).eval()
    if args.weights:
        model.load_state_dict(mt.load_weights(args.weights))
    onset, apex = (as_input([pictures[getattr(one, name)] for one in found]) for name in ("onset", "apex"))
    probability = model(onset, apex).softmax(-1)
    for one, row in zip(found, probability, strict=True):
        seconds = (one.offset - one.onset + 1) / fps
        kind = "micro" if seconds <= 0.5 else "macro"
        best = int(row.argmax())
        print(
            f"{one.onset / fps:7.2f} s  {bar(one.onset, one.offset, count)}  {seconds:4.2f} s {kind}  "
            f"evidence {one.evidence:.2f}  {CLASSES[best]} {float(row[best]):.2f}"
        )
    if not args.weights:
        print("(untrained model: the labels mean nothing)")
    if not args.video:
        scores = mt.spotting_scores([found], [made_video().intervals], fps=fps)
        print(f"truth: {scores.tp} found, {scores.fp} false, {scores.fn} missed")


if __name__ == "__main__":
    main()
