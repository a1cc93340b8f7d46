"""Definitions written out as loops, to hold what is quick against; and strategies for clips that several files draw."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# onset_window, apex_window before and after, offset_window
PRESETS = {
    "full": (0.1, 0.1, 0.0, 0.1),
    "short": (0.0375, 0.0375, 0.0, 0.0),
    "late-apex": (0.0, 0.0, 0.52, 0.0),
    "wide": (0.32, 0.0, 0.48, 0.0),
}


def norm(clip, i, j):
    return np.linalg.norm(clip[i].astype(np.float64).ravel() - clip[j].astype(np.float64).ravel())


def brute_windows(clip, on, ap, off, windows):
    """The search of REFERENCE written out: a double loop over the grid, float64 distances."""
    w_on, w_before, w_after, w_off = windows
    rise, fall = ap - on, off - ap
    best, pair = norm(clip, on, ap), (on, ap)
    for o in range(on, on + int(w_on * rise) + 1):
        for a in range(ap - int(w_before * rise), ap + int(w_after * fall) + 1):
            d = norm(clip, o, a)
            if d > best:
                best, pair = d, (o, a)
    end, reach = off, norm(clip, pair[1], off)
    for k in range(off - int(w_off * fall), off + 1):
        d = norm(clip, pair[1], k)
        if d > reach:
            reach, end = d, k
    return (*pair, end)


def brute_clip(clip):
    t = len(clip)
    best, keys = -1.0, None
    for o in range(t):
        for a in range(o + 1, t):
            for k in range(a, t):
                d = norm(clip, o, a) + norm(clip, a, k)
                if d > best:
                    best, keys = d, (o, a, k)
    return keys


def as_tuples(keys):
    return list(zip(keys.onset.tolist(), keys.apex.tolist(), keys.offset.tolist(), strict=True))


def clips(*, low=0, high=255, frames=(2, 12), values=(1, 6), dtype=np.uint8):
    """One clip ``(t, p)`` of whole numbers; ties and repeated frames come of themselves in a small range."""
    shape = st.tuples(st.integers(*frames), st.integers(*values))
    elements = st.integers(low, high)
    return shape.flatmap(lambda shape: arrays(dtype, shape, elements=elements)).map(torch.from_numpy)
