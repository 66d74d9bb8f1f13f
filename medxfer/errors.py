"""What a user can put right, as exceptions with an exit code each.

MedxferError (1)
├── ConfigError (2)    misspelt key, override, unknown component, usage
├── DataError (3)      images, labels, splits
├── WeightsError (3)   weights file, hash, architecture
├── PluginError (3)    unknown id, broken, clashing, outside the contract
├── RunError (3)       disk, memory, lock held, non-finite loss, changed since the run
└── UnsafeError (5)    refused without --trust
"""

from __future__ import annotations


class MedxferError(Exception):
    """Something the user can put right. Printed as four short lines, never as a traceback.

    Args:
        where: File, key, row or option at fault.
        seen: What was found there, with the figure.
        accepted: What would have been accepted.
        todo: What to do about it.
    """

    exit_code = 1

    def __init__(self, where: str, seen: str = "", accepted: str = "", todo: str = "") -> None:
        super().__init__(where, seen, accepted, todo)
        self.where, self.seen, self.accepted, self.todo = where, seen, accepted, todo

    def __str__(self) -> str:
        lines = [self.where]
        for name, text in (("seen", self.seen), ("accepted", self.accepted), ("do", self.todo)):
            if text:
                lines.append(f"  {name + ':':<10}{text}")
        return "\n".join(lines)


class ConfigError(MedxferError):
    """A misspelt key, a bad override, an unknown component or a wrong use of a command."""

    exit_code = 2


class DataError(MedxferError):
    """Images, labels or splits that cannot be used as they are."""

    exit_code = 3


class WeightsError(MedxferError):
    """A weights file that is absent, damaged or of another architecture."""

    exit_code = 3


class PluginError(MedxferError):
    """An encoder that is unknown, broken, ambiguous or outside the contract."""

    exit_code = 3


class RunError(MedxferError):
    """A run that cannot start or go on: disk, memory, lock, non-finite loss, changed inputs."""

    exit_code = 3


class UnsafeError(MedxferError):
    """Something that would run code named by a configuration file."""

    exit_code = 5
