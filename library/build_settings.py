#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the host's apt and pip settings that a build inside a container needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: build_settings
short_description: Read the apt mirror, proxies and pip indexes that the host itself uses
description:
  - A build in a container starts without the host's settings; behind a proxy or a private mirror it would fail.
  - Only reads. Settings that name a file or folder of the host are left out, since a container does not have them.
author: Cariflex EMS contributors
options: {}
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  idempotent:
    support: full
    description: It only reads.
"""

EXAMPLES = r"""
- name: Read the host's apt and pip settings
  build_settings:
  register: settings
"""

RETURN = r"""
debian_mirror:
  description: The Debian mirror in the host's apt sources; an empty text where the host is no Debian.
  returned: success
  type: str
apt_conf:
  description: Settings on how to download, in the form of apt.conf.
  returned: success
  type: str
pip_conf:
  description: Index, proxy and time-out settings, in the form of pip.conf.
  returned: success
  type: str
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.build_settings import apt_conf, debian_mirror, pip_conf

ARGUMENT_SPEC: dict[str, object] = {}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    apt_config = module.get_bin_path("apt-config", required=True)
    dump = module.run_command([apt_config, "dump"], check_rc=True)[1]
    sources = [
        path.read_text()
        for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))
        if path.suffix in {".list", ".sources"} and path.is_file()
    ]
    pip_files = [path.read_text() for path in (Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf")) if path.is_file()]
    module.exit_json(
        changed=False,
        debian_mirror=debian_mirror(sources),
        apt_conf=apt_conf(dump),
        pip_conf=pip_conf(pip_files, os.environ),
    )


if __name__ == "__main__":
    main()
