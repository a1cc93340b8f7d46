"""What a module was built with, as plain values, so that it can be written to a file and built again."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

CLASS = "class"
RECORDED: dict[str, type[nn.Module]] = {}  # classes that record their arguments, by name
_TOLD_BY_WEIGHTS = ("device", "dtype")


def records_arguments(cls: type[Module]) -> type[Module]:
    """Class decorator: each instance remembers the arguments of its constructor for :func:`recorded_arguments`.

    A subclass with a constructor of its own records nothing.
    """
    init = cls.__init__
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is recording:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = list(bound.arguments.items())[1:]
            self._arguments = {name: _plain(value) for name, value in given if name not in _TOLD_BY_WEIGHTS}  # type: ignore[assignment]

    cls.__init__ = recording  # type: ignore[method-assign]
    RECORDED[cls.__name__] = cls
    return cls


def recorded_arguments(module: nn.Module) -> dict[str, Any] | None:
    """The arguments that build a module, defaults and the name of its class included; None where nothing was recorded.

    A part that was given as a module is described likewise, as it is now under the argument's name. A TypeError where
    an argument is nothing that JSON can write.
    """
    arguments = vars(module).get("_arguments")
    if arguments is None:
        return None
    found = {CLASS: type(module).__name__}
    for name, value in arguments.items():
        if value is _Part:
            part = getattr(module, name)
            value = recorded_arguments(part)
            if value is None:
                raise TypeError(f"{name} is a {type(part).__name__}, whose constructor's arguments are not recorded")
        if isinstance(value, _Other):
            raise TypeError(f"{name} is {value}, which JSON can't write")
        found[name] = value
    return found


class _Part:
    """In the place of an argument that is a module."""


class _Other(str):
    """In the place of an argument that is nothing plain: what it was, for the message."""


def _plain(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if isinstance(value, nn.Module):
        return _Part
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return next((item for item in items if item is _Part or isinstance(item, _Other)), items)
    return _Other(getattr(value, "__qualname__", type(value).__name__))
