"""For mkdocstrings: signatures with values, where the code has the name of a constant or of a type alias."""

from __future__ import annotations

import ast
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
                    parameter.default = self.value(parameter.default, scope)
                    parameter.annotation = self.written_out(parameter.annotation)
                member.returns = self.written_out(member.returns)
            elif isinstance(member, (griffe.Module, griffe.Class)):
                self.visit(member)

    def value(self, default: Any, scope: griffe.Object) -> Any:
        """What a private constant stands for; public ones keep their names, which the reader can look up."""
        if not isinstance(default, griffe.ExprName) or not default.name.startswith("_"):
            return default
        return self.assigned(default) or repr(getattr(import_module(scope.module.path), default.name))

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
