# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of a machine's apt and pip settings a build in a container can use."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping

# How to download, not what to install: `Acquire::http::Proxy "…";` and its like, and checks switched off on purpose.
APT_KEYS = re.compile(
    r"^Acquire::(https?::|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]|Languages)", re.IGNORECASE
)
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def debian_mirror(sources: Iterable[str]) -> str:
    """The first Debian archive in the texts of apt's sources (one-line or deb822 form), or an empty text."""
    pattern = re.compile(r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(https?://\S*/debian)/?(?=\s|$)", re.MULTILINE)
    for text in sources:
        if found := pattern.search(text):
            return found.group(1)
    return ""


def apt_conf(dump: str) -> str:
    """The lines of `apt-config dump` that say how to download, without those that name a file of this machine."""
    lines = (line.strip() for line in dump.splitlines())
    return "".join(f"{line}\n" for line in lines if APT_KEYS.match(line) and '"/' not in line and '""' not in line)


def pip_conf(files: Iterable[str], environment: Mapping[str, str]) -> str:
    """A pip.conf with the index, proxy and time-out settings of pip.conf texts and PIP_* variables (these win).

    Addresses of files (`file://…`, `/…`) are dropped: a container does not have them.
    """
    settings: dict[str, str] = {}
    for text in files:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text)
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update({key: value for key, value in parser.items(section) if key in PIP_KEYS})
    for key in PIP_KEYS:
        if value := environment.get("PIP_" + key.upper().replace("-", "_")):
            settings[key] = value
    usable = {
        key: " ".join(word for word in value.split() if not word.startswith(("file:", "/")))
        for key, value in settings.items()
    }
    lines = [f"{key} = {value}" for key, value in sorted(usable.items()) if value]
    return "\n".join(["[global]", *lines, ""]) if lines else ""
