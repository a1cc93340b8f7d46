"""Tables that depend on the size of the input, kept between forwards: a few per module, never saved, never copied."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["TableCache"]


class TableCache:
    """The ``limit`` tables used last, by key.

    - A table made from a ``source`` tensor is made anew once that was replaced or written to (``load_state_dict``,
      ``.to()``, the buffer broadcast of DDP).
    - Under a compiler, export or fake tensors nothing is kept: there the table is part of the graph.
    - Tables made in ``inference_mode`` can be used in a later backward.
    - Copies and pickles of a module start with an empty cache.

    Threads may make a table twice; none sees half of one.
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
