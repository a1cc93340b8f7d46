"""A small dataset of synthetic clips, laid out like a published one: table, folders of frames, several subjects.

Each subject is the drawn portrait in another shape, skin and light; each clip one of three movements at a time of its
own, with sensor noise, an unsteady registration, and here and there a blink.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mertools._checks import check_choice, check_count, check_number
from mertools._files import atomic_folder
from mertools._text import csv_text
from mertools.clips.synthetic import SyntheticClip, drawn_portrait, synthetic_clip

__all__ = ["SyntheticDataset", "synthetic_dataset"]

# movement: action units, label in CASME II, label in DFEW
_EXPRESSIONS = {
    "smile": ("12", "happiness", "1"),
    "brow-lower": ("4", "disgust", "4"),
    "brow-raise": ("1+2", "surprise", "5"),
}
_FOLDS = 5  # DFEW's


class SyntheticDataset(NamedTuple):
    """Where the parts of a synthetic dataset lie.

    ``table`` is the annotation table, or the folder of the lists; ``frames`` the folder with all frames; ``dataset``
    the name to read the table with.

    Examples:
        >>> SyntheticDataset(Path("ours/annotations.csv"), Path("ours/frames"), "casme2").dataset
        'casme2'
    """

    table: Path
    frames: Path
    dataset: str


def synthetic_dataset(
    root: str | Path,
    *,
    layout: str = "casme2",
    subjects: int = 8,
    clips: int = 3,
    size: int = 64,
    num_frames: int = 48,
    amplitude: float = 1.0,
    noise: float = 2.0,
    jitter: float = 0.1,
    seed: int = 0,
) -> SyntheticDataset:
    """Write a synthetic dataset of three expressions with known key frames, as frames and an annotation table.

    The expressions are a smile (happiness, AU12), lowered brows (disgust, in DFEW's layout angry; AU4) and raised brows
    (surprise, AU1+2).

    Args:
        root: folder to make; it must not be there yet, or be empty.
        layout: ``"casme2"``: ``annotations.csv`` and ``frames/sub01/EP01_01/img1.png``, key frames to the frame;
            ``"dfew"``: the lists of five folds and ``Clip/00001/1.png``, no subject in two test folds.
        subjects: how many synthetic subjects.
        clips: clips of each expression per subject.
        size: side of the square frames, in pixels.
        num_frames: frames of a clip, at least 32.
        amplitude: the largest displacement is drawn from 0.6 to 1.4 times this, in hundredths of the frame's side.
        noise: standard deviation of the sensor noise, in grey levels.
        jitter: standard deviation of the registration's error, in hundredths of the frame's side.
        seed: of everything that is drawn.

    Examples:
        >>> from mertools import apply_protocol, read_annotations
        >>> import tempfile
        >>> synthetic = synthetic_dataset(tempfile.mkdtemp(), subjects=2, clips=1, size=32, num_frames=32)
        >>> table = read_annotations(synthetic.table, synthetic.dataset)
        >>> apply_protocol(table, "megc2019").counts
        {'negative': 2, 'positive': 2, 'surprise': 2}
    """
    check_choice("layout", layout, ("casme2", "dfew"))
    subjects = check_count("subjects", subjects, least=2 if layout == "casme2" else _FOLDS)
    clips, size = check_count("clips", clips), check_count("size", size, least=16)
    num_frames, seed = check_count("num_frames", num_frames, least=32), check_count("seed", seed, least=0)
    amplitude, noise = check_number("amplitude", amplitude, 0), check_number("noise", noise, 0)
    jitter = check_number("jitter", jitter, 0)
    target = Path(root)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"root must be a new or empty folder, {target} holds something")
    with atomic_folder(target) as building:
        rows: list[tuple[int, int, str, SyntheticClip]] = []
        for subject in range(1, subjects + 1):
            portrait = _someone(np.random.default_rng([seed, subject]))
            for number, movement in enumerate(m for m in _EXPRESSIONS for _ in range(clips)):
                draw = np.random.default_rng([seed, subject, number + 1])
                clip = _act(portrait, movement, draw, size, num_frames, amplitude, noise, jitter)
                place = (
                    f"frames/sub{subject:02}/EP{number // clips + 1:02}_{number % clips + 1:02}/img"
                    if layout == "casme2"
                    else f"Clip/{len(rows) + 1:05}/"
                )
                _write_frames(clip.frames, building, place)
                rows.append((subject, number, movement, clip))
        where = (_casme2_table if layout == "casme2" else _dfew_lists)(building, rows, clips)
    return SyntheticDataset(target / where.table, target / where.frames, layout)


def _someone(draw: np.random.Generator) -> Tensor:
    """A portrait of another synthetic subject: the drawn face in another shape, colour, light and skin."""
    side = 192
    face = drawn_portrait(side)[None].float()
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bends = torch.from_numpy(draw.normal(0, 0.035, (1, 2, 4, 4))).float()
    bend = F.interpolate(bends, size=(side, side), mode="bicubic", align_corners=True)[0]
    wide, tall = (float(value) for value in draw.uniform(0.92, 1.1, 2))
    grid = torch.stack((x * wide + bend[0], (y + 0.3) * tall - 0.3 + bend[1]), -1)[None]
    face = F.grid_sample(face, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = torch.from_numpy(draw.uniform(0.75, 1.1) * draw.uniform(0.92, 1.08, (1, 3, 1, 1))).float()
    light = torch.from_numpy(draw.uniform(-0.15, 0.15, 2)).float()
    shade = 1 + light[0] * x + light[1] * y
    skin = torch.from_numpy(draw.normal(0, 6, (1, 1, side // 3, side // 3))).float()
    texture = F.interpolate(skin, size=(side, side), mode="bicubic", align_corners=False)
    return (face * gain * shade + texture).round().clamp(0, 255).to(torch.uint8)[0]


def _act(
    portrait: Tensor,
    movement: str,
    draw: np.random.Generator,
    size: int,
    num_frames: int,
    amplitude: float,
    noise: float,
    jitter: float,
) -> SyntheticClip:
    """One clip: the movement's times, strength and disturbances are drawn."""
    onset = int(draw.integers(4, num_frames // 4))
    apex = onset + int(draw.integers(6, num_frames // 4))
    hold = int(draw.integers(0, 3))
    offset = min(apex + hold + int(draw.integers(6, num_frames // 4)), num_frames - 2)
    return synthetic_clip(
        portrait, num_frames=num_frames, onset=onset, apex=apex, offset=offset, hold=hold, movement=movement,
        amplitude=amplitude * size / 100 * float(draw.uniform(0.6, 1.4)), size=size, noise=noise,
        jitter=jitter * size / 100, flicker=0.005, blink=int(draw.integers(0, num_frames)) if draw.random() < 0.3
        else None, seed=int(draw.integers(0, 2**31)),
    )  # fmt: skip


def _write_frames(frames: Tensor, root: Path, place: str) -> None:
    """Write frames as ``<place>1.png`` and so on."""
    import cv2

    Path(f"{root}/{place}1.png").parent.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(frames.permute(0, 2, 3, 1).numpy(), start=1):
        # Not by cv2.imwrite, which does not notice a disk that is full.
        data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1]
        Path(f"{root}/{place}{number}.png").write_bytes(data.tobytes())


def _casme2_table(root: Path, rows: list[tuple[int, int, str, SyntheticClip]], clips: int) -> SyntheticDataset:
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")
    table: list[tuple[Any, ...]] = [header]
    for subject, number, movement, clip in rows:
        units, label, _ = _EXPRESSIONS[movement]
        name = f"EP{number // clips + 1:02}_{number % clips + 1:02}"
        table.append((f"{subject:02}", name, clip.onset + 1, clip.apex + 1, clip.offset + 1, units, label))
    (root / "annotations.csv").write_text(csv_text(table))
    return SyntheticDataset(Path("annotations.csv"), Path("frames"), "casme2")


def _dfew_lists(root: Path, rows: list[tuple[int, int, str, SyntheticClip]], clips: int) -> SyntheticDataset:
    for fold in range(_FOLDS):
        for split in ("train", "test"):
            table: list[tuple[Any, ...]] = [("video_name", "label")]
            for clip, (subject, _, movement, _) in enumerate(rows, start=1):
                if (subject % _FOLDS == fold) == (split == "test"):
                    table.append((f"{clip:05}", _EXPRESSIONS[movement][2]))
            folder = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"set_{fold + 1}.csv").write_text(csv_text(table))
    return SyntheticDataset(Path("EmoLabel_DataSplit"), Path("Clip"), "dfew")
