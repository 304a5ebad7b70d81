#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: all files of a stack's folder in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_files
short_description: Make a folder hold the declared files and secrets, in one task
description:
  - Writes what differs, each file in one step (a reader sees the old or the new content, never half of it), and
    removes what an earlier run wrote and is no longer declared. Files that others put into the folder are left alone.
  - A task of its own for every small file costs about half a second each; a stack has a dozen.
author: Cariflex EMS contributors
options:
  path:
    description: The stack's folder, for instance C(/opt/cariflex/postgres).
    type: path
    required: true
  files:
    description: Path below O(path) to the text of the file.
    type: dict
    default: {}
  record:
    description: File below O(path) that remembers which files a run wrote; another one where several share a folder.
    type: str
    default: .managed.json
  mode:
    description: Octal mode of the O(files).
    type: str
    default: "0644"
  secrets:
    description: Name to value; each becomes the file C(secrets/<name>) with mode 0400. Never shown.
    type: dict
    default: {}
  secrets_owner:
    description: Numeric user that reads the secrets inside its container.
    type: int
    default: 0
  folders:
    description: Path below O(path) to the numeric user that owns it, for a container's data. Never removed.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is written in check mode.
  diff_mode:
    support: full
    description: Of a secret the diff tells only that it changes.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Write the files of the stack
  stack_files:
    path: /opt/cariflex/redis
    files:
      redis.conf: "maxmemory 256mb\n"
    secrets:
      redis_password: "{{ redis_password }}"
    secrets_owner: 999
"""

RETURN = r"""
written:
  description: Paths that were written (would be, in check mode).
  returned: success
  type: list
  elements: str
removed:
  description: Paths that were removed (would be, in check mode).
  returned: success
  type: list
  elements: str
"""

import json
import os
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_files import Change, File, check_path, diff, plan

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "files": {"type": "dict", "default": {}},
    "record": {"type": "str", "default": ".managed.json"},
    "mode": {"type": "str", "default": "0644"},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "secrets_owner": {"type": "int", "default": 0},
    "folders": {"type": "dict", "default": {}},
}


def read(root: Path, path: str, secret: bool) -> File | None:
    """The file as it is, or None."""
    target = root / path
    if not target.is_file():
        return None
    status = target.stat()
    return File(target.read_text(), status.st_mode & 0o7777, status.st_uid, status.st_gid, secret)


def folder_is_wrong(root: Path, path: str, owner: int) -> bool:
    """Whether the folder is missing or somebody else's."""
    target = root / path
    return not target.is_dir() or target.stat().st_uid != owner


def make_folder(root: Path, path: str, owner: int) -> None:
    """Make the folder and give it to its owner alone."""
    target = root / path
    target.mkdir(parents=True, exist_ok=True)
    os.chown(target, owner, owner)
    target.chmod(0o700)


def write(root: Path, change: Change) -> None:
    """Carry out one change."""
    target = root / change.path
    if change.after is None:
        target.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if change.after.secret else 0o755)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w") as stream:
            os.fchown(stream.fileno(), change.after.owner, change.after.group)
            os.fchmod(stream.fileno(), change.after.mode)
            stream.write(change.after.content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    root = Path(options["path"])
    mode = int(options["mode"], 8)
    owner = options["secrets_owner"]
    try:
        desired = {check_path(path): File(str(text), mode, 0, 0) for path, text in options["files"].items()}
        for name, value in options["secrets"].items():
            desired[check_path(f"secrets/{name}")] = File(str(value), 0o400, owner, owner, secret=True)
        folders = {check_path(path): int(uid) for path, uid in options["folders"].items()}
    except ValueError as problem:
        module.fail_json(msg=str(problem))
    wrong_folders = [path for path, uid in folders.items() if folder_is_wrong(root, path, uid)]

    # which files an earlier run wrote: only those may ever be removed
    record = root / options["record"]
    ours = set(json.loads(record.read_text())) if record.is_file() else set()
    found = {path: read(root, path, path.startswith("secrets/")) for path in ours | desired.keys()}
    changes = plan({path: file for path, file in found.items() if file}, desired, ours)

    if not module.check_mode and (changes or ours != desired.keys()):
        root.mkdir(parents=True, exist_ok=True, mode=0o755)
        # first who owns them, then the files: a run that is cut short leaves nothing that no later run would clear away
        write(root, Change(options["record"], None, File(json.dumps(sorted(ours | desired.keys())), 0o600, 0, 0)))
        for change in changes:
            write(root, change)
        write(root, Change(options["record"], None, File(json.dumps(sorted(desired)), 0o600, 0, 0)))
    if not module.check_mode:
        for path in wrong_folders:
            make_folder(root, path, folders[path])
    module.exit_json(
        changed=bool(changes or wrong_folders),
        written=[change.path for change in changes if change.after] + wrong_folders,
        removed=[change.path for change in changes if not change.after],
        diff=diff(str(root), changes),
    )


if __name__ == "__main__":
    main()
