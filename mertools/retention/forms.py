"""The three forms of retention as pure functions of queries, keys and values (RetNet, section 2).

For one head with decay γ, queries, keys and values of frame n (queries and keys rotated by n·θ)::

    parallel    O = (Q Kᵀ ⊙ D) V          D[n, m] = γ^(n − m) for n ≥ m, else 0       fast for short clips
    chunkwise   the parallel form in chunks, a memory between them                    linear in t, small memory
    recurrent   S_n = γ S_(n−1) + K_nᵀ V_n,   O_n = Q_n S_n                           one frame at a time

Queries and keys come here rotated by their positions (``rotary.py``). Decays are powers with exponents ≥ 0, never
quotients: nothing overflows for small γ or long chunks, and nothing is ``inf · 0``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["chunkwise_retention", "recurrent_retention", "retention_step", "two_sided_retention"]


def chunkwise_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    memory: Tensor | None = None,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    remember: bool = True,
    operand: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Causal retention of whole sequences, all chunks at once; with ``chunk_size >= t`` the parallel form.

    ``O_n = Σ_(m ≤ n) γ^(n−m) · (q_n · k_m) · v_m`` ``(b, n, t, dv)``, and the memory ``(b, n, dk, dv)`` after the last
    valid frame. Any number of calls with it passed on equals one call.

    Args:
        q: queries ``(b, n, t, dk)``.
        k: keys, likewise.
        v: values ``(b, n, t, dv)``.
        log_decay: log γ of each head ``(n,)``, ≤ 0.
        memory: what an earlier call returned.
        lengths: valid frames ``(b,)``; later ones leave the memory alone. Their keys or values must be zero.
        chunk_size: most frames per chunk; the chunks of a call are made equally long.
        remember: also return the memory.
        operand: type of the operands of the large products, by default that of q. Decays, scores and memories keep
            that of q.

    Examples:
        >>> q, k, v = torch.ones(3, 1, 2, 5, 4)  # one clip, two heads, five frames
        >>> output, memory = chunkwise_retention(q, k, v, torch.tensor([0.5, 1.0]).log())
        >>> output[0, :, :3, 0]  # 4 · (1 + γ + γ² …)
        tensor([[ 4.,  6.,  7.],
                [ 4.,  8., 12.]])

    Source: Sun et al., "Retentive Network", 2023, section 2.3.
    """
    _check(q, k, v, log_decay)
    t = q.shape[2]
    count, size = _split(t, chunk_size)
    q, k, v = (_chunks(x, count, size) for x in (q, k, v))
    table = _Decays(log_decay.to(q.dtype), size)
    wide, narrow = q.dtype, operand or q.dtype

    scores = (q.to(narrow) @ k.to(narrow).mT).to(wide)
    output = (_masked(scores, table.within(causal=True)).to(narrow) @ v.to(narrow)).to(wide)

    alone = count == 1 and memory is None
    if alone and not remember:
        return output[:, :, 0], None

    # What each chunk adds to the memory; then the memory before each chunk and behind the last.
    if lengths is None and (torch.compiler.is_compiling() or count * size != t):
        lengths = torch.full((1,), t, device=q.device)  # the last chunk is filled up: it ends early
    ageing = table.to_the_end()[:, None] if lengths is None else table.to_the_last(lengths, count)
    memories = ((k * ageing[..., None]).to(narrow).mT @ v.to(narrow)).to(wide)
    if alone:
        return output[:, :, 0], memories[:, :, 0]
    given = memory is not None
    if memory is not None:
        memories = torch.cat([memory.to(wide)[:, :, None], memories], 2)
    between = table.between(count, given=given)
    rising = q * table.from_the_start()[:, None, :, None]
    output = _add_product(output, rising.to(narrow), _mix(between[:, :-1], memories).to(narrow))
    output = output.flatten(2, 3)[:, :, :t]
    if not remember:
        return output, None
    last = between[:, -1:] if lengths is None else table.to_the_lengths(lengths, count, given=given)
    return output, _mix(last, memories)[:, :, 0]


def two_sided_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    chunk_size: int = 64,
    operand: torch.dtype | None = None,
) -> Tensor:
    """Decay in both directions, ``O_n = Σ_m γ^|n − m| · (q_n · k_m) · v_m`` ``(b, n, t, dv)``.

    ``q``, ``k``, ``v``, ``log_decay``, ``chunk_size`` and ``operand`` are those of :func:`chunkwise_retention`.

    Examples:
        >>> q, k, v = torch.ones(3, 1, 1, 3, 4)
        >>> two_sided_retention(q, k, v, torch.tensor([0.5]).log())[0, 0, :, 0]
        tensor([7., 8., 7.])
    """
    _check(q, k, v, log_decay)
    t = q.shape[2]
    count, size = _split(t, chunk_size)
    q, k, v = (_chunks(x, count, size) for x in (q, k, v))
    table = _Decays(log_decay.to(q.dtype), size)
    wide, narrow = q.dtype, operand or q.dtype

    v = v.to(narrow)
    scores = (q.to(narrow) @ k.to(narrow).mT).to(wide)
    output = (_masked(scores, table.within(causal=False)).to(narrow) @ v).to(wide)
    if count > 1:
        between = table.between(count, given=False)[:, :-1]
        falling, rising = table.to_the_end()[:, None, :, None], table.from_the_start()[:, None, :, None]
        past = _mix(between, ((k * falling).to(narrow).mT @ v).to(wide))
        future = _mix(between.mT, ((k * falling.flip(2)).to(narrow).mT @ v).to(wide))
        output = _add_product(output, (q * rising).to(narrow), past.to(narrow))
        output = _add_product(output, (q * rising.flip(2)).to(narrow), future.to(narrow))
    return output.flatten(2, 3)[:, :, :t]


def recurrent_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    memory: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same as :func:`chunkwise_retention`, one frame at a time: O(1) memory ``(b, n, dk, dv)`` and work per frame.

    ``q``, ``k``, ``v``, ``log_decay``, ``memory`` and ``lengths`` are those of :func:`chunkwise_retention`.

    Examples:
        >>> q, k, v = torch.ones(3, 1, 1, 3, 4)
        >>> recurrent_retention(q, k, v, torch.tensor([0.5]).log())[0][0, 0, :, 0]
        tensor([4., 6., 7.])
    """
    _check(q, k, v, log_decay)
    outputs = []
    if memory is None:
        memory = q.new_zeros(*k.shape[:2], k.shape[3], v.shape[3])
    for i in range(q.shape[2]):
        output, new = retention_step(q[:, :, i], k[:, :, i], v[:, :, i], log_decay, memory)
        outputs.append(output)
        memory = new if lengths is None else torch.where((i < lengths)[:, None, None, None], new, memory)
    return (torch.stack(outputs, 2) if outputs else v), memory


def retention_step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, memory: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One frame of :func:`recurrent_retention`: ``S_n = γ S_(n−1) + k_n v_nᵀ``, ``o_n = q_n S_n``, and the new memory.

    ``q`` and ``k`` ``(b, n, dk)`` and ``v`` ``(b, n, dv)`` are those of the frame, ``log_decay`` ``(n,)`` is log γ,
    ``memory`` what the last step returned.

    Examples:
        >>> q, k, v = torch.ones(3, 1, 1, 4)
        >>> output, memory = retention_step(q, k, v, torch.tensor([0.5]).log())
        >>> retention_step(q, k, v, torch.tensor([0.5]).log(), memory)[0][0, 0, 0]
        tensor(6.)
    """
    k, v = k.unsqueeze(-1), v.unsqueeze(-2)
    if memory is None:
        memory = k * v
    else:
        memory = torch.addcmul(memory.to(q.dtype) * log_decay.to(q.dtype).exp().view(-1, 1, 1), k, v)
    return torch.bmm(q.reshape(-1, 1, q.shape[-1]), memory.flatten(0, 1)).view(v.shape).squeeze(-2), memory


def _check(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> None:
    alike = q.ndim == v.ndim == 4 and q.shape == k.shape and q.shape[:3] == v.shape[:3]
    if not alike or log_decay.shape != q.shape[1:2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v, log_decay))
        raise ValueError(f"q and k must be (b, n, t, dk), v (b, n, t, dv) and log_decay (n,), got {shapes}")


# --- decays ---------------------------------------------------------------------------------------------------------


class _Decays:
    """Powers of each head's γ for chunks of ``size`` frames. Exponents are masked, not powers, and never negative."""

    def __init__(self, log_decay: Tensor, size: int) -> None:
        self.rate = log_decay[:, None]
        self.size = size
        self.step = torch.arange(size, device=log_decay.device)

    def within(self, *, causal: bool) -> Tensor:
        """From frame j to frame i of one chunk, ``(n, size, size)``; 0 for j > i when causal."""
        apart = self.step[:, None] - self.step
        if not causal:
            return torch.exp(self.rate[..., None] * apart.abs())
        return torch.exp(self.rate[..., None] * apart.clamp(min=0)) * (apart >= 0)

    def from_the_start(self) -> Tensor:
        """From the frame before a chunk to each of its frames, ``(n, size)``."""
        return torch.exp(self.rate * (self.step + 1))

    def to_the_end(self) -> Tensor:
        """From each frame of a chunk to its last, ``(n, size)``."""
        return torch.exp(self.rate * self.step.flip(0))

    def to_the_last(self, lengths: Tensor, count: int) -> Tensor:
        """The same to the chunk's last valid frame, clip by clip, ``(b, n, count, size)``."""
        position = torch.arange(count * self.size, device=lengths.device).view(count, self.size)
        last = lengths[:, None, None].clamp(max=position[:, -1:] + 1) - 1
        return torch.exp(self.rate[..., None] * (last - position).clamp(min=0)[:, None])

    def between(self, count: int, *, given: bool) -> Tensor:
        """From the end of each of ``count`` chunks to the start of each, 0 where that does not lie behind it.

        Row i is the start of chunk i, and a last row the end of all; column j is the end of chunk j, and with a memory
        ``given`` a first column what came before all: ``(n, count + 1, count + given)``.
        """
        start = torch.arange(count + 1, device=self.step.device)
        apart = start[:, None] - start[0 if given else 1 :]
        return torch.exp(self.rate[..., None] * (apart.clamp(min=0) * self.size)) * (apart >= 0)

    def to_the_lengths(self, lengths: Tensor, count: int, *, given: bool) -> Tensor:
        """The last row of ``between`` for clips that end early, ``(b, n, 1, count + given)``."""
        ends = torch.arange(0 if given else 1, count + 1, device=lengths.device) * self.size
        return torch.exp(self.rate[..., None] * (lengths[:, None] - ends).clamp(min=0)[:, None, None])


def _split(t: int, chunk_size: int) -> tuple[int, int]:
    """Number and length of chunks of at most ``chunk_size`` frames that hold t frames: all alike, little left over.

    In a graph for any t the length is ``chunk_size``, as lengths that depend on t by divisions tie a graph to one t.
    """
    if not torch.compiler.is_compiling():
        count = max((t + chunk_size - 1) // chunk_size, 1)
        return count, (t + count - 1) // count
    if t <= chunk_size:
        return 1, t
    return (t + chunk_size - 1) // chunk_size, chunk_size


def _chunks(x: Tensor, count: int, size: int) -> Tensor:
    """``(b, n, t, d)`` to contiguous ``(b, n, count, size, d)``, the end filled with zeros."""
    b, n, t, d = x.shape
    if torch.compiler.is_compiling() or count * size != t:
        x = F.pad(x.contiguous(), (0, 0, 0, count * size - t))  # a pad by 0 keeps strides, which PyTorch 2.5 forgets
    return x.contiguous().view(b, n, count, size, d)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores ``(b, n, count, size, size)`` times a mask ``(n, size, size)``, in place where autograd allows."""
    mask = mask[:, None]
    return scores * mask if mask.requires_grad or torch.compiler.is_compiling() else scores.mul_(mask)


def _add_product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``x + a @ b`` over equal batch axes, in one pass where the types allow."""
    if x.dtype != a.dtype:
        return x + (a @ b).to(x.dtype)
    return torch.baddbmm(x.flatten(0, -3), a.flatten(0, -3), b.flatten(0, -3)).view(x.shape)


def _mix(weight: Tensor, memories: Tensor) -> Tensor:
    """Weighted sums of memories: ``(..., n, i, j)`` and ``(b, n, j, dk, dv)`` to ``(b, n, i, dk, dv)``."""
    mixed = weight @ memories.flatten(3)
    return mixed.view(*mixed.shape[:3], *memories.shape[3:])
