"""A smooth trapezoid fitted to a signal: rest, a rise, a hold, a fall, rest.

For given levels of rest and of full extent the squared error is a sum over the parts, so that the best of all
onset < apex ≤ end < offset is found without trying every four of them: the best rise that ends at each frame, the best
fall that starts at each, and the best pair of the two with a hold between them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_LONGEST = 64  # frames of a rise or fall that are tried, or a quarter of a longer clip
_TOGETHER = 256  # frames of a clip whose levels are tried at once
_GROWTH = 1.15  # from one length tried to the next
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COARSE, _OPEN = 24, 1e6  # steps of a clip that starts are tried at; a fall that never comes


class Cut(NamedTuple):
    """Where a trapezoid's parts meet: the last frame at rest, the first and last of full extent, the first at rest."""

    onset: Tensor
    apex: Tensor
    end: Tensor
    offset: Tensor


class Profiles(NamedTuple):
    """Least error ``(s, t)`` with a corner in each frame."""

    onset: Tensor
    apex: Tensor
    end: Tensor
    offset: Tensor


class Windows(NamedTuple):
    """First and last frame in which each key frame may lie."""

    onset: tuple[int, int]
    apex: tuple[int, int]
    offset: tuple[int, int]


def trapezoid(cut: Cut, t: int) -> Tensor:
    """Extent 0 to 1 in each of ``t`` frames; an offset beyond the last frame is a movement that is still held there."""
    onset, apex, end, offset = (key.unsqueeze(-1) for key in cut)
    frame = torch.arange(t, dtype=torch.float32, device=onset.device)
    rise = _smooth_step((frame - onset) / (apex - onset))
    fall = _smooth_step((offset - frame) / (offset - end).clamp(min=1))
    return torch.minimum(rise, torch.where(offset >= t, 1.0, fall))


def _smooth_step(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def coarse_shapes(t: int, device: torch.device, windows: Windows | None) -> Tensor:
    """Trapezoids ``(n, t)`` on a coarse grid: where they rise and fall, steeply or slowly, and held to the end."""
    step = max(1.0, t / _COARSE)
    middles = torch.arange(step / 2, t - 1, step, dtype=torch.float32, device=device)
    i, j = torch.triu_indices(len(middles), len(middles) + 1, 1, device=device)
    rise, fall = middles[i], torch.cat((middles, middles.new_tensor([_OPEN])))[j]
    cuts = []
    steep, slow = min(4.0, t / 6), max(min(8.0, t / 3), t / 8)
    for up in (steep, slow):
        for down in (steep, slow):
            onset, apex, end, offset = rise - up / 2, rise + up / 2, fall - down / 2, fall + down / 2
            middle = (apex + end) / 2
            crossed = apex > end
            fits = torch.where(crossed, torch.minimum(middle - onset, offset - middle) >= steep / 4, True)
            fits &= (fall < _OPEN) | (down == steep)
            if windows is not None:
                near = (rise > windows.onset[0] - step) & (rise < windows.apex[1] + step)
                fits &= near & ((fall == _OPEN) | (fall > windows.apex[0] - step) & (fall < windows.offset[1] + step))
            cuts.append(
                torch.stack((onset, torch.where(crossed, middle, apex), torch.where(crossed, middle, end), offset))[
                    :, fits
                ]
            )
    onset, apex, end, offset = torch.cat(cuts, 1).unsqueeze(-1)
    frame = torch.arange(t, dtype=torch.float32, device=device)
    rising = _smooth_step((frame - onset) / (apex - onset))
    return torch.minimum(rising, _smooth_step((offset - frame) / (offset - end)))


class TrapezoidFit:
    """Fits of trapezoids to signals of ``t`` frames, within windows or anywhere."""

    def __init__(self, t: int, device: torch.device, windows: Windows | None = None) -> None:
        self.t, self.windows = t, windows or Windows((0, t - 1), (0, t - 1), (0, t - 1))
        lengths, length = [], 1
        longest = min(max(_LONGEST, t // 4), t - 1)
        if windows is not None:  # no longer than the windows allow
            longest = max(1, min(longest, windows.apex[1] - windows.onset[0] + windows.offset[1] - windows.apex[0]))
        while length <= longest:
            lengths.append(length)
            length = max(length + 1, int(length * _GROWTH))
        self.lengths = torch.tensor(lengths, device=device)
        # Rises of these lengths, aligned at their last frame.
        step = torch.arange(1, lengths[-1] + 1, device=device) - (lengths[-1] - self.lengths.unsqueeze(1))
        rises = _smooth_step(step.float() / self.lengths.unsqueeze(1)) * (step > 0)
        self.bank = torch.cat((-2 * rises, rises.square())).mT.contiguous()

    def anywhere(self, signal: Tensor, weight: Tensor) -> Cut:
        """The best cut of each ``signal`` ``(s, t)``, its levels unknown."""
        levels = torch.quantile(signal, signal.new_tensor(_QUANTILES), dim=-1)
        pairs = [(i, j) for i in range(len(levels)) for j in range(len(levels)) if i != j]
        rest = torch.stack([levels[i] for i, _ in pairs])
        height = torch.stack([levels[j] for _, j in pairs]) - rest
        if self.t <= _TOGETHER:
            cuts = self._best(signal.expand(len(pairs), -1, -1), weight, rest, height)
        else:  # one pair after the other, for the memory's sake
            each = [self._best(signal, weight, r, h) for r, h in zip(rest, height, strict=True)]
            cuts = Cut(*(torch.stack(keys) for keys in zip(*each, strict=True)))
        rest, height, error = self._levels(signal, weight, cuts)
        best = error.argmin(0, keepdim=True)
        return self.from_levels(signal, weight, rest.gather(0, best)[0], height.gather(0, best)[0])

    def from_levels(self, signal: Tensor, weight: Tensor, rest: Tensor, height: Tensor) -> Cut:
        """The best cut of each ``signal`` ``(s, t)`` from levels ``(s,)`` that are about right."""
        cuts = self._best(signal, weight, rest, height)
        rest, height, _ = self._levels(signal, weight, cuts)
        return self._best(signal, weight, rest, height)

    def _levels(self, signal: Tensor, weight: Tensor, cuts: Cut) -> tuple[Tensor, Tensor, Tensor]:
        shape = trapezoid(cuts, self.t)
        total = weight.sum(-1).clamp(min=1e-12)
        mean_shape, mean_signal = (weight * shape).sum(-1) / total, (weight * signal).sum(-1) / total
        centred = shape - mean_shape.unsqueeze(-1)
        height = (weight * centred * signal).sum(-1) / (weight * centred.square()).sum(-1).clamp(min=1e-9)
        rest = mean_signal - height * mean_shape
        error = (weight * (signal - rest.unsqueeze(-1) - height.unsqueeze(-1) * shape).square()).sum(-1)
        return rest, height, error

    def _best(self, signal: Tensor, weight: Tensor, rest: Tensor, height: Tensor) -> Cut:
        height = torch.where(height.abs() < 1e-9, 1e-9, height)
        y = (signal - rest.unsqueeze(-1)) / height.unsqueeze(-1)
        weight = weight.expand_as(y)
        windows, last = self.windows, self.t - 1
        rise, rise_length = self._edges(y, weight, windows.onset).min(-1)
        mirrored = last - windows.offset[1], last - windows.offset[0]
        fall, fall_length = (x.flip(-1) for x in self._edges(y.flip(-1), weight.flip(-1), mirrored).min(-1))
        fall_length = self.lengths[fall_length]
        held = weight * (1 - 2 * y)
        total = held.cumsum(-1)
        if windows.offset[1] == last:  # a clip may end while the movement is held
            open_end = held[..., -1] < fall[..., -1]
            fall = torch.cat((fall[..., :-1], torch.where(open_end, held[..., -1], fall[..., -1]).unsqueeze(-1)), -1)
            fall_length = torch.cat(
                (fall_length[..., :-1], open_end.unsqueeze(-1) * 1 + ~open_end.unsqueeze(-1) * fall_length[..., -1:]),
                -1,
            )
        frame = torch.arange(self.t, device=y.device)
        before = (rise - total).masked_fill(frame > windows.apex[1], math.inf)
        after = (fall + total - held).masked_fill(frame < windows.apex[0], math.inf)
        least, where = torch.cummin(before, -1)
        end = (least + after).argmin(-1, keepdim=True)
        apex = where.gather(-1, end)
        onset = apex - self.lengths[rise_length.gather(-1, apex)]
        offset = end + fall_length.gather(-1, end)
        return Cut(*(key.squeeze(-1) for key in (onset, apex, end, offset)))

    def _edges(self, y: Tensor, weight: Tensor, window: tuple[int, int]) -> Tensor:
        """Error of every rise, ``(..., t, lengths)``: over the frames up to its last, less that of rest throughout."""
        longest = int(self.bank.shape[0])
        space = y.new_zeros(*y.shape[:-1], longest - 1)
        both = torch.cat((torch.cat((space, weight * y), -1), torch.cat((space, weight), -1)), 0)
        n = len(self.lengths)
        windows = both.unfold(-1, longest, 1)
        signal, weights = windows[: len(y)], windows[len(y) :]
        error = signal @ self.bank[:, :n] + weights @ self.bank[:, n:]
        start = torch.arange(self.t, device=y.device).unsqueeze(-1) - self.lengths
        return error.masked_fill((start < window[0]) | (start > window[1]), math.inf)

    def profiles(self, y: Tensor, weight: Tensor) -> Profiles:
        """The least error that a trapezoid from 0 to 1 leaves of ``y`` ``(s, t)``, given each of its corners."""
        windows, last = self.windows, self.t - 1
        rises = self._edges(y, weight, windows.onset)
        falls = self._edges(y.flip(-1), weight.flip(-1), (last - windows.offset[1], last - windows.offset[0]))
        held = weight * (1 - 2 * y)
        total = held.cumsum(-1)
        rise, fall = rises.amin(-1), falls.amin(-1).flip(-1)
        if windows.offset[1] == last:
            fall = torch.cat((fall[..., :-1], torch.minimum(fall, held)[..., -1:]), -1)
        before, after = rise - total, fall + total - held
        frame = torch.arange(self.t, device=y.device)
        before = before.masked_fill(frame > windows.apex[1], math.inf)
        after = after.masked_fill(frame < windows.apex[0], math.inf)
        since = after.flip(-1).cummin(-1).values.flip(-1)  # of all ends from an apex on
        until = before.cummin(-1).values  # of all apexes up to an end
        rest = (weight * y.square()).sum(-1, keepdim=True)

        def by_start(table: Tensor, beside: Tensor) -> Tensor:
            start = (frame.unsqueeze(-1) - self.lengths).clamp(min=0).expand_as(table).flatten(-2)
            out = torch.full_like(beside, math.inf)
            return out.scatter_reduce(-1, start, (table + beside.unsqueeze(-1)).flatten(-2), "amin")

        may_peak, may_end = frame <= windows.apex[1], frame >= windows.apex[0]
        onset = by_start(rises, (since - total).masked_fill(~may_peak, math.inf))
        offset = by_start(falls, (until + total - held).masked_fill(~may_end, math.inf).flip(-1)).flip(-1)
        return Profiles(rest + onset, rest + before + since, rest + until + after, rest + offset)
