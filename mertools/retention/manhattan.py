"""Manhattan retention: attention over the places of a map that fades with their distance (RMT).

For head h with decay γ_h, rotated queries and keys (position ``p = row·W + col``)::

    softmax( q·kᵀ/√d + log γ_h · D ) · v  +  depthwise 5×5 convolution of v

The full form takes ``D = |Δrow| + |Δcol|`` between all places. The decomposed form attends along each row with
``|Δcol|`` and then along each column with ``|Δrow|``: cheaper for large maps. With frames, ``(b, t, h, w, d)``,
``|Δt|`` is one more distance (the decomposed form attends along t last), ``p = (frame·H + row)·W + col``, and one frame
is the 2-d form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mertools._checks import check_count, check_floating, check_number
from mertools.layers.arguments import records_arguments
from mertools.retention.rotary import apply_rotary, rotary_angles, rotary_table

__all__ = ["ManhattanRetention", "TableCache", "axial_attention", "manhattan_attention"]

_BIAS_LIMIT = 1 << 24  # elements of log γ · D that exist at a time: 64 MB in float32


class TableCache:
    """Tables that depend on the size of the input: the ``limit`` used last, by key; never saved, never copied.

    A table made from a ``source`` tensor is made anew once that was replaced or written to (``load_state_dict``,
    ``.to()``, the buffer broadcast of DDP). Under a compiler, export or fake tensors nothing is kept: there the table
    is part of the graph. Tables made in ``inference_mode`` can be used in a later backward. Threads may make a table
    twice, and none sees half of one.
    """

    def __init__(self, limit: int = 4) -> None:
        self.limit = limit
        self._tables: dict[Hashable, tuple[Tensor | None, int, Tensor]] = {}

    def get(self, key: Hashable, make: Callable[[], Tensor], *, source: Tensor | None = None) -> Tensor:
        """The table of ``key``; ``make()`` where there is none that still holds."""
        if torch.compiler.is_compiling() or (source is not None and (source.requires_grad or source.is_inference())):
            return make()
        version = 0 if source is None else source._version
        kept = self._tables.get(key)
        if kept is not None and kept[0] is source and kept[1] == version:
            return kept[2]
        with torch.inference_mode(False), torch.no_grad():
            table = make()
        if type(table) is Tensor:
            tables = {k: v for k, v in self._tables.items() if k != key}
            for old in list(tables)[: max(len(tables) - self.limit + 1, 0)]:
                del tables[old]
            self._tables = {**tables, key: (source, version, table)}  # one assignment: safe among threads
        return table

    def __len__(self) -> int:
        return len(self._tables)

    def __deepcopy__(self, memo: dict[int, Any]) -> TableCache:
        return TableCache(self.limit)

    def __reduce__(self) -> tuple[type[TableCache], tuple[int]]:
        return TableCache, (self.limit,)


def manhattan_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, tables: TableCache | None = None
) -> Tensor:
    """``softmax(q·kᵀ/√d + log γ · D) · v`` between all places of a map, D their Manhattan distance.

    ``q``, ``k``, ``v`` and the output are ``(b, *grid, n, d)`` with a grid of ``(h, w)``, or any number of axes;
    ``log_decay`` is ``(n,)``, ≤ 0. ``tables`` keep ``log γ · D`` for the next call.
    """
    grid = q.shape[1:-2]
    places = math.prod(grid)
    flat = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]  # (b, n, places, d)
    rows = max(_BIAS_LIMIT // max(len(log_decay) * places, 1), 1)
    if places <= rows:
        bias = _kept(tables, (grid, q.device, q.dtype), lambda: _bias(log_decay, grid, q), log_decay)
        y = F.scaled_dot_product_attention(flat[0], flat[1], flat[2], bias[None])
    else:  # a large map: some rows of the bias at a time
        y = torch.cat(
            [
                F.scaled_dot_product_attention(
                    part, flat[1], flat[2], _bias(log_decay, grid, q, start, start + rows)[None]
                )
                for start, part in zip(range(0, places, rows), torch.split(flat[0], rows, 2), strict=True)
            ],
            2,
        )
    return y.transpose(1, 2).reshape(v.shape)


def axial_attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, tables: TableCache | None = None) -> Tensor:
    """The decomposed form: along the last axis of the grid with its distance, then along the one before, and so on.

    Arguments and shapes as in :func:`manhattan_attention`.
    """
    for axis in range(q.ndim - 3, 0, -1):
        v = _attend_along(axis, q, k, v, log_decay, tables)
    return v


def _attend_along(axis: int, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, tables: TableCache | None) -> Tensor:
    length = q.shape[axis : axis + 1]
    bias = _kept(tables, (length, q.device, q.dtype), lambda: _bias(log_decay, length, q), log_decay)
    lines = [x.movedim(axis, -2).flatten(0, -4) for x in (q, k, v)]  # (lines, n, length, d)
    # With four axes: the quick kernel for CPUs does not take a mask of three.
    y = F.scaled_dot_product_attention(lines[0], lines[1], lines[2], bias[None])
    others = [size for i, size in enumerate(v.shape[:-2]) if i != axis]
    return y.view(*others, *y.shape[1:]).movedim(-2, axis)


@records_arguments
class ManhattanRetention(nn.Module):
    """Attention over the positions of a map that fades with their Manhattan distance.

    Input and output are ``(b, h, w, d)``, or ``(b, t, h, w, d)`` with decay along t as well.

    Args:
        dim: width ``d``.
        num_heads: heads ``n``; ``d / n`` must be even.
        decomposed: along rows, then along columns, instead of between all positions.
        decay_init: ``log γ_h = log(1 − 2^(−decay_init − decay_range·h/n))``; positive.
        decay_range: see ``decay_init``: how far the heads' decays spread.
        device: where to create the parameters.
        dtype: their type.

    Examples:
        >>> ManhattanRetention(32, 2, decomposed=True)(torch.zeros(1, 5, 7, 32)).shape
        torch.Size([1, 5, 7, 32])

    Source: TSFmicro (arXiv 2505.16372), temporal branch; Fan et al., "RMT: Retentive Networks Meet Vision
    Transformers", 2024. Their Relpos is ``log_decay`` here, their lepe is ``local``.
    """

    log_decay: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        decomposed: bool = False,
        decay_init: float = 2.0,
        decay_range: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, num_heads = check_count("dim", dim), check_count("num_heads", num_heads)
        decay_init, decay_range = (
            check_number(name, value, 0) for name, value in (("decay_init", decay_init), ("decay_range", decay_range))
        )
        if dim % (2 * num_heads):
            raise ValueError(f"dim must be a multiple of 2 * num_heads={2 * num_heads} (rotary pairs), got {dim}")
        if decay_init == 0:
            raise ValueError("decay_init must be positive, got 0: the decay would be 0")
        self.dim, self.num_heads, self.decomposed = dim, num_heads, decomposed
        self.qkv = nn.Linear(dim, 3 * dim, device=device, dtype=dtype)
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, device=device, dtype=dtype)
        self.out_proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.decay_init, self.decay_range = decay_init, decay_range
        wide = torch.promote_types(self.qkv.weight.dtype, torch.float32)
        self.register_buffer("log_decay", self.qkv.weight.new_empty(num_heads, dtype=wide))
        self._tables = TableCache()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier, with gain 2^(−5/2) for queries, keys and values; set the decays."""
        head = torch.arange(self.num_heads, dtype=torch.float64, device="cpu")  # not every device has float64
        exponent = -self.decay_init - self.decay_range * head / self.num_heads
        self.log_decay.copy_(torch.log1p(-torch.exp2(exponent)).to(self.log_decay.dtype))
        for weight in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(weight, gain=2**-2.5)
        nn.init.zeros_(self.qkv.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.local.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix the places of ``x``, ``(b, h, w, d)`` or ``(b, t, h, w, d)``."""
        mixed: Tensor = self.out_proj(self.mix(x))
        return mixed

    def mix(self, x: Tensor) -> Tensor:
        """What the last projection is given: ``forward(x)`` is ``out_proj(mix(x))``."""
        check_floating("x", x, f"(b, h, w, {self.dim})")
        if x.ndim not in (4, 5) or x.shape[-1] != self.dim or 0 in x.shape[1:]:
            raise ValueError(
                f"x must be (b, h, w, {self.dim}) or (b, t, h, w, {self.dim}), got shape {tuple(x.shape)}: "
                "a map (b, d, h, w) is turned by x.permute(0, 2, 3, 1)"
            )
        n, d, grid = self.num_heads, self.dim // self.num_heads, x.shape[1:-1]
        qk, v = torch.split(self.qkv(x), [2 * self.dim, self.dim], -1)
        local = self.local(v.flatten(0, -4).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(x.shape)
        wide = torch.promote_types(qk.dtype, torch.float32)
        table = _kept(self._tables, ("rotary", grid, x.device, wide), lambda: _rotary(grid, d // 2, x.device, wide))
        qk = apply_rotary(qk.view(*qk.shape[:-1], 2 * n, d).to(wide), table).to(v.dtype)
        attend = axial_attention if self.decomposed else manhattan_attention
        y = attend(qk[..., :n, :], qk[..., n:, :], v.view(*v.shape[:-1], n, d), self.log_decay, tables=self._tables)
        together: Tensor = y.flatten(-2) + local
        return together

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"dim={self.dim}, num_heads={self.num_heads}, decomposed={self.decomposed}"

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> ManhattanRetention:
        """Moves and casts; but decays stay in at least float32, see :class:`~mertools.Retention`."""
        before = self.log_decay
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.log_decay.dtype.itemsize < 4:
            self.log_decay = before.to(self.log_decay.device)
        return self


def _bias(log_decay: Tensor, grid: torch.Size, like: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
    """``log γ · D`` for SDPA to add to the scores, queries from ``start`` to ``stop``: ``(n, queries, places)``."""
    place = torch.arange(math.prod(grid), device=like.device)
    distance = torch.zeros((), dtype=place.dtype, device=like.device)
    for size in reversed(grid):
        along = place % size
        distance = distance + (along[start:stop, None] - along).abs()
        place = place // size
    return (log_decay.to(torch.promote_types(like.dtype, torch.float32))[:, None, None] * distance).to(like.dtype)


def _rotary(grid: torch.Size, pairs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rotations of the places of a grid, with an axis for the heads."""
    table = rotary_table(math.prod(grid), rotary_angles(pairs, device), dtype)
    return table.view(*grid, 1, *table.shape[1:])


def _kept(
    tables: TableCache | None, key: tuple[object, ...], make: Callable[[], Tensor], source: Tensor | None = None
) -> Tensor:
    return make() if tables is None else tables.get(key, make, source=source)
