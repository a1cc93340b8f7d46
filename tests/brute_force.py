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


def naive_retention(layer, x, causal=True):
    """REFERENCE §4 written out, weights to output: explicit D over the root of its row sums, complex rotation."""
    n, dk = layer.num_heads, layer.dim // layer.num_heads
    b, t, _ = x.shape
    weights = layer.in_proj.weight.split([layer.dim, layer.dim, layer.value_dim] + [layer.value_dim] * layer.gate)
    q, k, v, *gate = ((x @ w.T).view(b, t, n, len(w) // n).transpose(1, 2) for w in weights)
    q = q / dk**0.5
    step = torch.arange(t, dtype=x.dtype)
    if layer.rotary:
        angle = 10000.0 ** -torch.linspace(0, 1, dk // 2, dtype=x.dtype)
        turn = torch.polar(torch.ones((), dtype=x.dtype), step[:, None] * angle)
        q, k = (torch.view_as_complex(y.reshape(b, n, t, dk // 2, 2).contiguous()) * turn for y in (q, k))
        scores = (q @ k.conj().mT).real
    else:
        scores = q @ k.mT
    apart = step[:, None] - step
    gamma = layer.log_decay.exp() if layer.log_decay is not None else layer.decay_logit.sigmoid()
    mask = gamma.to(x.dtype)[:, None, None] ** apart.abs()
    mask = mask * (apart >= 0) if causal else mask
    y = (scores * mask / mask.sum(-1, keepdim=True).sqrt()) @ v  # as torchscale does; the RMS takes it out again
    y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    if gate:
        y = y * torch.nn.functional.silu(gate[0])
    return y.transpose(1, 2).reshape(b, t, layer.value_dim) @ layer.out_proj.weight.T


def as_tuples(keys):
    return list(zip(keys.onset.tolist(), keys.apex.tolist(), keys.offset.tolist(), strict=True))


def clips(*, low=0, high=255, frames=(2, 12), values=(1, 6), dtype=np.uint8):
    """One clip ``(t, p)`` of whole numbers; ties and repeated frames come of themselves in a small range."""
    shape = st.tuples(st.integers(*frames), st.integers(*values))
    elements = st.integers(low, high)
    return shape.flatmap(lambda shape: arrays(dtype, shape, elements=elements)).map(torch.from_numpy)
