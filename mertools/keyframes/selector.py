"""Key-frame selection: onset, apex and offset where the face changes most (GAMDSS).

A micro-expression clip comes with three key frames that a person placed, often a few frames off. GAMDSS moves each of
them, within a window that is a fraction of its phase, to where the face differs most. Nothing is learned.

With the annotation, rise ``R = apex − onset`` and fall ``F = offset − apex``::

    (onset*, apex*) = argmax d(o, a)      o in [onset, onset + ⌊w_on·R⌋],  a in [apex − ⌊w_ap−·R⌋, apex + ⌊w_ap+·F⌋]
    offset*         = argmax d(apex*, k)  k in [offset − ⌊w_off·F⌋, offset]

Without one, or near one with ``refine=True``, the robust search of ``robust.py``: one movement that rises, holds and
falls, told apart from noise, light, head motion and blinks. With a distance of one's own and no annotation, the onset <
apex ≤ offset that maximise ``d(onset, apex) + d(apex, offset)``.

Departures from the published code: the distance is the true one (see ``distance.py``), each frame is read once instead
of once per pair, and a tie keeps the annotation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from mertools._checks import check_choice, check_count, check_number
from mertools.clips.read import boxed
from mertools.keyframes.distance import check_frames, distance_between, frame_distances
from mertools.keyframes.records import KeyFrames
from mertools.keyframes.robust import find_key_frames
from mertools.keyframes.stream import stream_key_frames, stream_windows
from mertools.keyframes.windows import Fractions, search_clip, search_windows, tolerance_of
from mertools.layers.padding import check_lengths, valid_mask

__all__ = ["FrameSelector", "select_keyframes"]

Distance: TypeAlias = Literal["l2"] | Callable[[Tensor], Tensor]
Index: TypeAlias = int | Sequence[int] | Tensor

# onset_window, apex_window, offset_window of REFERENCE: what the published experiments used
_PRESETS: dict[str, tuple[float, tuple[float, float], float]] = {
    "full": (0.1, (0.1, 0.0), 0.1),
    "short": (0.0375, (0.0375, 0.0), 0.0),
    "late-apex": (0.0, (0.0, 0.52), 0.0),
    "wide": (0.32, (0.0, 0.48), 0.0),
}
_LARGEST = 1e35  # of a value of a frame: sums of some thousands stay within float32
_MEMORY = 512 * 2**20  # bytes for a clip that is read frame by frame


@torch.no_grad()
def select_keyframes(
    frames: Tensor | str | os.PathLike[str] | Iterable[Tensor],
    onset: Index | None = None,
    apex: Index | None = None,
    offset: Index | None = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    refine: bool = False,
    onset_window: float = 0.1,
    apex_window: tuple[float, float] = (0.1, 0.0),
    offset_window: float = 0.1,
    distance: Distance = "l2",
    box: Sequence[int] | None = None,
    memory: int = _MEMORY,
) -> KeyFrames:
    """Find onset, apex and offset of each clip: near an annotation, or anywhere in the clip.

    With ``onset`` and ``apex``, the windowed search of GAMDSS around them, or with ``refine=True`` a robust one.
    Without annotation, the robust search over the whole clip.

    Args:
        frames: ``(b, t, ...)`` with t ≥ 2, ``uint8`` or floating in any range: RGB, flow fields, landmarks, embeddings.
            Work stays on their device; no gradient is recorded. Or one clip: a video file, a folder of frames, or an
            iterable of frames ``(c, h, w)``, read frame by frame within ``memory``.
        onset: annotated onset, 0-based, one number for all clips or ``(b,)``.
        apex: annotated apex, with ``onset <= apex``.
        offset: annotated offset, with ``apex <= offset``; default the last valid frame.
        lengths: ``(b,)`` valid frames of each clip of a padded batch; padding is never selected and never read.
        refine: with an annotation, search robustly around it instead of in the windows below: every key frame may move
            either way, by a quarter of the annotated movement or 8 frames, whichever is more.
        onset_window: how far the onset may move towards the apex, as a fraction of the rise.
        apex_window: how far the apex may move, (towards onset, towards offset), as fractions of rise and fall.
        offset_window: how far the offset may move towards the apex, as a fraction of the fall.
        distance: ``"l2"``, or a callable from ``(b, t, ...)`` frames to ``(b, t, t)`` distances. Without an annotation
            a callable gets a plain search instead, of the onset < apex ≤ offset that maximise
            ``d(onset, apex) + d(apex, offset)``: the robust one looks at the frames' motion.
        box: ``(x, y, width, height)`` of the face in pictures ``(..., h, w)``; :func:`face_box` finds it.
        memory: bytes that a clip may take that is read frame by frame. It changes no key frame as long as a quarter of
            it holds about 110 × 110 floats a frame (2 800 frames by default); an iterator beyond it gets a score from
            small pictures.

    Returns:
        KeyFrames of the batch. On a tie the annotation stays; when nothing moves at all, the annotation (or the first,
        middle and last frame) comes back with score 0, or with what the light alone changed.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: fewer than two frames, an annotation out of order or out of range, frames that hold NaN or
            infinity, windows outside [0, 1]; the message names the clip and the values.

    Examples:
        >>> ramp = torch.tensor([0.0, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]).view(1, -1, 1)  # rest, rise, hold, fall, rest
        >>> keys = select_keyframes(ramp)
        >>> keys.onset.item(), keys.apex.item(), keys.offset.item(), keys.score.item()
        (2, 5, 9, 3.0)

    Source: GAMDSS (arXiv 2603.04766), whose sampling ranges are the three windows.
    """
    onset_window, apex_window, offset_window = _check_windows(onset_window, apex_window, offset_window)
    _check_distance(distance)
    if refine and callable(distance):
        raise ValueError("refine must be False with a distance of your own: it looks at the frames' motion")
    windows = onset_window, apex_window, offset_window
    if not _one_by_one(frames):
        clips = check_frames(frames) if box is None else boxed(check_frames(frames), box)
        return _select(clips, (onset, apex, offset), lengths, refine, windows, distance)
    if lengths is not None:
        raise ValueError("lengths must be None for a clip that is read frame by frame")
    memory = check_count("memory", memory)
    keys = _annotation(onset, apex, offset, torch.tensor([torch.iinfo(torch.int64).max]))
    known = None if keys is None else (int(keys[0]), int(keys[1]), -1 if offset is None else int(keys[2]))

    def search(clip: Tensor) -> KeyFrames:
        return _select(check_frames(clip), (onset, apex, offset), None, refine, windows, distance)

    if not callable(distance) and (refine or keys is None):
        return stream_key_frames(frames, search, known, memory, box)
    return stream_windows(frames, search, known, windows, distance if callable(distance) else None, memory, box)


def _one_by_one(frames: object) -> TypeGuard[str | os.PathLike[str] | Iterable[Tensor]]:
    """Whether frames are read one by one: a path, an iterator, or a list of tensors ``(c, h, w)``."""
    if isinstance(frames, (list, tuple)) and len(frames):
        return isinstance(frames[0], Tensor) and frames[0].ndim <= 3
    return isinstance(frames, (str, os.PathLike, Iterable)) and not isinstance(frames, (Tensor, np.ndarray))


def _select(
    frames: Tensor,
    annotation: tuple[Index | None, Index | None, Index | None],
    lengths: Tensor | Sequence[int] | None,
    refine: bool,
    windows: Fractions,
    distance: Distance,
) -> KeyFrames:
    """The search that the settings ask for, of a batch ``(b, t, ...)``."""
    b, t = frames.shape[:2]
    counts = check_lengths(lengths, b, t).to(frames.device)
    _check_enough_frames(counts, t)
    keys = _annotation(*annotation, counts)
    if not callable(distance) and (refine or keys is None):
        return _search_robustly(frames, counts, keys)
    own = distance if callable(distance) else None
    d = frame_distances(frames, counts) if own is None else _own_distances(frames, lengths, counts, own)
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(d).all()):
        i = int((~torch.isfinite(d)).flatten(1).any(1).to(torch.uint8).argmax())
        raise not_finite(frames, counts, i)
    tolerance = tolerance_of(frames, own)
    return search_clip(d, counts, tolerance) if keys is None else search_windows(d, *keys, windows, tolerance)


class FrameSelector(nn.Module):
    """Select onset, apex and offset; the module form of :func:`select_keyframes`.

    Holds the windows and the distance, no parameters and no buffers. In GAMDSS re-selection is an augmentation of the
    *training* clips: test clips keep the human annotation.

    Args:
        onset_window: see :func:`select_keyframes`, as for the rest.
        apex_window: (towards onset, towards offset).
        offset_window: towards the apex.
        distance: ``"l2"`` or a callable.
        refine: search robustly around an annotation.

    Raises:
        TypeError: a window is not a number, or distance not a callable.
        ValueError: a window lies outside [0, 1], or the onset and apex windows overlap.

    Examples:
        >>> selector = FrameSelector.preset("late-apex")
        >>> clip = torch.tensor([0.0, 1, 2, 5, 2, 1]).view(1, 6, 1)
        >>> selector(clip, onset=0, apex=2).apex  # annotated one frame too early
        tensor([3])

    Source: GAMDSS (arXiv 2603.04766); the presets are the windows of its published experiments.
    """

    def __init__(
        self,
        *,
        onset_window: float = 0.1,
        apex_window: tuple[float, float] = (0.1, 0.0),
        offset_window: float = 0.1,
        distance: Distance = "l2",
        refine: bool = False,
    ) -> None:
        super().__init__()
        windows = _check_windows(onset_window, apex_window, offset_window)
        self.onset_window, self.apex_window, self.offset_window = windows
        _check_distance(distance)
        self.distance = distance
        self.refine = refine

    @classmethod
    def preset(cls, name: str) -> FrameSelector:
        """The windows of a published experiment.

        Args:
            name: ``"full"`` (the default windows: CASME II, SAMM, CAS(ME)³), ``"short"`` (onset and apex only),
                ``"late-apex"`` (SAMM, apex annotated too early) or ``"wide"`` (SAMM, onset and apex both moved).

        Raises:
            ValueError: there is no such preset.
        """
        check_choice("name", name, tuple(_PRESETS))
        onset_window, apex_window, offset_window = _PRESETS[name]
        return cls(onset_window=onset_window, apex_window=apex_window, offset_window=offset_window)

    def forward(
        self,
        frames: Tensor | str | os.PathLike[str] | Iterable[Tensor],
        onset: Index | None = None,
        apex: Index | None = None,
        offset: Index | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> KeyFrames:
        """Run :func:`select_keyframes` with this selector's windows and distance."""
        return select_keyframes(
            frames,
            onset,
            apex,
            offset,
            lengths=lengths,
            onset_window=self.onset_window,
            apex_window=self.apex_window,
            offset_window=self.offset_window,
            distance=self.distance,
            refine=self.refine,
        )

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        distance = self.distance if isinstance(self.distance, str) else getattr(self.distance, "__name__", "custom")
        return (
            f"onset_window={self.onset_window}, apex_window={self.apex_window}, "
            f"offset_window={self.offset_window}, distance={distance!r}" + (", refine=True" if self.refine else "")
        )


# --- the searches -----------------------------------------------------------------------------------------------


def _search_robustly(frames: Tensor, counts: Tensor, keys: tuple[Tensor, Tensor, Tensor] | None) -> KeyFrames:
    # One opaque operation in a compiled graph: what it does depends on the lengths and on the values.
    operation = _robust_operation if torch.compiler.is_compiling() else _robust
    table = counts.new_zeros(0, 3) if keys is None else torch.stack(keys, 1)
    found, score, evidence, spread = operation(frames, counts, table)
    onset, apex, offset = found.unbind(1)
    return KeyFrames(onset, apex, offset, score, evidence, spread)


def _robust(frames: Tensor, counts: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, scores = [], []
    table = keys.tolist()
    for i, n in enumerate(counts.tolist()):
        clip = frames[i, :n]
        if clip.is_floating_point():
            low, high = (float(bound) for bound in clip.aminmax())
            if not (low > -_LARGEST and high < _LARGEST):  # NaN too
                raise not_finite(frames, counts, i)
        with torch.autocast(frames.device.type, enabled=False):
            found = find_key_frames(clip, tuple(table[i]) if table else None)
        rows.append((*found[:3], found.evidence, *found.spread))
        scores.append(distance_between(clip[found.onset], clip[found.apex]))
    wide = torch.float32 if frames.device.type == "mps" else torch.float64
    numbers = torch.tensor(rows, dtype=wide, device=frames.device).view(-1, 7)
    score = torch.stack(scores) if scores else torch.zeros(0, dtype=wide, device=frames.device)
    return numbers[:, :3].long(), score, numbers[:, 3].clone(), numbers[:, 4:].clone()


_robust_operation = torch.library.custom_op("mertools::robust_key_frames", _robust, mutates_args=())


@_robust_operation.register_fake
def _(frames: Tensor, counts: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b = frames.shape[0]
    wide = torch.float32 if frames.device.type == "mps" else torch.float64
    one, three = frames.new_empty(b, dtype=wide), frames.new_empty(b, 3, dtype=wide)
    return frames.new_empty(b, 3, dtype=torch.int64), one, one.clone(), three


# --- what may be passed in ------------------------------------------------------------------------------------------


def _own_distances(frames: Tensor, lengths: object, counts: Tensor, distance: Callable[[Tensor], Tensor]) -> Tensor:
    b, t = frames.shape[:2]
    d = distance(frames)
    if not isinstance(d, Tensor) or d.shape != (b, t, t) or not d.is_floating_point():
        got = f"{d.dtype} {tuple(d.shape)}" if isinstance(d, Tensor) else type(d).__name__
        raise ValueError(f"distance must return floating ({b}, {t}, {t}) for these frames, got {got}")
    if lengths is not None:
        real = valid_mask(counts, t, d.device)
        d = torch.where(real[:, :, None] & real[:, None, :], d, 0)
    return d


def _check_distance(distance: object) -> None:
    if not callable(distance) and not (isinstance(distance, str) and distance == "l2"):
        kind = ValueError if isinstance(distance, str) else TypeError
        raise kind(f"distance must be 'l2' or a callable (b, t, ...) -> (b, t, t), got {distance!r}")


def not_finite(frames: Tensor, counts: Tensor, i: int) -> ValueError:
    """What is wrong with clip ``i``, whose frames or their distances hold NaN or infinity."""
    clip = frames[i, : int(counts[i])].flatten(1)
    bad = (~torch.isfinite(clip)).any(1).nonzero().flatten().tolist() if clip.is_floating_point() else []
    if not bad:
        return ValueError(
            f"frames must have differences whose squares are finite, those of clip {i} are too large: scale them down"
        )
    shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
    value = clip[bad[0]][~torch.isfinite(clip[bad[0]])][0].item()
    return ValueError(
        f"frames must be finite, got {value} in clip {i} at frame {shown}: "
        "drop or repair these frames, or leave padding out with lengths"
    )


def _check_windows(onset_window: float, apex_window: tuple[float, float], offset_window: float) -> Fractions:
    """The windows as Python's numbers."""
    if not isinstance(apex_window, (tuple, list)) or len(apex_window) != 2:
        raise TypeError(f"apex_window must be (towards onset, towards offset), two fractions, got {apex_window!r}")
    on, before, after, off = (
        check_number(name, value, 0, 1)
        for name, value in (
            ("onset_window", onset_window), ("apex_window[0]", apex_window[0]), ("apex_window[1]", apex_window[1]),
            ("offset_window", offset_window),
        )
    )  # fmt: skip
    for names, first, second in (
        ("onset_window + apex_window[0]", on, before),
        ("apex_window[1] + offset_window", after, off),
    ):
        if first + second > 1:
            raise ValueError(f"{names} must be at most 1 so that the windows do not cross, got {first} + {second}")
    return on, (before, after), off


def _check_enough_frames(counts: Tensor, t: int) -> None:
    if t < 2:
        raise ValueError(f"frames must hold at least 2 frames per clip, got t={t} (clip 0 and every other)")
    if torch.compiler.is_compiling():
        return
    for i, n in enumerate(counts.tolist()):
        if n < 2:
            raise ValueError(f"lengths must be at least 2, a clip needs two frames; got {n} for clip {i}")


def _annotation(
    onset: Index | None, apex: Index | None, offset: Index | None, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The annotation as three checked ``(b,)`` tensors, or None when there is none."""
    if onset is None and apex is None and offset is None:
        return None
    if onset is None or apex is None:
        missing = "onset" if onset is None else "apex"
        raise ValueError(
            f"{missing} must be given with the rest of the annotation: pass onset and apex (offset is optional), "
            "or none of them to search the whole clip"
        )
    first, peak = _positions("onset", onset, counts), _positions("apex", apex, counts)
    end = counts - 1 if offset is None else _positions("offset", offset, counts)
    if not torch.compiler.is_compiling():
        fine = (first >= 0) & (first <= peak) & (peak <= end) & (end < counts)
        if not bool(fine.all()):
            i = int((~fine).to(torch.uint8).argmax())
            o, a, k, n = (int(x[i]) for x in (first, peak, end, counts))
            problem = "out of range" if min(o, a, k) < 0 or max(o, a, k) >= n else "out of order"
            raise ValueError(
                f"onset, apex, offset of clip {i} are {problem}: got {o}, {a}, {k} in a clip of {n} frames; "
                f"expected 0 <= onset <= apex <= offset <= {n - 1} (0-based positions, not file numbers)"
            )
    return first, peak, end


def _positions(name: str, value: Index, counts: Tensor) -> Tensor:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int or a (b,) integer tensor, got {value!r}")
    try:
        tensor = torch.as_tensor(value, device=counts.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an int or a (b,) integer tensor, got {value!r}") from error
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be an int or a (b,) integer tensor, got {tensor.dtype}")
    b = counts.shape[0]
    if tensor.ndim == 0:
        return tensor.long().expand(b)
    if tensor.shape != (b,):
        raise ValueError(f"{name} must be a number or ({b},), one per clip, got shape {tuple(tensor.shape)}")
    return tensor.long()
