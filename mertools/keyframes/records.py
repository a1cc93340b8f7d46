"""The key frames of a batch of clips: where the movement begins, where it is strongest, where it is over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["KeyFrames"]


class KeyFrames(NamedTuple):
    """Onset, apex and offset of each clip of a batch, as 0-based positions along ``t``.

    Shape:
        - onset, apex, offset: ``(b,)`` int64
        - score: ``(b,)`` floating, the distance between apex and onset (0 when nothing moves)

    Examples:
        >>> keys = KeyFrames(*torch.tensor([[2], [5], [7]]), score=torch.ones(1))
        >>> [frame.tolist() for frame in keys.gather(torch.arange(10).view(1, 10))]
        [[2], [5], [7]]
    """

    onset: Tensor
    apex: Tensor
    offset: Tensor
    score: Tensor

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
