"""What a verb ends with when it cannot do its work."""

from __future__ import annotations


class BackupError(Exception):
    """Says what is wrong, where, and what to do; shown to the operator as it is."""


class StoppedError(BackupError):
    """It was asked to end."""
