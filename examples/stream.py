"""A camera loop: frames come one by one, and after every frame there is a label, the same as for the whole clip.

python examples/stream.py                a synthetic clip
python examples/stream.py VIDEO          your own video file (or a camera's number: 0)

A small network learns on synthetic clips whether a face is at rest, on its way to the apex or on its way back, from
frames that are each compared with the clip's first: a minute or two on two cores. Then it reads a clip it has not seen:
first as a stream, then whole. What it learned holds for synthetic faces and a still head; on a video of yours, watch
that stream and clip agree, not the labels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TypeAlias

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mertools as mt
from mertools.cli import silence_decoders, telling

State: TypeAlias = tuple[mt.RetentionState, ...]

PHASES = ("rest", "rising", "falling")
SIZE = 64


class PhaseNet(nn.Module):
    """Frame encoder, retention over frames, a label per frame."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(32, dim, 3, stride=2, padding=1), nn.GELU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * dim, dim),
        )  # fmt: skip
        self.temporal = mt.RetNetTemporal(dim, depth=2, num_heads=4)
        self.head = nn.Linear(dim, len(PHASES))

    def forward(self, motion: Tensor) -> Tensor:
        """Logits of every frame: ``(b, t, 1, h, w) -> (b, t, 3)``."""
        features = self.encoder(motion.flatten(0, 1)).view(*motion.shape[:2], -1)
        logits: Tensor = self.head(self.temporal(features))
        return logits

    def step(self, motion: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Logits of the newest frame: ``(b, 1, h, w) -> (b, 3)``, and what to pass in with the next."""
        features, state = self.temporal.step(self.encoder(motion), state)
        return self.head(features), state


def motion_of(frames: Tensor, first: Tensor) -> Tensor:
    """Grey difference to the clip's first frame, ``(..., 3, h, w)`` uint8 to ``(..., 1, h, w)``."""
    return (frames.float().mean(-3, keepdim=True) - first.float().mean(-3, keepdim=True)) / 16


def moving_face(seed: int) -> mt.SyntheticClip:
    """A face that moves, another time course and movement for every seed."""
    draw = torch.Generator().manual_seed(seed)
    onset, rise, fall = (int(torch.randint(low, high, (), generator=draw)) for low, high in ((5, 20), (8, 16), (8, 16)))
    return mt.synthetic_clip(
        num_frames=60, onset=onset, apex=onset + rise, offset=onset + rise + fall, hold=0, amplitude=3.0,
        movement=("smile", "brow-raise", "brow-lower")[seed % 3], noise=1.0, size=SIZE, seed=seed,
    )  # fmt: skip


def phases(clip: mt.SyntheticClip) -> Tensor:
    """The label of every frame."""
    frame = torch.arange(len(clip.frames))
    rising, falling = (frame > clip.onset) & (frame <= clip.apex), (frame > clip.apex) & (frame < clip.offset)
    return torch.where(rising, 1, torch.where(falling, 2, 0))


def train(net: PhaseNet, steps: int) -> None:
    """A few steps on synthetic clips."""
    print(
        f"training a small network first, {steps} steps on 36 synthetic clips: a minute or two on two cores", flush=True
    )
    with telling("drawing the clips"):
        clips = [moving_face(seed) for seed in range(36)]
    motion = torch.stack([motion_of(clip.frames, clip.frames[0]) for clip in clips])
    target = torch.stack([phases(clip) for clip in clips])
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    with telling("training") as tell:
        for step in range(steps):
            some = torch.randperm(len(clips), generator=torch.Generator().manual_seed(step))[:6]
            loss = F.cross_entropy(net(motion[some]).flatten(0, 1), target[some].flatten())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            tell(f"training, step {step + 1} of {steps}, loss {loss.item():.3f}")


def camera(source: str) -> Iterator[Tensor]:
    """Frames of a video file or camera as they come, ``(3, h, w)`` uint8 RGB."""
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise ValueError(f"cannot open {source!r}: a video file or the number of a camera is needed")
    try:
        while True:
            more, image = capture.read()
            if not more:
                return
            image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            yield torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
    finally:
        capture.release()


def main() -> int:
    """Run the example; exit status 2 when the video can't be used."""
    parser = argparse.ArgumentParser(description="Labels for the frames of a stream as they come.")
    parser.add_argument("video", nargs="?", help="a video file or the number of a camera; default: a synthetic clip")
    parser.add_argument("--steps", type=int, default=150, help="training steps on synthetic clips")
    args = parser.parse_args()
    silence_decoders()
    try:
        if args.video:
            next(camera(args.video), None)  # what can't be opened is said before the training
        run(args.video, args.steps)
    except (OSError, ValueError) as error:
        print(f"stream: error: {error}", file=sys.stderr)
        return 2
    return 0


def run(video: str | None, steps: int) -> None:
    """Train, stream, compare with the whole clip."""
    torch.manual_seed(0)
    net = PhaseNet()
    train(net, steps)
    with torch.no_grad():
        stream(net.eval(), video)


def stream(net: PhaseNet, video: str | None) -> None:
    """Label the frames as they come, and once more all at once."""
    clip = moving_face(1000) if video is None else None
    frames: list[Tensor] = []
    logits: list[Tensor] = []
    state: State | None = None
    took = 0.0
    for i, frame in enumerate(clip.frames if clip is not None else camera(str(video))):
        frames.append(frame)  # kept only for the comparison below; a stream needs the first frame and the state
        start = time.perf_counter()
        out, state = net.step(motion_of(frame, frames[0])[None], state)
        took += time.perf_counter() - start
        label = PHASES[int(out.argmax())]
        if i == 0 or label != PHASES[int(logits[-1].argmax())]:
            print(f"frame {i:3d}: {label}", flush=True)
        logits.append(out[0])
    if not frames:
        raise ValueError(f"no frames came from {video!r}")
    streamed = torch.stack(logits)
    print(f"{len(frames)} frames, {took / len(frames) * 1e3:.1f} ms a frame")

    whole = net(motion_of(torch.stack(frames), frames[0])[None])[0]
    same = bool((whole.argmax(-1) == streamed.argmax(-1)).all())
    print(f"whole clip at once: {'the same labels' if same else 'OTHER LABELS'}, "
          f"logits differ by at most {(whole - streamed).abs().max():.0e}")  # fmt: skip
    if clip is not None:
        right = (streamed.argmax(-1) == phases(clip)).double().mean()
        print(f"truth: onset {clip.onset}, apex {clip.apex}, offset {clip.offset}; {right:.0%} of the frames right")


if __name__ == "__main__":
    sys.exit(main())
