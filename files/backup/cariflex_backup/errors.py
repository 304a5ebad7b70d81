"""What a verb ends with when it cannot do its work."""

from __future__ import annotations


class BackupError(Exception):
    """Says what is wrong, where, and what to do; shown to the operator as it is."""


class StoppedError(BaseException):
    """It was asked to end. No BackupError: what goes on after an error would go on after this too."""
