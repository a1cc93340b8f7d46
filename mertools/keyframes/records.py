"""The key frames of a batch of clips: where the movement begins, where it is strongest, where it is over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mertools._checks import check_count

__all__ = ["KeyFrames"]


class KeyFrames(NamedTuple):
    """Onset, apex and offset of each clip of a batch, as 0-based positions along ``t``.

    Shape:
        - onset, apex, offset: ``(b,)`` int64
        - score: ``(b,)`` floating, the distance between apex and onset (0 when nothing moves)
        - evidence: ``(b,)`` in [0, 1], how sure it is that a face moves there at all: from 0.5 on, a movement is
          found. Comparable between clips of any size, contrast, noise and length. None from the windowed search and
          from one with a distance of your own, which do not ask.
        - spread: ``(b, 3)`` frames, half-width of the interval around onset, apex and offset that holds the true frame
          nine times in ten (for the apex: some frame of the true plateau). None like evidence.

    Examples:
        >>> keys = KeyFrames(*torch.tensor([[2], [5], [7]]), score=torch.ones(1))
        >>> [frame.tolist() for frame in keys.gather(torch.arange(10).view(1, 10))]
        [[2], [5], [7]]
    """

    onset: Tensor
    apex: Tensor
    offset: Tensor
    score: Tensor
    evidence: Tensor | None = None
    spread: Tensor | None = None

    def sample(self, n: int) -> Tensor:
        """``n`` frames evenly from onset to offset, both included: for a loader that feeds n frames a clip.

        Args:
            n: how many, at least 2. Where the movement is shorter, frames repeat.

        Returns:
            ``(b, n)`` int64 positions, in order.

        Examples:
            >>> KeyFrames(*torch.tensor([[2], [5], [8]]), score=torch.ones(1)).sample(4).tolist()
            [[2, 4, 6, 8]]
        """
        n = check_count("n", n, least=2)
        step = torch.arange(n, device=self.onset.device)
        length = (self.offset - self.onset).unsqueeze(1)
        # Rounded half up, in integers.
        return self.onset.unsqueeze(1) + (2 * step * length + n - 1) // (2 * (n - 1))

    def gather(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the three key frames out of ``frames``.

        Args:
            frames: ``(b, t, ...)``, any dtype; not necessarily the tensor that was searched.

        Returns:
            Onset, apex and offset frames, each ``(b, ...)`` in the dtype of ``frames``.

        Raises:
            TypeError: frames are no tensor.
            ValueError: the batch differs, or a key frame lies beyond the end of ``frames``.
        """
        if not isinstance(frames, Tensor):
            raise TypeError(f"frames must be a torch.Tensor (b, t, ...), got {type(frames).__name__}")
        if not isinstance(self.onset, Tensor):
            raise TypeError(f"onset, apex and offset must be (b,) tensors, got {type(self.onset).__name__}")
        b = self.onset.shape[0]
        if frames.ndim < 2 or frames.shape[0] != b:
            raise ValueError(
                f"frames must be ({b}, t, ...) to match these {b} key frames, got shape {tuple(frames.shape)}"
            )
        if not torch.compiler.is_compiling() and b:
            keys = torch.stack(self[:3])
            if int(keys.min()) < 0 or int(keys.max()) >= frames.shape[1]:
                raise ValueError(
                    f"frames must hold the key frames {int(keys.min())} to {int(keys.max())}, got t={frames.shape[1]}: "
                    "gather from the clip that was searched"
                )
        rows = torch.arange(b, device=frames.device)
        onset, apex, offset = (frames[rows, key.to(frames.device)] for key in self[:3])
        return onset, apex, offset
