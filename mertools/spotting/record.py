"""One expression of a long video."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Expression"]


class Expression(NamedTuple):
    """A movement of the face that was found in a video, in frames counted from 0.

    Shape:
        - onset: the last frame at rest before it
        - apex: the middle of the frames of full extent
        - offset: the first frame at rest after it, or the video's last frame
        - evidence: how sure it is that the face moved, 0.5 to 1
        - spread: half-widths in frames of intervals around onset, apex and offset, meant to hold the true frame
          nine times in ten (not calibrated yet)

    Examples:
        >>> Expression(10, 14, 22, 0.97, (1.0, 2.0, 2.5)).apex
        14
    """

    onset: int
    apex: int
    offset: int
    evidence: float
    spread: tuple[float, float, float]
