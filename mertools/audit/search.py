"""The searches of one clip, in whatever process: read its frames once, find its key frames twice."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mertools.clips.read import decode_frames
from mertools.keyframes.distance import pairwise_distance
from mertools.keyframes.selector import select_keyframes

SEARCHES = ("annotated", "robust")


class ClipTask(NamedTuple):
    """What it takes to search one clip: its frames by name and number, and its annotation as positions among them."""

    which: int
    folder: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    keys: tuple[int, int, int]
    searches: tuple[str, ...]
    windows: tuple[float, tuple[float, float], float]
    longest: int | None


def search_clip(task: ClipTask) -> dict[str, Any]:
    """File numbers of onset, apex and offset by each search; ``{"error": ...}`` when the clip can't be used."""
    try:
        return {name: [task.numbers[i] for i in keys] for name, keys in _search(task).items()}
    except Exception as error:
        # One clip among a thousand must not end the run, whatever is the matter with it.
        known = isinstance(error, (ValueError, OSError))
        return {"error": str(error) if known else f"{type(error).__name__}: {error}"}


def _search(task: ClipTask) -> dict[str, tuple[int, int, int]]:
    whole = "robust" in task.searches
    wanted = list(range(len(task.names))) if whole else _window_frames(task)
    pixels = decode_frames([f"{task.folder}/{task.names[i]}" for i in wanted], longest=task.longest)
    frames = torch.from_numpy(pixels)
    found = {}
    for name in task.searches:
        if name == "annotated":
            found[name] = _annotated(frames, wanted, task)
        else:
            # Laid out as read_clip does: sums round alike, and the same frames give the same key frames.
            clip = frames.flip(-1).permute(0, 3, 1, 2).contiguous()
            keys = select_keyframes(clip[None], *task.keys, refine=True)
            found[name] = (int(keys.onset), int(keys.apex), int(keys.offset))
    return found


def _annotated(frames: Tensor, wanted: list[int], task: ClipTask) -> tuple[int, int, int]:
    """The windowed search. Only distances within the windows matter, so only those are computed."""
    inside = _window_frames(task)
    place = {position: i for i, position in enumerate(wanted)}
    small = pairwise_distance(frames[[place[i] for i in inside]][None])[0]
    t = len(task.names)

    def distance(index: Tensor) -> Tensor:
        table = small.new_zeros(1, t, t)
        rows = torch.tensor(inside)
        table[0, rows[:, None], rows] = small
        return table

    onset_window, apex_window, offset_window = task.windows
    keys = select_keyframes(
        torch.arange(t).float().view(1, t, 1),
        *task.keys,
        onset_window=onset_window,
        apex_window=apex_window,
        offset_window=offset_window,
        distance=distance,
    )
    return int(keys.onset), int(keys.apex), int(keys.offset)


def _window_frames(task: ClipTask) -> list[int]:
    onset, apex, offset = task.keys
    on, (before, after), off = task.windows
    rise, fall = apex - onset, offset - apex
    frames = {*range(onset, onset + int(on * rise) + 1), *range(offset - int(off * fall), offset + 1)}
    return sorted(frames | {*range(apex - int(before * rise), apex + int(after * fall) + 1)})
