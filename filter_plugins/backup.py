"""Keys of age, and the sources that a backup takes along."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible offers the project's module_utils to modules, which it packs, but not to plugins in its own process.
_MODULE_UTILS = str(Path(__file__).resolve().parents[1] / "module_utils")
if _MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_MODULE_UTILS)

from ansible.module_utils.age_keys import new_identity, recipients_of  # noqa: E402 - see above


def age_identity(_: Any = None) -> str:
    """A new secret key, whatever is piped in."""
    return str(new_identity())


def folder_texts(root: str, folders: Iterable[str]) -> dict[str, str]:
    """Path below `root` -> text of every file in some of its folders, but what tools leave behind."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted(Path(root, folder).rglob("*"))
        if path.is_file() and not any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)
    }


class FilterModule:
    """The filters of this file, in the form in which Ansible asks for them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> filter."""
        return {
            "age_identity": age_identity,
            "age_recipients": recipients_of,
            "folder_texts": folder_texts,
        }
