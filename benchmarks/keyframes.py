"""How far the key frames that are found lie from the true ones, and what finding them costs.

python -m benchmarks.keyframes [--quick] [--clips N] [--workers N]
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import mertools as mt

# Grace Hopper's official portrait (US Navy, public domain), part of matplotlib's sample data, and where its eyes are.
HOPPER_EYES = ((225.0, 190.0), (306.0, 186.0))
MOVEMENTS = ("smile", "brow-raise", "brow-lower")
CONDITIONS = (
    "clean", "noisy", "weak", "JPEG", "jitter", "drift", "flicker", "one blink", "two blinks", "nod", "all together",
)  # fmt: skip


def draw_clip(condition: str, number: int) -> mt.SyntheticClip:
    """A clip of a condition: another face crop, movement, timing and strength for every number, the same every time."""
    random = torch.Generator().manual_seed(1000 * number + 17)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=random))

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    portrait, eyes = draw_face(number, uniform)
    size = (128, 160, 192, 224)[whole(0, 3)]
    movement = MOVEMENTS[number % 3]
    # Timing by rejection: at least five frames of rest on either side.
    while True:
        t, rise, hold, fall = whole(50, 200), whole(8, 25), whole(0, 10), whole(10, 30)
        if rise + hold + fall + 10 < t:
            break
    onset = whole(5, t - 6 - rise - hold - fall)
    apex, offset = onset + rise, onset + rise + hold + fall
    amplitude, weak = uniform(0.8, 3.0), uniform(0.8, 1.2)
    blinks = sorted(whole(0, t - 11) for _ in range(2))
    settings: dict[str, dict[str, object]] = {
        "clean": {},
        "noisy": {"noise": 4.0},
        "weak": {"amplitude": weak},
        "JPEG": {"jpeg": whole(60, 80)},
        "jitter": {"jitter": 0.15},
        "drift": {"drift": uniform(1.0, 3.0)},
        "flicker": {"flicker": 0.01},
        "one blink": {"blink": blinks[0], "blink_frames": whole(6, 10)},
        "two blinks": {"blink": blinks, "blink_frames": whole(6, 10)},
        "nod": {"nod": uniform(1.0, 2.0)},
    }
    chosen = settings.get(condition, {})
    if condition == "all together":
        chosen = {name: value for each in settings.values() for name, value in each.items() if name != "amplitude"}
    made = {"amplitude": amplitude, "hold": hold, "movement": movement, "seed": number} | chosen
    return mt.synthetic_clip(
        portrait, eyes=eyes, num_frames=t, onset=onset, apex=apex, offset=offset, size=size, **made
    )  # type: ignore[arg-type]


def draw_face(
    number: int, uniform: Callable[[float, float], float]
) -> tuple[Tensor, tuple[tuple[float, float], tuple[float, float]]]:
    """A portrait, a photograph's or the drawn one, and a crop of it: shifted, turned, nearer or farther, mirrored."""
    if number % 4 == 3:
        portrait, (left, right) = mt.drawn_portrait(320), ((106.7, 112.0), (213.3, 112.0))
    else:
        portrait, (left, right) = hopper(), HOPPER_EYES
    x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    half = math.dist(left, right) / 2 * uniform(0.88, 1.15)
    x, y = x + uniform(-0.15, 0.15) * half, y + uniform(-0.15, 0.15) * half
    angle = math.atan2(right[1] - left[1], right[0] - left[0]) + math.radians(uniform(-5, 5))
    if uniform(0, 1) < 0.5:
        portrait, x, angle = portrait.flip(2), portrait.shape[2] - x, -angle
    dx, dy = half * math.cos(angle), half * math.sin(angle)
    return portrait, ((x - dx, y - dy), (x + dx, y + dy))


def hopper() -> Tensor:
    """The portrait ``(3, h, w)`` uint8 RGB."""
    from matplotlib.cbook import get_sample_data
    from matplotlib.image import imread

    image = imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return torch.tensor(image).permute(2, 0, 1).contiguous()
