"""Numbers that configure a module and are not in its state dict: priors, class weights.

A module made on the device ``meta`` has shapes and no values; ``to_empty`` then gives it memory, and a checkpoint or
``reset_parameters`` the values. What is in no checkpoint would stay whatever that memory held, without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConfigurationBuffers", "real_device"]


def real_device() -> torch.device:
    """Where to make numbers that must have values: the default device, or the CPU where that is ``meta``."""
    device = torch.empty(0).device  # torch.get_default_device() of PyTorch 2.5 does not see `with torch.device(...)`
    return torch.device("cpu") if device.type == "meta" else device


class ConfigurationBuffers(nn.Module):
    """A module that holds numbers as buffers outside of its state dict, and has them again when it leaves ``meta``."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, Tensor] = {}

    def register_configuration(self, name: str, value: Tensor | None) -> None:
        """Register a copy of ``value`` as the buffer ``name``; on ``meta`` where modules are made there."""
        if value is not None:
            value = value.detach().clone()
            self._held[name] = value.cpu()
            if torch.empty(0).is_meta:
                value = value.to("meta")
        self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self._held.items():
            old, new = before.get(name), self._buffers.get(name)
            if old is not None and new is not None and old.is_meta and not new.is_meta:
                self._buffers[name] = value.to(new.device, new.dtype)
        return self
