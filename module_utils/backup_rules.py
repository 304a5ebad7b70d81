# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What the variables of backups may say, beyond their types. Pure: values in, problems out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .age_keys import is_recipient, recipients_of
from .problem import Problem, shown

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def backup_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys that are none, and times that systemd and cron would not understand.

    Args:
        values: name -> value of the variables, as far as they are known. Wrong types are reported elsewhere.
    """
    given = values.get("backup_age_recipients")
    for index, recipient in enumerate(given if isinstance(given, list) else ()):
        if not is_recipient(recipient):
            yield Problem(
                f"backup_age_recipients.{index}",
                shown(recipient),
                "is no public key of age's",
                "give what age-keygen prints as public key: age1 and 58 letters and digits",
            )
    try:
        recipients_of(str(values.get("backup_identity") or ""))
    except ValueError as error:
        yield Problem("backup_identity", None, str(error), "give what age-keygen prints, or remove it, and one is made")
    if values.get("backup_offsite_repository") and not values.get("backup_offsite_password"):
        fix = "write one into vault.yml and keep a copy elsewhere: without it the copies cannot be read"
        yield Problem("vault_backup_offsite_password", None, "is not set, and backup_offsite_repository is", fix)
    for name in ("backup_time", "backup_drill_time", "backup_offsite_check_time"):
        time = values.get(name)
        if time is not None and not _TIME.fullmatch(str(time)):
            yield Problem(name, shown(time), "is no time of day", 'write hours and minutes in quotes, as "02:30"')
