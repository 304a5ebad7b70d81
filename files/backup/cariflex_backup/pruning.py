"""Removing archives that need not be kept any longer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cariflex_backup.archive import Archive, archives, check_sum
from cariflex_backup.errors import BackupError
from cariflex_backup.retention import Policy, kept


def planned(root: Path, policy: Policy) -> list[tuple[Archive, tuple[str, ...]]]:
    """Every archive with the reasons to keep it; none: it may go. The newest first."""
    found = archives(root)
    reasons = kept((archive.made_at for archive in found), policy, datetime.now(UTC))
    return [(archive, reasons.get(archive.made_at, ())) for archive in found]


def prune(root: Path, policy: Policy) -> list[Archive]:
    """Remove what need not be kept; what was removed.

    Raises:
        BackupError: the newest archive is damaged. Then nothing is removed: an older one may be the last good one.
    """
    plan = planned(root, policy)
    going = [archive for archive, reasons in plan if not reasons]
    if going:
        try:
            check_sum(plan[0][0])
        except BackupError as error:
            raise BackupError(f"Nothing was removed, for the newest archive is not good: {error}") from None
    for archive in going:
        archive.path.unlink()
        archive.sum_path.unlink()
    return going
