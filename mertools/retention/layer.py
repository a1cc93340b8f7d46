"""Retention: attention whose memory decays, as a layer over frames (RetNet).

Tokens become queries, keys, values and a gate; ``forms.py`` mixes them; each head's output is normalised (RMS, no
affine), multiplied by ``SiLU(X W_g)`` and projected back. Other implementations divide scores by ``√d`` and by the root
of the row sum of D, ``Σ γ^(n−m)``. A factor of what an RMS divides is a factor of its epsilon: here the epsilon has it,
in closed form by the frame's position, so that the three forms are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mertools._checks import check_choice, check_count, check_floating
from mertools.layers.arguments import records_arguments
from mertools.layers.buffers import real_device
from mertools.layers.padding import check_lengths, mask_padding
from mertools.retention.forms import chunkwise_retention, recurrent_retention, retention_step, two_sided_retention
from mertools.retention.rotary import apply_rotary, rotary_angles, rotary_table

__all__ = ["Retention", "RetentionState", "default_decay"]

Mode: TypeAlias = Literal["auto", "parallel", "chunkwise", "recurrent"]

MODES = ("auto", "parallel", "chunkwise", "recurrent")
_CHUNK = 64  # frames per chunk: the scores of a chunk stay in cache, and the memory's share of the work stays small
_NORM_EPS = 1e-6
# Tokens that go through the layer at a time: on a CPU what lies between the projections stays in cache, on a GPU there
# is enough to fill it. Either bounds the memory that a long clip needs beside its input and output.
_SEGMENT_TOKENS = {"cpu": 1024, "cuda": 65536}


class RetentionState(NamedTuple):
    """What retention remembers of a stream: its size does not depend on how long the stream is.

    ``memory`` is ``(b, n, dk, dv)``, the ``S`` of Sun et al. with keys rotated by their position, ``position`` ``(b,)``
    int64, the frames seen. States of different streams can be joined and split like batches.

    Examples:
        >>> layer, frame = Retention(8, 2), torch.zeros(1, 8)
        >>> _, first = layer.step(frame)
        >>> _, second = layer.step(frame, first)
        >>> both = RetentionState(*map(torch.cat, zip(first, second)))  # two streams in one batch
        >>> both.position
        tensor([1, 2])
    """

    memory: Tensor
    position: Tensor


def default_decay(num_heads: int) -> Tensor:
    """RetNet's decay of each of ``num_heads`` heads, ``γ_h = 1 − 2^(−5−h)`` (section 2.2), float64 ``(n,)``.

    Examples:
        >>> default_decay(2)
        tensor([0.9688, 0.9844], dtype=torch.float64)
    """
    return 1 - torch.exp2(-5.0 - torch.arange(num_heads, dtype=torch.float64, device=real_device()))


@records_arguments
class Retention(nn.Module):
    """Multi-scale retention over frames: a causal (or two-sided) mixing layer with a decaying memory.

    ``x`` and the output are ``(b, t, d)``; what is carried on is a :class:`RetentionState`, at least float32 whatever
    the autocast type.

    Args:
        dim: width of the tokens, ``d``.
        num_heads: heads ``n``; head h remembers about ``1 / (1 − γ_h)`` frames.
        value_dim: total width of the values; default ``dim``.
        decay: γ of each head in (0, 1]; default :func:`default_decay`.
        learnable_decay: train the decays as ``γ = sigmoid(decay_logit)``, starting from ``decay`` (then below 1).
        rotary: rotate queries and keys by position, so that scores depend on how far apart frames are.
        gate: multiply the output by ``SiLU(X W_g)``.
        causal: frames see only what came before. With False they decay in both directions, and nothing can be streamed.
        device: where to create the parameters.
        dtype: their type.

    Examples:
        >>> layer = Retention(32, 4).eval()
        >>> x = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(0))
        >>> first, state = layer(x[:, :7], return_state=True)  # a clip in two pieces
        >>> rest = layer(x[:, 7:], state=state)
        >>> torch.allclose(layer(x), torch.cat([first, rest], 1), atol=1e-5)
        True

    Source: Sun et al., "Retentive Network", 2023. The paper's W_Q, W_K, W_V and W_G are one matrix here
    (``in_proj``), W_O is ``out_proj``, and D's γ is ``exp(log_decay)``. Weights of torchscale load with
    :func:`~mertools.load_torchscale`.
    """

    log_decay: Tensor | None
    decay_logit: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_dim: int | None = None,
        decay: Tensor | Sequence[float] | None = None,
        learnable_decay: bool = False,
        rotary: bool = True,
        gate: bool = True,
        causal: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, num_heads = check_count("dim", dim), check_count("num_heads", num_heads)
        value_dim = dim if value_dim is None else check_count("value_dim", value_dim)
        for name, width in (("dim", dim), ("value_dim", value_dim)):
            if width % num_heads:
                raise ValueError(f"{name} must be a multiple of num_heads={num_heads}, got {width}")
        if rotary and dim // num_heads % 2:
            raise ValueError(
                f"dim / num_heads must be even for rotary positions, got {dim} / {num_heads} = {dim // num_heads}: "
                "choose other heads or pass rotary=False"
            )
        self.dim, self.num_heads, self.value_dim = dim, num_heads, value_dim
        self.rotary, self.gate, self.causal = rotary, gate, causal
        self.decay = _check_decay(decay, num_heads, below_one=learnable_decay)
        self.widths = [dim, dim, value_dim] + [value_dim] * gate
        self.in_proj = nn.Linear(dim, sum(self.widths), bias=False, device=device, dtype=dtype)
        self.out_proj = nn.Linear(value_dim, dim, bias=False, device=device, dtype=dtype)
        decays = self.in_proj.weight.new_empty(num_heads)
        # The logarithm: γ itself would round to 1 in few bits and never forget.
        self.register_buffer("log_decay", None if learnable_decay else _at_least_float32(decays))
        self.register_parameter("decay_logit", nn.Parameter(decays) if learnable_decay else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier with gain 2^(−5/2) for what enters the state, as in RetNet; set the decays."""
        with torch.no_grad():
            for weight in torch.split(self.in_proj.weight, self.widths):
                nn.init.xavier_uniform_(weight, gain=2**-2.5)
            nn.init.xavier_uniform_(self.out_proj.weight)
            gamma = torch.tensor(self.decay, dtype=torch.float64, device="cpu")
            if self.log_decay is not None:
                self.log_decay.copy_(gamma.log().to(self.log_decay.dtype))
            if self.decay_logit is not None:
                self.decay_logit.copy_(gamma.logit().to(self.decay_logit.dtype))

    def forward(
        self,
        x: Tensor,
        *,
        mode: Mode = "auto",
        chunk_size: int = _CHUNK,
        state: RetentionState | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, RetentionState]:
        """Mix the frames of ``x``.

        Args:
            x: tokens ``(b, t, d)``.
            mode: the form to compute in; all give the same numbers. ``"auto"`` takes one step for a single frame, else
                equal chunks of at most ``chunk_size``, which for a clip no longer than that is the parallel form. In
                an exported graph it is always the parallel form.
            chunk_size: most frames per chunk.
            state: the state that an earlier call returned, to go on from there.
            lengths: valid frames of each clip ``(b,)``. Padding is not read, its output is 0, and the returned state
                is that after the last valid frame.
            return_state: return ``(output, state)``.
        """
        check_floating("x", x, f"(b, t, {self.dim})")
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (b, t, {self.dim}), got shape {tuple(x.shape)}")
        check_choice("mode", mode, MODES)
        chunk_size = check_count("chunk_size", chunk_size)
        if not self.causal and (state is not None or return_state or mode == "recurrent"):
            raise ValueError(
                "state, return_state and mode='recurrent' need causal=True: a two-sided layer waits for later frames"
            )
        b, t = x.shape[:2]
        state = None if state is None else self._check_state(state, b)
        counts = None if lengths is None else check_lengths(lengths, b, t, least=0).to(x.device)
        if mode == "auto" and _exporting():  # the one form whose graph does not depend on the number of chunks
            mode = "parallel"
        chunk: int | None = max(t, 1) if mode == "parallel" else chunk_size
        if mode == "recurrent" or (mode == "auto" and t == 1 and self.causal):
            chunk = None
        if torch.compiler.is_compiling() or mode == "parallel" or not self.causal:
            y, state = self._mix(x, chunk, state, counts, keep=return_state)
        else:
            y, state = self._mix_in_parts(x, chunk, state, counts, keep=return_state)
        if state is None or not return_state:
            return y
        return y, state

    def step(self, x_t: Tensor, state: RetentionState | None = None) -> tuple[Tensor, RetentionState]:
        """One frame of a stream: work and memory do not grow with what came before.

        ``x_t`` is the newest token ``(b, d)``, ``state`` what the last step returned, None at the start. Returns the
        output ``(b, d)`` and the new state.
        """
        check_floating("x_t", x_t, f"(b, {self.dim})")
        if x_t.ndim != 2 or x_t.shape[1] != self.dim:
            raise ValueError(f"x_t must be (b, {self.dim}), one frame per stream, got shape {tuple(x_t.shape)}")
        if not self.causal:
            raise ValueError("step needs causal=True: a two-sided layer waits for later frames")
        b = x_t.shape[0]
        state = None if state is None else self._check_state(state, b)
        rotary = self._rotary(1, state, x_t, heads=False)  # the axis of the one frame serves for the heads
        q, k, v, gate = self._project(x_t, rotary)
        with _no_autocast(x_t.device.type):
            output, memory = retention_step(q, k, v, self._log_decay(), state.memory if state else None)
        position = state.position + 1 if state else torch.ones(b, dtype=torch.int64, device=x_t.device)
        weight = self._decay_sum(position[:, None]) if state else None
        return self._finish(output, gate, weight), RetentionState(memory, position)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, value_dim={self.value_dim}, rotary={self.rotary}, "
            f"gate={self.gate}, causal={self.causal}, learnable_decay={self.decay_logit is not None}"
        )

    def _mix_in_parts(
        self, x: Tensor, chunk: int | None, state: RetentionState | None, counts: Tensor | None, *, keep: bool
    ) -> tuple[Tensor, RetentionState | None]:
        """Some clips at a time, long ones as a stream of segments: what lies between the projections stays small."""
        b, t, _ = x.shape
        tokens = _SEGMENT_TOKENS.get(x.device.type, _SEGMENT_TOKENS["cuda"])
        if b * t <= tokens:
            return self._mix(x, chunk, state, counts, keep=keep)
        clips = max(tokens // t, 1)
        frames = tokens if chunk is None else max(tokens // chunk, 1) * chunk
        outputs, states = [], []
        whole: Tensor | None = None
        for start in range(0, b, clips):
            some = slice(start, start + clips)
            carried = None if state is None else RetentionState(state.memory[some], state.position[some])
            y, carried = self._stream(x[some], frames, chunk, carried, None if counts is None else counts[some], keep)
            states.append(carried)
            if torch.is_grad_enabled():
                outputs.append(y)
            else:  # no second copy of the output
                whole = y.new_empty(x.shape) if whole is None else whole
                whole[some] = y
        y = torch.cat(outputs) if whole is None else whole
        return y, RetentionState(*map(torch.cat, zip(*states, strict=True))) if keep else None

    def _stream(
        self, x: Tensor, frames: int, chunk: int | None, state: RetentionState | None, left: Tensor | None, keep: bool
    ) -> tuple[Tensor, RetentionState | None]:
        parts = []
        for start in range(0, x.shape[1], frames):
            part = x[:, start : start + frames]
            counts = None if left is None else (left - start).clamp(0, part.shape[1])
            last = start + frames >= x.shape[1]
            y, state = self._mix(part, chunk, state, counts, keep=keep or not last)
            parts.append(y)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), state

    def _mix(
        self, x: Tensor, chunk: int | None, state: RetentionState | None, counts: Tensor | None, *, keep: bool
    ) -> tuple[Tensor, RetentionState | None]:
        """Project, retain (in chunks, or frame by frame without), normalise, gate, project."""
        b, t, _ = x.shape
        x = x if counts is None else mask_padding(x, counts)
        q, k, v, gate = self._project(x, self._rotary(t, state, x, heads=True))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        log_decay, memory = self._log_decay(), state.memory if state else None
        # Few bits go into the large products where a GPU has units for them; decays and memories keep theirs.
        operand = gate.dtype if gate.is_cuda else q.dtype
        with _no_autocast(x.device.type):
            if not self.causal:
                output = two_sided_retention(q, k, v, log_decay, chunk_size=chunk or 1, operand=operand)
            elif chunk is None:
                output, memory = recurrent_retention(q, k, v, log_decay, memory=memory, lengths=counts)
            else:
                output, memory = chunkwise_retention(
                    q, k, v, log_decay,
                    memory=memory, lengths=counts, chunk_size=chunk, remember=keep, operand=operand,
                )  # fmt: skip
        seen_before = 0 if state is None else state.position[:, None, None]
        weight = self._decay_sum(seen_before + torch.arange(1, t + 1, device=x.device)[:, None])
        if not self.causal:
            after = (t if counts is None else counts[:, None, None]) - torch.arange(t, device=x.device)[:, None]
            weight = weight + self._decay_sum(after.clamp(min=1)) - 1  # the frame itself is in both
        y = self._finish(output.transpose(1, 2), gate, weight)
        if memory is None or not keep:
            return y, None
        seen = torch.full((b,), t, device=x.device) if counts is None else counts
        return y, RetentionState(memory, state.position + seen if state else seen)

    def _rotary(self, t: int, state: RetentionState | None, x: Tensor, *, heads: bool) -> Tensor | None:
        """The rotations of queries and keys of ``t`` frames; with an axis for the heads behind that of the frames."""
        if not self.rotary:
            return None
        wide = torch.promote_types(x.dtype, torch.float32)
        angle = rotary_angles(self.dim // self.num_heads // 2, x.device)
        table = rotary_table(t, angle, wide, position=state.position if state else None)
        return table.unsqueeze(-2 if table.is_complex() else -3) if heads else table

    def _project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rotated q and k and v as ``(..., n, ·)`` in at least float32; the gate ``(..., value_dim)`` as projected."""
        n, d, width = self.num_heads, self.dim, self.value_dim
        qk, v, gate = self.in_proj(x).split_with_sizes([2 * d, width, width if self.gate else 0], -1)
        qk = _at_least_float32(qk).view(*x.shape[:-1], 2 * n, d // n)
        v = _at_least_float32(v).view(*x.shape[:-1], n, width // n)
        q, k = (qk if rotary is None else apply_rotary(qk, rotary)).chunk(2, -2)
        return q, k, v, gate

    def _finish(self, y: Tensor, gate: Tensor, weight: Tensor | None) -> Tensor:
        """Normalise each head of ``y`` ``(..., n, ·)``, gate, join the heads and project."""
        eps: float | Tensor = _NORM_EPS * (self.dim // self.num_heads)
        if weight is not None:
            eps = eps * weight[..., None]
        y = (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(gate.dtype)
        if self.gate:
            y = F.silu(gate).view(y.shape) * y
        result: Tensor = self.out_proj(y.flatten(-2))
        return result

    def _decay_sum(self, count: Tensor) -> Tensor:
        """``Σ_(i < count) γ^i``, the row sum of D: ``(..., 1)`` frames up to one to ``(..., n)``."""
        rate = self._log_decay()
        below_one = torch.where(rate < 0, rate, -1)
        total = torch.expm1(below_one * count) / torch.expm1(below_one)
        return torch.where(rate < 0, total, count.to(rate.dtype))

    def _log_decay(self) -> Tensor:
        if self.decay_logit is not None:
            return F.logsigmoid(_at_least_float32(self.decay_logit))
        assert self.log_decay is not None
        return self.log_decay

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Retention:
        """Moves and casts; but decays stay in at least float32: ``.bfloat16()`` is meant for weights."""
        before = self.log_decay
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None and self.log_decay is not None and self.log_decay.dtype.itemsize < 4:
            self.log_decay = before.to(self.log_decay.device)
        return self

    def _check_state(self, state: RetentionState, b: int) -> RetentionState:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"state must be what an earlier call returned, got {type(state).__name__}")
        memory, position = state
        expected = (b, self.num_heads, self.dim // self.num_heads, self.value_dim // self.num_heads)
        check_floating("state.memory", memory, str(expected))
        if not isinstance(position, Tensor) or position.is_floating_point():
            got = position.dtype if isinstance(position, Tensor) else type(position).__name__
            raise TypeError(f"state.position must be an integer tensor {(b,)}, got {got}")
        if tuple(memory.shape) != expected or tuple(position.shape) != (b,):
            raise ValueError(
                f"state must have a memory {expected} and a position {(b,)} for this layer and batch, "
                f"got {tuple(memory.shape)} and {tuple(position.shape)}"
            )
        return RetentionState(memory, position)


def _exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", None)  # from PyTorch 2.7 on
    return exporting is not None and bool(exporting())


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Decays and memories are not for 16 bits. Entering this costs a stream some 20 µs a frame, so only if need be."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def _check_decay(decay: Tensor | Sequence[float] | None, num_heads: int, *, below_one: bool) -> list[float]:
    try:
        with torch.device("cpu"):  # its values are read here, whatever device the layer is built on
            wanted = default_decay(num_heads) if decay is None else decay
            gamma = torch.as_tensor(wanted, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"decay must be ({num_heads},) numbers, one per head, got {decay!r}") from error
    if gamma.shape != (num_heads,):
        raise ValueError(f"decay must be ({num_heads},), one per head, got shape {tuple(gamma.shape)}")
    if not bool(((gamma > 0) & (gamma <= 1)).all()):
        raise ValueError(f"decay must lie in (0, 1], got {gamma.tolist()}")
    if below_one and bool((gamma == 1).any()):
        raise ValueError(f"decay must lie in (0, 1) to be learnable, got {gamma.tolist()}")
    return gamma.tolist()
