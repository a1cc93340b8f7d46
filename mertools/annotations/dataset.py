"""Annotated clips as a ``torch.utils.data.Dataset``: key frames or whole clips, as GAMDSS trains and tests on them.

In training the key frames are re-selected near the annotation by a :class:`FrameSelector` and all frames of a clip are
augmented alike; in evaluation the human annotation stays and nothing is augmented. What a sample looks like depends on
the seed, the epoch and its index, never on which worker makes it or in which order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from mertools._checks import as_integer, check_choice, check_count, check_number
from mertools.annotations.annotation import ClipAnnotation
from mertools.annotations.folders import FrameFolder, FrameFolders, Frames
from mertools.annotations.protocols import ProtocolClips
from mertools.annotations.schemas import clip_key
from mertools.clips.augment import ClipAugment, Geometry, normalise, transform_clip
from mertools.clips.flow import optical_flow, optical_strain
from mertools.clips.read import decode_frames, frame_shape
from mertools.clips.resample import ResampleMode, resample_clip
from mertools.keyframes.selector import FrameSelector

__all__ = ["ClipDataset"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MOTIONS = ("flow", "strain")
_RESELECT = ("training", "always", "never")
_SELECTOR, _AUGMENT = FrameSelector(), ClipAugment()  # the published ones; neither has a state


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of a protocol, ready for a model.

    A sample is a dict: ``target`` and ``index`` (ints), and

    - ``onset``, ``apex``, ``offset``: ``(3, h, w)`` float32 each; or with ``num_frames``, ``frames``: ``(t, 3, h, w)``
      from onset to offset (the whole folder for clips without key frames).
    - with ``motion="flow"``, ``motion``: ``(2, h, w)``, flow from onset to apex in pixels; with ``motion="strain"``,
      ``(3, h, w)``: u, v and the optical strain. Of the augmented frames; with ``num_frames``, of each frame against
      the first: ``(t, 2 or 3, h, w)``.

    ``targets``, ``classes`` and ``subjects`` (the groups of leave-one-subject-out) are lists in the order of the clips.

    Args:
        clips: what :func:`apply_protocol` made of a table. A clip without the key frames that are needed, or whose
            frames are missing, is an error that names the table's row.
        frames: the folder with the frames of all clips, or a mapping from dataset to folder.
        training: re-select and augment; False: human annotation, no augmentation.
        num_frames: t frames of each clip instead of its key frames.
        mode: how clips are resampled to ``num_frames``, see :func:`resample_clip`.
        size: ``(height, width)`` of the frames, or one number for a square.
        selector: what re-selects; None keeps the annotation. Clips whose ``reselect`` is False are left alone.
        reselect: ``"training"``, as published; ``"always"``: in evaluation too (no label is looked at); or ``"never"``.
        leave_alone: further clips to leave alone, by ``(subject, clip)``.
        augment: for training; None for none.
        motion: None, ``"flow"`` or ``"strain"``.
        mean: per channel (RGB, of values in [0, 1]); default ImageNet's.
        std: the same, positive.
        cache_bytes: how many bytes of decoded frames to keep in memory, shared out evenly among a loader's workers; the
            frames not used for longest go first. 0 keeps none.
        seed: of the augmentation.

    Examples:
        >>> import tempfile
        >>> from mertools import apply_protocol, read_annotations, synthetic_dataset
        >>> made = synthetic_dataset(tempfile.mkdtemp(), subjects=2, clips=1, size=48, num_frames=32)
        >>> clips = apply_protocol(read_annotations(made.table, made.dataset), "casme2-5")
        >>> sample = ClipDataset(clips, made.frames, training=True, size=40, motion="strain")[0]
        >>> sample["apex"].shape, sample["motion"].shape, sample["target"]
        (torch.Size([3, 40, 40]), torch.Size([3, 40, 40]), 0)

    Source: training and test protocol of GAMDSS (arXiv 2603.04766), augmentation of TSFmicro (arXiv 2505.16372).
    """

    def __init__(
        self,
        clips: ProtocolClips,
        frames: Frames | FrameFolders,
        *,
        training: bool,
        num_frames: int | None = None,
        mode: ResampleMode = "linear",
        size: int | tuple[int, int] = 224,
        selector: FrameSelector | None = _SELECTOR,
        reselect: str = "training",
        leave_alone: Iterable[tuple[str, str]] = (),
        augment: ClipAugment | None = _AUGMENT,
        motion: str | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        cache_bytes: int = 1 << 30,
        seed: int = 0,
    ) -> None:
        if not isinstance(clips, ProtocolClips):
            raise TypeError(f"clips must be what apply_protocol returns, got {type(clips).__name__}")
        self.num_frames = None if num_frames is None else check_count("num_frames", num_frames)
        if motion is not None:
            check_choice("motion", motion, _MOTIONS)
        check_choice("mode", mode, ("nearest", "linear", "cubic", "tim"))
        check_choice("reselect", reselect, _RESELECT)
        budget = int(check_number("cache_bytes", cache_bytes, 0))
        self.clips, self.targets, self.classes = clips.clips, clips.targets, clips.classes
        self.subjects = clips.subjects
        self.training = training
        self.mode: ResampleMode = mode
        self.size = frame_shape(size)
        self.selector = selector if reselect == "always" or (training and reselect == "training") else None
        self.augment = augment if training else None
        self.motion = motion
        self.mean, self.std = _channels("mean", mean), _channels("std", std)
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, got {std}")
        self.seed = check_count("seed", seed, least=0)
        self._cache = _FrameCache(budget, self.size)
        alone = {clip_key(subject, clip) for subject, clip in leave_alone}
        folders = frames if isinstance(frames, FrameFolders) else FrameFolders(frames)
        self._folders = [folders.find(clip) for clip in self.clips]
        self._keys = [_positions(c, f, num_frames) for c, f in zip(self.clips, self._folders, strict=True)]
        self._alone = [not clip.reselect or clip_key(clip.subject, clip.clip) in alone for clip in self.clips]
        for i, clip in enumerate(self.clips):
            start, stop = self._span(i)
            if self._reselects(i) and stop - start < 2:
                raise ValueError(
                    f"{clip.place} ({clip.name}): onset and offset are the same frame, {clip.onset}: there is nothing "
                    "to re-select in one frame. Drop the row, or leave the clip alone (leave_alone=, reselect='never')"
                )
        # Shared with the workers of a loader, persistent ones too: what one of them has selected the others know, and
        # all of them hear of a new epoch. Columns: known, onset, apex, offset.
        self._selected = _shared(len(self.clips), 4)
        self._epoch = _shared()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        n, place = len(self.clips), as_integer(index)
        if place is None:
            raise TypeError(f"index must be an integer, got {index!r}")
        if not -n <= place < n:
            raise IndexError(f"index must lie within the {n} clips, got {place}")
        index = place % n
        onset, apex, offset = self.key_positions(index)
        generator = torch.Generator().manual_seed(_mix(self.seed, int(self._epoch), index))
        geometry = self.augment.draw(generator) if self.augment is not None else Geometry()
        sample: dict[str, Any] = {"target": self.targets[index], "index": index}
        if self.num_frames is None:
            clip = self._load(index, [onset, apex, offset], geometry)
            sample |= dict(zip(("onset", "apex", "offset"), normalise(clip, self.mean, self.std), strict=True))
            if self.motion is not None:
                sample["motion"] = self._motion(clip[0], clip[1])
            return sample
        clip = self._load(index, list(range(onset, offset + 1)), geometry)
        whole = resample_clip(torch.from_numpy(np.ascontiguousarray(clip)), self.num_frames, mode=self.mode)
        clip = whole.numpy()
        sample["frames"] = normalise(clip, self.mean, self.std)
        if self.motion is not None:
            sample["motion"] = torch.stack([self._motion(clip[0], frame) for frame in clip])
        return sample

    @property
    def epoch(self) -> int:
        """The epoch that the augmentation is drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from here on; call it before each epoch, also with persistent workers."""
        self._epoch.fill_(check_count("epoch", epoch, least=0))

    def key_positions(self, index: int) -> tuple[int, int, int]:
        """Onset, apex and offset of a clip as positions in its folder, re-selected where that is wanted."""
        keys = self._keys[index]
        if not self._reselects(index):
            return keys
        known, *row = self._selected[index].tolist()
        if not known:
            row = self._select(index, keys)
            self._selected[index, 1:] = torch.tensor(row)
            self._selected[index, 0] = 1  # last: another worker must not read half a row
        return row[0], row[1], row[2]

    def _reselects(self, index: int) -> bool:
        return self.selector is not None and not self._alone[index] and self.clips[index].onset is not None

    def _span(self, index: int) -> tuple[int, int]:
        """First and last (not included) position of the frames that a clip's key frames are re-selected in."""
        start, stop = self._keys[index][0], self._keys[index][2] + 1
        if self.selector is not None and self.selector.refine:  # it looks at the rest around the movement, too
            more = max(16, (stop - start) // 2)
            start, stop = max(start - more, 0), min(stop + more, len(self._folders[index].numbers))
        return start, stop

    def _select(self, index: int, keys: tuple[int, int, int]) -> list[int]:
        assert self.selector is not None
        start, stop = self._span(index)
        clip = self._load(index, list(range(start, stop)), Geometry())
        frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)[None]
        found = self.selector(frames, *(key - start for key in keys))
        return [int(key) + start for key in found[:3]]

    def _load(self, index: int, positions: list[int], geometry: Geometry) -> np.ndarray:
        frames = self._cache.frames(index, self._folders[index], positions)
        return transform_clip(frames, geometry)

    def _motion(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        a, b = (torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1) for frame in (first, second))
        flow = optical_flow(a, b)
        return flow if self.motion == "flow" else torch.cat([flow, optical_strain(flow)[None]])


class _FrameCache:
    """Decoded frames within a budget of bytes, the ones not used for longest dropped first."""

    def __init__(self, budget: int, size: tuple[int, int]) -> None:
        self.budget, self.size = budget, size
        self.used = 0
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def frames(self, index: int, folder: FrameFolder, positions: Sequence[int]) -> np.ndarray:
        """Frames ``(t, h, w, 3)`` uint8 RGB of the clip ``index``."""
        missing = [p for p in dict.fromkeys(positions) if (index, p) not in self._kept]
        fresh: dict[int, np.ndarray] = {}
        if missing:
            decoded = decode_frames([f"{folder.path}/{folder.names[p]}" for p in missing], size=self.size)
            fresh = dict(zip(missing, decoded[..., ::-1], strict=True))
        found = []
        for p in positions:
            if p in fresh:
                found.append(fresh[p])
            else:
                self._kept.move_to_end((index, p))
                found.append(self._kept[index, p])
        clip = np.stack(found)
        for p, frame in fresh.items():
            self._keep((index, p), frame)
        return clip

    def _keep(self, key: tuple[int, int], frame: np.ndarray) -> None:
        worker = get_worker_info()
        budget = self.budget // (worker.num_workers if worker is not None else 1)
        if frame.nbytes > budget:
            return
        self._kept[key] = frame.copy()  # its own memory: a view would keep the whole clip alive
        self.used += frame.nbytes
        while self.used > budget:
            _, dropped = self._kept.popitem(last=False)
            self.used -= dropped.nbytes

    def __getstate__(self) -> dict[str, Any]:
        return {"budget": self.budget, "size": self.size, "used": 0, "_kept": OrderedDict()}


def _positions(clip: ClipAnnotation, folder: FrameFolder, num_frames: int | None) -> tuple[int, int, int]:
    if clip.onset is None and clip.offset is None and num_frames is not None:
        last = len(folder.numbers) - 1
        return 0, last // 2, last
    missing = [name for name in ("onset", "apex", "offset") if getattr(clip, name) is None]
    if num_frames is not None and "apex" in missing:
        missing.remove("apex")
    if missing or clip.onset is None or clip.offset is None:
        hint = "repair='apex-midpoint'" if missing == ["apex"] else "num_frames= takes clips without key frames"
        raise ValueError(f"{clip.place} ({clip.name}): {' and '.join(missing)} missing: {hint}, or drop the row")
    apex = (clip.onset + clip.offset) // 2 if clip.apex is None else clip.apex
    if not clip.onset <= apex <= clip.offset:
        raise ValueError(
            f"{clip.place} ({clip.name}): onset {clip.onset}, apex {apex}, offset {clip.offset} are out of order: "
            "repair or drop the row (read_annotations(..., repair=...))"
        )
    try:
        onset, offset = folder.position(clip.onset), folder.position(clip.offset)
        return onset, (onset + offset) // 2 if clip.apex is None else folder.position(apex), offset
    except ValueError as error:
        raise ValueError(f"{clip.place} ({clip.name}): {error}") from None


def _shared(*shape: int) -> Tensor:
    numbers: Tensor = torch.zeros(shape, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
    return numbers


def _channels(name: str, values: Sequence[float]) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if tensor.shape != (3,):
        raise ValueError(f"{name} must be three numbers, one per channel, got {values!r}")
    return tensor


def _mix(*numbers: int) -> int:
    """One seed out of several numbers, without the patterns of a sum."""
    return int(np.random.SeedSequence([number % (1 << 63) for number in numbers]).generate_state(2, np.uint32)[0])
