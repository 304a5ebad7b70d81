# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What UFW has to be told so that its rules and policies are the declared ones. Pure: no command is run here."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DIRECTIONS = ("incoming", "outgoing", "routed")
_SETTINGS = {"INPUT": "incoming", "OUTPUT": "outgoing", "FORWARD": "routed"}
_POLICIES = {"DROP": "deny", "ACCEPT": "allow", "REJECT": "reject"}


@dataclass(frozen=True)
class State:
    """UFW as it is, or as it shall be.

    Attributes:
        rules: each as `ufw show added` prints it, without `ufw` and the comment, in its order.
        policies: direction (see `DIRECTIONS`) -> allow, deny or reject.
        active: whether the rules are in the kernel.
    """

    rules: tuple[str, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict)
    active: bool = False


def normalized(rule: str) -> str:
    """A rule as UFW prints it again: single spaces, networks by their first address, single addresses without prefix.

    Raises:
        ValueError: it begins with none of UFW's words for a rule; with what to write.
    """
    words = [_address(word) for word in rule.split()]
    if not words or words[0] not in ("allow", "deny", "reject", "limit", "route"):
        raise ValueError(f"{rule!r} is not a rule of UFW: write it as `ufw show added` prints it, such as allow 80/tcp")
    return " ".join(words)


def _address(word: str) -> str:
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        return word
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def read_rules(shown: str, comment: str) -> tuple[str, ...]:
    """The rules with that comment in what `ufw show added` prints."""
    words = (shlex.split(line) for line in shown.splitlines() if line.startswith("ufw "))
    return tuple(" ".join(rule[1:-2]) for rule in words if rule[-2:] == ["comment", comment])


def read_policies(text: str) -> dict[str, str]:
    """The default policies in UFW's own settings (`/etc/default/ufw`)."""
    found = re.findall(r'^DEFAULT_(INPUT|OUTPUT|FORWARD)_POLICY="?(\w+)"?', text, re.MULTILINE)
    return {_SETTINGS[chain]: _POLICIES.get(policy, policy.lower()) for chain, policy in found}


def plan(current: State, desired: State, comment: str, reload: bool = False) -> list[list[str]]:
    """The arguments of each `ufw` command that is needed, in an order that never shuts out what is declared.

    Args:
        current: UFW as it is, of its rules only those that carry `comment`.
        desired: UFW as it shall be, active.
        comment: what marks the rules that are ours; all others are left alone.
        reload: whether files that UFW reads were changed.
    """
    missing = [rule for rule in _unique(desired.rules) if rule not in current.rules]
    stale = [rule for rule in _unique(current.rules) if rule not in desired.rules]
    policies = [name for name in DIRECTIONS if current.policies.get(name) != desired.policies[name]]
    # what is allowed first: the policy that denies the rest comes into force afterwards
    commands = [[*rule.split(), "comment", comment] for rule in missing]
    commands += [["default", desired.policies[name], name] for name in policies]
    if not current.active:
        commands.append(["--force", "enable"])
    elif reload:
        commands.append(["reload"])
    return commands + [_deletion(rule) for rule in stale]


def _deletion(rule: str) -> list[str]:
    words = rule.split()
    return ["route", "delete", *words[1:]] if words[0] == "route" else ["delete", *words]


def _unique(rules: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(rules))


def text(state: State) -> str:
    """A state in lines, for a diff."""
    policies = [f"default {state.policies[name]} {name}" for name in DIRECTIONS if name in state.policies]
    return "\n".join([f"active: {'yes' if state.active else 'no'}", *policies, *state.rules, ""])
