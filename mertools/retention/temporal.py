"""The temporal encoder: retention over frames, with or without an image backbone in front.

Two uses:

- ``RetNetTemporal(dim)`` on frame features ``(b, t, d)``, in the place of the LSTM or transformer of a DFER model. It
  can run on a whole clip, on a padded batch, or frame by frame on a stream, with the same result.
- ``RetNetTemporal(512, depth=0, stem=ManhattanRetNet())`` on motion images, which is TSFmicro's temporal branch. With
  ``depth > 0`` and several motion images per clip, retention runs along t at each place of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mertools._checks import check_choice, check_count, check_floating, check_number
from mertools.layers.arguments import records_arguments
from mertools.layers.drop_path import DropPath, rising_rates
from mertools.layers.padding import check_lengths, mask_padding, valid_mask
from mertools.retention.layer import MODES, Mode, Retention, RetentionState

__all__ = ["RetNetTemporal"]

State: TypeAlias = tuple[RetentionState, ...]


@records_arguments
class RetNetTemporal(nn.Module):
    """Retention blocks over the frames of a clip: ``x + retention(norm(x))``, then ``x + ffn(norm(x))``; a last norm.

    Without a stem ``(b, t, d) -> (b, t, d)``; with one ``(b, c, h, w) -> (b, d, h', w')``, or ``(b, t, c, h, w) -> (b,
    t, d, h', w')``. Output beyond a clip's length is 0.

    Args:
        dim: width of the tokens (with a stem: of its map).
        depth: blocks; 0 leaves the stem alone.
        num_heads: heads of each retention.
        stem: a module from an image ``(n, c, h, w)`` to a map ``(n, dim, h', w')``, run on every frame.
        causal: a frame sees only what came before it. With False decay runs in both directions, for whole clips only.
        drop_path: stochastic depth of the last block; it rises to that linearly.
        value_dim: total width of the values; default ``dim``.
        ffn_ratio: hidden width of the feed-forward layers as a multiple of ``dim``.
        decay: γ of each head; default RetNet's.
        learnable_decay: train the decays, starting from those.
        norm: norm layer, a callable from width to module; default LayerNorm with eps 1e-6.
        checkpoint: compute the blocks again in the backward pass, from their inputs: less memory, more time.

    Examples:
        >>> import torch
        >>> encoder = RetNetTemporal(64, depth=1, num_heads=4).eval()
        >>> clip = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))  # features of 16 frames
        >>> state = None
        >>> for frame in clip.unbind(1):  # the same as encoder(clip), as the frames come in
        ...     y, state = encoder.step(frame, state)
        >>> torch.allclose(y, encoder(clip)[:, -1], atol=1e-4)
        True

    Source: TSFmicro (arXiv 2505.16372), temporal branch; Sun et al., "Retentive Network", 2023.
    """

    def __init__(
        self,
        dim: int = 512,
        depth: int = 2,
        num_heads: int = 8,
        *,
        stem: nn.Module | None = None,
        causal: bool = True,
        drop_path: float = 0.0,
        value_dim: int | None = None,
        ffn_ratio: float = 4.0,
        decay: Tensor | Sequence[float] | None = None,
        learnable_decay: bool = False,
        norm: Callable[[int], nn.Module] | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        dim, depth = check_count("dim", dim), check_count("depth", depth, least=0)
        ffn_ratio = check_number("ffn_ratio", ffn_ratio, 0)
        if stem is not None and not isinstance(stem, nn.Module):
            raise TypeError(f"stem must be an nn.Module from an image to a map, got {type(stem).__name__}")
        norm = norm or _layer_norm
        self.dim, self.causal, self.checkpoint = dim, causal, checkpoint
        self.stem = stem
        self.blocks = nn.ModuleList(
            _Block(
                Retention(
                    dim, num_heads, value_dim=value_dim, decay=decay, learnable_decay=learnable_decay, causal=causal
                ),
                dim,
                int(dim * ffn_ratio),
                rate,
                norm,
            )
            for rate in rising_rates(drop_path, depth)
        )
        self.norm = norm(dim) if depth else nn.Identity()

    def forward(
        self,
        x: Tensor,
        *,
        mode: Mode = "auto",
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, State]:
        """Encode a clip, or the next part of a stream.

        Args:
            x: tokens, images or clips of images.
            mode: ``"parallel"``, ``"chunkwise"``, ``"recurrent"`` or ``"auto"``: the same numbers at different costs.
            state: what an earlier call returned, a tuple with the state of each block's :class:`Retention`, its batch
                being ``b`` (``b·h'·w'`` for maps).
            lengths: valid frames ``(b,)`` of the clips of a padded batch. Padding is not read.
            return_state: return ``(output, state)``.
        """
        check_choice("mode", mode, MODES)
        self._check(x, state, lengths)
        if self.stem is None:
            y, state = self._encode(x, mode, state, lengths, return_state)
        elif x.ndim == 4:
            y, state = self._encode_maps(x[:, None], mode, state, lengths, return_state)
            y = y[:, 0]
        else:
            y, state = self._encode_maps(x, mode, state, lengths, return_state)
        return (y, state) if return_state else y

    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One frame of a stream: a token ``(b, d)``, or with a stem an image ``(b, c, h, w)``; O(1) per frame."""
        ndim = 2 if self.stem is None else 4
        check_floating("x_t", x_t, f"(b, {self.dim})" if self.stem is None else "(b, c, h, w)")
        if x_t.ndim != ndim:
            raise ValueError(f"x_t must be one frame per stream, {ndim} axes, got shape {tuple(x_t.shape)}")
        x = x_t[:, None]
        self._check(x, state, None)
        encode = self._encode if self.stem is None else self._encode_maps
        y, state = encode(x, "recurrent", state, None, True)
        return y[:, 0], state

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"dim={self.dim}, depth={len(self.blocks)}, causal={self.causal}"

    def _encode(
        self, x: Tensor, mode: Mode, state: State | None, lengths: Tensor | Sequence[int] | None, stateful: bool
    ) -> tuple[Tensor, State]:
        counts = None
        if lengths is not None:
            counts = check_lengths(lengths, *x.shape[:2], least=0).to(x.device)
            x = mask_padding(x, counts)
        states = []
        for i, block in enumerate(self.blocks):
            given = (x, mode, None if state is None else state[i], counts, stateful)
            again = self.checkpoint and torch.is_grad_enabled()
            x, new = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
            states.append(new)
        x = self.norm(x)
        if counts is not None:
            x = mask_padding(x, counts)
        return x, tuple(states) if stateful else ()

    def _encode_maps(
        self, x: Tensor, mode: Mode, state: State | None, lengths: Tensor | Sequence[int] | None, stateful: bool
    ) -> tuple[Tensor, State]:
        stem = cast(nn.Module, self.stem)  # only called with one
        b, t = x.shape[:2]
        counts = None if lengths is None else check_lengths(lengths, b, t, least=0).to(x.device)
        frames = x.flatten(0, 1)
        if counts is None:
            maps = stem(frames)
        else:  # only valid frames pass the stem, where batch norm would count the padding
            valid = valid_mask(counts, t, x.device).flatten()
            some = stem(frames[valid])
            maps = some.new_zeros(b * t, *some.shape[1:])
            maps[valid] = some
        if not isinstance(maps, Tensor):
            raise TypeError(f"stem must return a map (n, {self.dim}, h, w), got {type(maps).__name__}")
        if maps.ndim != 4 or maps.shape[1] != self.dim:
            raise ValueError(
                f"stem must return maps (n, {self.dim}, h, w), got shape {tuple(maps.shape)}: "
                "set dim to the channels of the stem's output"
            )
        if not self.blocks:
            return maps.reshape(b, t, *maps.shape[1:]), ()
        h, w = maps.shape[2:]
        tokens = rearrange(maps.reshape(b, t, *maps.shape[1:]), "b t d h w -> (b h w) t d")
        places = None if counts is None else counts.repeat_interleave(h * w)
        tokens, states = self._encode(tokens, mode, state, places, stateful)
        return rearrange(tokens.view(b, h, w, t, self.dim), "b h w t d -> b t d h w"), states

    def _check(self, x: Tensor, state: State | None, lengths: object) -> None:
        check_floating("x", x, f"(b, t, {self.dim})" if self.stem is None else "(b, c, h, w) or (b, t, c, h, w)")
        if self.stem is None and (x.ndim != 3 or x.shape[-1] != self.dim):
            hint = ": pass stem=ManhattanRetNet() for images" if x.ndim in (4, 5) else ""
            raise ValueError(f"x must be (b, t, {self.dim}) without a stem, got shape {tuple(x.shape)}{hint}")
        if self.stem is not None and x.ndim not in (4, 5):
            raise ValueError(f"x must be (b, c, h, w) or (b, t, c, h, w) with a stem, got shape {tuple(x.shape)}")
        if self.stem is not None and x.ndim == 4 and lengths is not None:
            raise ValueError("lengths needs a time axis: pass x as (b, t, c, h, w)")
        if state is not None and (not isinstance(state, (tuple, list)) or len(state) != len(self.blocks)):
            got = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise ValueError(f"state must be a tuple with one state for each of {len(self.blocks)} blocks, got {got}")


class _Block(nn.Module):
    def __init__(
        self, retention: Retention, dim: int, hidden: int, drop_path: float, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.retention_norm = norm(dim)
        self.retention = retention
        self.ffn_norm = norm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, mode: Mode, state: RetentionState | None, counts: Tensor | None, stateful: bool
    ) -> tuple[Tensor, RetentionState | None]:
        mixed = self.retention(self.retention_norm(x), mode=mode, state=state, lengths=counts, return_state=stateful)
        new: RetentionState | None = None
        if stateful:
            mixed, new = mixed
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.ffn(self.ffn_norm(x))), new


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)
