"""For mkdocstrings: signatures with values, where the code has the name of a constant or of a type alias."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from importlib import import_module
from typing import Any

import griffe


class Values(griffe.Extension):
    """``memory: int = _MEMORY`` becomes ``memory: int = 512 * 2**20``, ``mode: Mode`` its ``Literal[...]``."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Go through all functions once the whole package is known."""
        self.visit(pkg)

    def visit(self, scope: griffe.Module | griffe.Class) -> None:
        """Functions of a module or class, and those of what is inside it."""
        for member in scope.members.values():
            if member.is_alias:
                continue
            if isinstance(member, griffe.Function):
                for parameter in member.parameters:
                    parameter.default = self.value(parameter, member)
                    parameter.annotation = self.written_out(parameter.annotation)
                member.returns = self.written_out(member.returns)
            elif isinstance(member, (griffe.Module, griffe.Class)):
                self.visit(member)

    def value(self, parameter: griffe.Parameter, function: griffe.Function) -> Any:
        """What a private name in a default stands for; public ones stay, since the reader can look them up."""
        if not re.search(r"\b_[A-Za-z]", str(parameter.default)):
            return parameter.default
        assigned = self.assigned(parameter.default) if isinstance(parameter.default, griffe.ExprName) else None
        if assigned is not None:
            return assigned
        here: Any = import_module(function.module.path)
        for name in function.path.removeprefix(f"{function.module.path}.").split("."):
            here = getattr(here, name)
        return repr(inspect.signature(here).parameters[parameter.name].default)

    def written_out(self, annotation: Any) -> Any:
        """An annotation with the aliases of this package replaced by what they stand for."""
        if isinstance(annotation, griffe.ExprName):
            return self.written_out(self.assigned(annotation)) or annotation
        if isinstance(annotation, griffe.Expr):
            for field in fields(annotation):  # type: ignore[arg-type]  # every Expr is a dataclass
                part = getattr(annotation, field.name)
                if isinstance(part, griffe.Expr):
                    setattr(annotation, field.name, self.written_out(part))
                elif isinstance(part, list):
                    setattr(annotation, field.name, [self.written_out(item) for item in part])
        return annotation

    def assigned(self, name: griffe.ExprName) -> Any:
        """The value assigned to a name at the top of a module of this package, or None."""
        try:
            target = name.parent.modules_collection[name.canonical_path]
        except (KeyError, AttributeError, griffe.AliasResolutionError):
            return None
        target = target.final_target if target.is_alias else target
        if not isinstance(target, (griffe.Attribute, griffe.TypeAlias)) or not target.parent.is_module:
            return None
        if isinstance(target.value, str) and target.value[0] in "'\"":  # an alias in quotes
            text = ast.parse(ast.literal_eval(target.value), mode="eval").body
            return griffe.get_annotation(text, parent=target.parent)
        return target.value
