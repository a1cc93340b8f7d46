"""Retention: attention whose memory decays, in three forms that are the same function (RetNet).

For one head with decay γ, queries, keys and values of frame n (queries and keys turned by the angle n·θ)::

    parallel    O = (Q Kᵀ ⊙ D) V          D[n, m] = γ^(n − m) for n ≥ m, else 0       fast for short clips
    chunkwise   the parallel form in chunks, a state between them                     linear in t, small memory
    recurrent   S_n = γ S_(n−1) + K_nᵀ V_n,   O_n = Q_n S_n                           one frame at a time

The heads' outputs are normalised (RMS over the head, no affine), gated by ``SiLU(X W_g)`` and projected. Normalising
each output by itself is what keeps the three forms equal: a sum over the rows of D, as some implementations divide by,
does not exist in the recurrent form.

Two choices keep the numbers sound at any length. A state is kept in the frame of the newest position (every step turns
it by −θ and shrinks it by γ), so only differences of positions are ever computed, and angles stay small however long a
stream runs. And decays are powers with exponents ≥ 0, never quotients: nothing overflows for small γ or long chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mertools.checks import check_choice, check_count, check_floating
from mertools.padding import blank_padding, check_lengths

__all__ = ["Retention", "chunkwise_retention", "default_decay", "recurrent_retention"]

Mode: TypeAlias = Literal["auto", "parallel", "chunkwise", "recurrent"]

MODES = ("auto", "parallel", "chunkwise", "recurrent")
_CHUNK = 64  # frames per chunk: the scores of a chunk stay in cache, and the state's share of the work stays small
_NORM_EPS = 1e-6


def default_decay(num_heads: int) -> Tensor:
    """RetNet's decay of each head, ``γ_h = 1 − 2^(−5−h)``, float64 ``(n,)``.

    Examples:
        >>> default_decay(2)
        tensor([0.9688, 0.9844], dtype=torch.float64)

    Source: Sun et al., "Retentive Network", 2023, section 2.2.
    """
    return 1 - torch.exp2(-5.0 - torch.arange(num_heads, dtype=torch.float64))


def chunkwise_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    angle: Tensor | None = None,
    *,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
    chunk_size: int = _CHUNK,
) -> tuple[Tensor, Tensor]:
    """Causal retention of whole sequences, chunk by chunk; with ``chunk_size >= t`` the parallel form.

    ``O_n = Σ_(m ≤ n) γ^(n−m) · Re(q_n · conj(k_m) · e^(i(n−m)θ)) · v_m``, neighbouring pairs of q and k read as
    complex numbers.

    Args:
        q: queries, already divided by √d.
        k: keys.
        v: values.
        log_decay: log γ of each head, ≤ 0.
        angle: θ of each pair of q and k per frame, or None for no rotation.
        state: what an earlier call returned.
        lengths: valid frames; later ones change no state. Their keys or values must be zero.
        chunk_size: frames per chunk.

    Shape:
        - q, k: ``(b, n, t, dk)``; v: ``(b, n, t, dv)``; log_decay: ``(n,)``; angle: ``(dk/2,)``; lengths: ``(b,)``
        - state: ``(b, n, dk, dv)``
        - output: ``(b, n, t, dv)``, and the state after the last valid frame

    Source: Sun et al., "Retentive Network", 2023, section 2.3.
    """
    t = q.shape[2]
    outputs = []
    tables: _Chunk | None = None
    for start in range(0, t, chunk_size):
        part = slice(start, min(start + chunk_size, t))
        size = part.stop - part.start
        if tables is None or size != tables.size:
            tables = _chunk_tables(size, log_decay, angle, q.dtype)
        left = None if lengths is None else (lengths - start).clamp(0, size)
        output, state = _retain_chunk(q[:, :, part], k[:, :, part], v[:, :, part], state, left, tables)
        outputs.append(output)
    if state is None:  # t = 0
        state = q.new_zeros(*k.shape[:2], k.shape[3], v.shape[3])
    if not outputs:
        return v[:, :, :0], state
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)), state


def recurrent_retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    angle: Tensor | None = None,
    *,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same as :func:`chunkwise_retention`, one frame at a time: O(1) memory and work per frame."""
    b, n, t, dk = q.shape
    if state is None:
        state = q.new_zeros(b, n, dk, v.shape[3])
    decay = log_decay.exp().to(q.dtype)[:, None, None]
    turn = None if angle is None else _turn(-angle, q.dtype)
    outputs = []
    for i in range(t):
        moved = (state if turn is None else _rotate_rows(state, turn)) * decay
        moved = moved + k[:, :, i, :, None] * v[:, :, i, None, :]
        outputs.append((q[:, :, i, None, :] @ moved)[:, :, 0])
        state = moved if lengths is None else torch.where((i < lengths)[:, None, None, None], moved, state)
    return (torch.stack(outputs, 2) if outputs else v), state


class Retention(nn.Module):
    """Multi-scale retention over frames: a causal (or two-sided) mixing layer with a decaying memory.

    Args:
        dim: width of the tokens, ``d``.
        num_heads: heads ``n``; head h remembers about ``1 / (1 − γ_h)`` frames.
        value_dim: total width of the values; default ``dim``.
        decay: γ of each head in (0, 1]; default :func:`default_decay`.
        rotary: turn queries and keys by position, so that scores depend on how far apart frames are.
        gate: multiply the output by ``SiLU(X W_g)``.
        causal: frames see only what came before. With False they decay in both directions, and nothing can be streamed.
        device: where to create the parameters.
        dtype: their type.

    Shape:
        - x: ``(b, t, d)``; output: ``(b, t, d)``
        - state: ``(b, n, d/n, value_dim/n)``, float32 (float64 for float64 input) whatever the autocast type

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: widths that the heads do not divide, a decay outside (0, 1], an unknown mode, a state or lengths
            that do not fit, or streaming asked of a two-sided layer.

    Examples:
        >>> layer = Retention(32, 4).eval()
        >>> x = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(0))
        >>> whole = layer(x)
        >>> first, state = layer(x[:, :7], return_state=True)  # the same clip in two pieces
        >>> rest = layer(x[:, 7:], state=state)
        >>> torch.allclose(whole, torch.cat([first, rest], 1), atol=1e-5)
        True

    Source: Sun et al., "Retentive Network", 2023. The paper's W_Q, W_K, W_V and W_G are one matrix here
    (``in_proj``), W_O is ``out_proj``, and D's γ is ``exp(log_decay)``.
    """

    log_decay: Tensor
    angle: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_dim: int | None = None,
        decay: Tensor | Sequence[float] | None = None,
        rotary: bool = True,
        gate: bool = True,
        causal: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        value_dim = dim if value_dim is None else value_dim
        for name, width in (("dim", dim), ("num_heads", num_heads), ("value_dim", value_dim)):
            check_count(name, width)
        for name, width in (("dim", dim), ("value_dim", value_dim)):
            if width % num_heads:
                raise ValueError(f"{name} must be a multiple of num_heads={num_heads}, got {width}")
        if rotary and dim // num_heads % 2:
            raise ValueError(
                f"dim / num_heads must be even for rotary positions, got {dim} / {num_heads} = {dim // num_heads}: "
                "choose other heads or pass rotary=False"
            )
        self.dim, self.num_heads, self.value_dim = dim, num_heads, value_dim
        self.gate, self.causal = gate, causal
        self.widths = [dim, dim, value_dim] + [value_dim] * gate
        self.in_proj = nn.Linear(dim, sum(self.widths), bias=False, device=device, dtype=dtype)
        self.out_proj = nn.Linear(value_dim, dim, bias=False, device=device, dtype=dtype)
        # The logarithm survives 16-bit types, where γ itself would round to 1 and never forget.
        log_decay = _log_decay(decay, num_heads)
        self.register_buffer("log_decay", log_decay.to(self.in_proj.weight))
        self.register_buffer("angle", None, persistent=False)
        if rotary:
            pairs = dim // num_heads // 2
            angle = 10000.0 ** -torch.linspace(0, 1, pairs, dtype=torch.float64)
            self.register_buffer("angle", angle.to(self.in_proj.weight), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier with gain 2^(−5/2) for what enters the state, as in RetNet."""
        start = 0
        for width in self.widths:
            nn.init.xavier_uniform_(self.in_proj.weight[start : start + width], gain=2**-2.5)
            start += width
        nn.init.xavier_uniform_(self.out_proj.weight)

    def forward(
        self,
        x: Tensor,
        *,
        mode: Mode = "auto",
        chunk_size: int = _CHUNK,
        state: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Mix the frames of ``x``.

        Args:
            x: tokens ``(b, t, d)``.
            mode: the form to compute in. They give the same numbers; ``"auto"`` takes the parallel form up to
                ``2 * chunk_size`` frames and the chunkwise form above.
            chunk_size: frames per chunk of the chunkwise form.
            state: the state that an earlier call returned, to go on from there.
            lengths: valid frames of each clip ``(b,)``. Padding is not read, its output is 0, and the returned state
                is that after the last valid frame.
            return_state: return ``(output, state)``.
        """
        self._check(x, mode, chunk_size, state)
        counts = None
        if lengths is not None:
            counts = check_lengths(lengths, *x.shape[:2], least=0).to(x.device)
            x = blank_padding(x, counts)
        if self.causal:
            y, state = self._causal(x, mode, chunk_size, state, counts)
            return (y, state) if return_state else y
        if state is not None or return_state or mode == "recurrent":
            raise ValueError(
                "state, return_state and mode='recurrent' need causal=True: a two-sided layer waits for later frames"
            )
        q, k, v, *gate = self._project(x)
        size = x.shape[1] if mode == "parallel" else chunk_size
        with torch.autocast(x.device.type, enabled=False):
            output = _two_sided(q, k, v, self.log_decay, self.angle, size)
        return self._finish(output, gate, x.dtype)

    def step(self, x_t: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One frame of a stream: work and memory do not grow with what came before.

        Args:
            x_t: the newest token, ``(b, d)``.
            state: what the last step returned; None at the start.

        Returns:
            Output ``(b, d)`` and the new state.

        Raises:
            ValueError: the layer is two-sided, or a shape does not fit.
        """
        check_floating("x_t", x_t, f"(b, {self.dim})")
        if x_t.ndim != 2 or x_t.shape[1] != self.dim:
            raise ValueError(f"x_t must be (b, {self.dim}), one frame per stream, got shape {tuple(x_t.shape)}")
        x = x_t[:, None]
        self._check(x, "recurrent", 1, state)
        if not self.causal:
            raise ValueError("step needs causal=True: a two-sided layer waits for later frames")
        y, state = self._causal(x, "recurrent", 1, state, None)
        return y[:, 0], state

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, value_dim={self.value_dim}, "
            f"rotary={self.angle is not None}, gate={self.gate}, causal={self.causal}"
        )

    def _causal(
        self, x: Tensor, mode: str, chunk_size: int, state: Tensor | None, counts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        q, k, v, *gate = self._project(x)
        t = x.shape[1]
        if mode == "parallel" or (mode == "auto" and t <= 2 * chunk_size):
            chunk_size = max(t, 1)
        with torch.autocast(x.device.type, enabled=False):  # decays and states are not for 16 bits
            if mode == "recurrent":
                output, state = recurrent_retention(q, k, v, self.log_decay, self.angle, state=state, lengths=counts)
            else:
                output, state = chunkwise_retention(
                    q, k, v, self.log_decay, self.angle, state=state, lengths=counts, chunk_size=chunk_size
                )
        return self._finish(output, gate, x.dtype), state

    def _project(self, x: Tensor) -> list[Tensor]:
        """q, k, v as ``(b, n, t, ·)`` in at least float32, and the gate ``(b, t, value_dim)`` as projected."""
        parts = list(self.in_proj(x).split(self.widths, dim=-1))
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        for i in range(3):
            parts[i] = rearrange(parts[i], "b t (n d) -> b n t d", n=self.num_heads).to(wide)
        parts[0] = parts[0] * (self.dim // self.num_heads) ** -0.5
        return parts

    def _finish(self, output: Tensor, gate: list[Tensor], dtype: torch.dtype) -> Tensor:
        output = output * torch.rsqrt(output.square().mean(-1, keepdim=True) + _NORM_EPS)
        y = rearrange(output, "b n t d -> b t (n d)")
        if gate:
            y = F.silu(gate[0]) * y.to(gate[0].dtype)
        result: Tensor = self.out_proj(y.to(dtype))
        return result

    def _check(self, x: Tensor, mode: str, chunk_size: int, state: Tensor | None) -> None:
        check_floating("x", x, f"(b, t, {self.dim})")
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (b, t, {self.dim}), got shape {tuple(x.shape)}")
        check_choice("mode", mode, MODES)
        check_count("chunk_size", chunk_size)
        if state is None:
            return
        n = self.num_heads
        expected = (x.shape[0], n, self.dim // n, self.value_dim // n)
        check_floating("state", state, str(expected))
        if tuple(state.shape) != expected:
            raise ValueError(f"state must be {expected} for this layer and batch, got shape {tuple(state.shape)}")


# --- one chunk ------------------------------------------------------------------------------------------------------


class _Chunk(NamedTuple):
    """What a chunk of ``size`` frames needs beside its tokens; the same for every chunk of that size."""

    size: int
    log_decay: Tensor  # (n,) in the type of the computation
    angle: Tensor | None  # (dk/2,)
    turn: tuple[Tensor, Tensor] | None  # cos and sin of i·θ, (size, dk/2)
    mask: Tensor  # γ^(i − j) for i >= j, else 0: (n, size, size)


def _chunk_tables(size: int, log_decay: Tensor, angle: Tensor | None, dtype: torch.dtype) -> _Chunk:
    log_decay = log_decay.to(dtype)
    step = torch.arange(size, device=log_decay.device)
    distance = step[:, None] - step
    # The exponent is masked, not the power: γ^(negative) may be infinite, and inf · 0 is not 0.
    exponent = torch.where(distance >= 0, distance, 0).to(dtype)
    mask = torch.exp(log_decay[:, None, None] * exponent) * (distance >= 0)
    turn = None if angle is None else _turn(step[:, None].double() * angle.double(), dtype)
    return _Chunk(size, log_decay, angle, turn, mask)


def _retain_chunk(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, left: Tensor | None, chunk: _Chunk
) -> tuple[Tensor, Tensor]:
    """One chunk: scores within it, what the state adds, and the state behind it. ``left``: its valid frames (b,)."""
    size, log_decay, angle, turn, mask = chunk
    if turn is not None:
        q, k = _rotate(q, turn), _rotate(k, turn)
    output = (q @ k.mT * mask) @ v
    step = torch.arange(size, device=q.device)
    rates = log_decay[:, None]  # (n, 1)
    if state is not None:
        if angle is not None:
            state = _rotate_rows(state, _turn(-angle, q.dtype))  # into the frame of this chunk's first position
        output = output + (q * torch.exp(rates * (step + 1))[..., None]) @ state

    # Keys age to the last valid frame; with `left`, that differs from clip to clip.
    count = torch.full((1,), size, device=q.device) if left is None else left
    age = count[:, None, None] - 1 - step  # (b or 1, 1, size)
    ageing = torch.exp(rates * age.clamp(min=0)) * (age >= 0)
    new = (k * ageing[..., None]).mT @ v
    if state is not None:
        new = new + torch.exp(rates * count[:, None, None])[..., None] * state
    if angle is not None:
        back = _turn((1 - count)[:, None, None].double() * angle.double(), q.dtype)  # (b or 1, 1, dk/2)
        new = _rotate_rows(new, back)
    return output, new


def _two_sided(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, angle: Tensor | None, chunk_size: int) -> Tensor:
    """Decay in both directions, ``D[n, m] = γ^|n − m|``: past plus future, the frame itself counted once."""
    size = max(chunk_size, 1)
    past, _ = chunkwise_retention(q, k, v, log_decay, angle, chunk_size=size)
    # Seen from the end, positions count down: the same rotation is one by the opposite angle.
    flipped = [part.flip(2) for part in (q, k, v)]
    future, _ = chunkwise_retention(
        flipped[0], flipped[1], flipped[2], log_decay, None if angle is None else -angle, chunk_size=size
    )
    itself = (q * k).sum(-1, keepdim=True) * v
    return past + future.flip(2) - itself


# --- decays and rotations -------------------------------------------------------------------------------------------


def _log_decay(decay: Tensor | Sequence[float] | None, num_heads: int) -> Tensor:
    if decay is None:
        return default_decay(num_heads).log()
    try:
        gamma = torch.as_tensor(decay, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"decay must be ({num_heads},) numbers, one per head, got {decay!r}") from error
    if gamma.shape != (num_heads,):
        raise ValueError(f"decay must be ({num_heads},), one per head, got shape {tuple(gamma.shape)}")
    if not bool(((gamma > 0) & (gamma <= 1)).all()):
        raise ValueError(f"decay must lie in (0, 1], got {gamma.tolist()}")
    return gamma.log()


def _turn(angle: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine, taken in float64: float32 angles lose their fraction after some thousand turns."""
    angle = angle.double()
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of the last axis: ``(x₀, x₁) -> (x₀ cos − x₁ sin, x₁ cos + x₀ sin)``."""
    cos, sin = turn
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


def _rotate_rows(state: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """The same for the key axis of a state ``(b, n, dk, dv)``."""
    cos, sin = (part[..., None] for part in turn)
    even, odd = state[..., 0::2, :], state[..., 1::2, :]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -2).flatten(-3, -2)
