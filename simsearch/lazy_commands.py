"""Lazy command group: a command's module is imported when the command is chosen.

Help and completion of a group need the names and one line of each command. They stand in a table,
so that neither imports anything; a test holds each line against its command.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class LazyCommand:
    """`target` is "module:function"; `help` the first paragraph of that function's docstring."""

    name: str
    target: str
    help: str

    def listed(self) -> TyperCommand:
        """It stands in lists, and is never run."""
        return TyperCommand(self.name, help=self.help)

    def load(self) -> Any:
        module, _, function = self.target.partition(":")
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(alone)


@dataclass(frozen=True)
class LazyCommands:
    """A group within a group."""

    name: str
    help: str
    rows: Sequence[LazyCommand]

    def listed(self) -> LazyGroup:
        return LazyGroup(name=self.name, help=self.help, rows=self.rows, no_args_is_help=True)


Row: TypeAlias = LazyCommand | LazyCommands


class LazyGroup(TyperGroup):
    """`commands` holds what lists show; what is chosen takes the place of its line."""

    def __init__(self, *, rows: Sequence[Row], **options: Any) -> None:
        super().__init__(**options)
        self._not_loaded = {row.name: row for row in rows if isinstance(row, LazyCommand)}
        self.commands = {row.name: row.listed() for row in rows}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Called for a run and for the completion of options, not for lists."""
        self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> Any:
        """The command of this name, or None."""
        if row := self._not_loaded.pop(name, None):
            self.commands[name] = row.load()
        return self.commands.get(name)

    def leaves(self, path: str) -> Iterator[tuple[str, Any]]:
        """Every command below by its words, as in "simsearch entry add"; all are imported."""
        for name in tuple(self.commands):
            command = self.load(name)
            if isinstance(command, LazyGroup):
                yield from command.leaves(f"{path} {name}")
            else:
                yield f"{path} {name}", command
