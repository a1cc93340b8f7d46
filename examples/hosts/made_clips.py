"""What the hosts beside this file share: synthetic clips with annotations, a few training steps, a line of report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import mertools as mt

CLASSES = ("happy", "surprise", "angry")  # in the order of the labels
_MOVEMENTS = {"smile": "12", "brow-raise": "1+2", "brow-lower": "4"}  # and their action units


class MadeClips(NamedTuple):
    """Clips with what an annotator, here a hasty one, says of them.

    Shape:
        - frames: ``(b, t, 3, h, w)`` uint8 RGB
        - target: ``(b,)``; units: ``(b, 18)``
        - onset, apex, offset: ``(b,)`` as annotated; true_apex: ``(b,)`` as made
    """

    frames: Tensor
    target: Tensor
    units: Tensor
    onset: Tensor
    apex: Tensor
    offset: Tensor
    true_apex: Tensor


def made_clips(num_frames: int = 16, per_class: int = 4, size: int = 48, *, hasty: int = 0) -> MadeClips:
    """The three movements, ``per_class`` times, with annotations up to ``hasty`` frames beside the truth."""
    random = torch.Generator().manual_seed(0)
    clips, marks = [], []
    for seed in range(per_class):
        for movement in _MOVEMENTS:
            onset, apex, offset = num_frames // 8 + seed % 3, num_frames // 2, num_frames - 2 - seed % 2
            clips.append(
                mt.synthetic_clip(
                    num_frames=num_frames, onset=onset, apex=apex, offset=offset, hold=0, movement=movement,
                    amplitude=3.0, noise=1.0, size=size, seed=seed,
                )
            )  # fmt: skip
            off = torch.randint(-hasty, hasty + 1, (3,), generator=random)
            marks.append((torch.tensor([onset, apex, offset]) + off).clamp(0, num_frames - 1))
    onsets, apexes, offsets = torch.stack(marks).unbind(1)
    return MadeClips(
        frames=torch.stack([clip.frames for clip in clips]),
        target=torch.arange(len(CLASSES)).repeat(per_class),
        units=mt.facs_labels([*_MOVEMENTS.values()] * per_class),
        onset=onsets,
        apex=apexes,
        offset=offsets,
        true_apex=torch.tensor([clip.apex for clip in clips]),
    )


def normalised(frames: Tensor) -> Tensor:
    """Frames as a network wants them: floating, mean 0, standard deviation 1."""
    values = frames.float() / 255
    return (values - values.mean()) / values.std()


def fit(
    model: nn.Module, criterion: Callable[..., Tensor], inputs: Sequence[Tensor], target: Tensor, steps: int = 12
) -> list[float]:
    """Train on one batch over and over; the loss of each step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[float] = []
    for _ in range(steps):
        loss = criterion(model(*inputs), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return losses


def report(
    name: str, model: nn.Module, criterion: Callable[..., Tensor], inputs: Sequence[Tensor], target: Tensor
) -> None:
    """Shapes, parameters and the loss of a few steps, in one line."""
    output = model(*inputs)
    shapes = [tuple(part.shape) for part in (output if isinstance(output, tuple) else (output,))]
    losses = fit(model, criterion, inputs, target)
    print(
        f"{name:8}{', '.join(str(tuple(x.shape)) for x in inputs)} -> {', '.join(map(str, shapes))}  "
        f"parameters {sum(p.numel() for p in model.parameters())}  loss {losses[0]:.3f} -> {losses[-1]:.3f}"
    )
