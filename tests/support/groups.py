"""Which tests run side by side: `make test` has two pytest processes, and each takes the next of these groups.

A group stays in one process, so that what its tests share (a test host, a running EMS) is made once. The long ones come
first, and those that mostly wait beside those that mostly compute.
"""

from collections.abc import Mapping, Sequence

# name -> folders below tests/. The first group's tests need the one test host, or hosts of the same names.
GROUPS: Mapping[str, Sequence[str]] = {
    "hosts": ("integration/site", "integration/molecule"),
    "faults": ("integration/faults",),
    "services": ("unit/services", "unit/fm_plugin", "contract/openadr", "integration/services"),
    "flexmeasures": ("integration/flexmeasures",),
    "lint": ("lint",),
    # in one process, which measures what they reach of module_utils (tests/support/measured.py)
    "module_utils": ("unit/modules", "unit/preflight", "unit/backup"),
    "grafana": ("integration/grafana",),
    "backup": ("integration/backup",),
    "traefik": ("integration/traefik",),
}


def group_of(nodeid: str) -> str:
    """The group of a test; of one that none is named for, its folder, two levels below tests/ at the most."""
    for group, folders in GROUPS.items():
        if nodeid.startswith(tuple(f"tests/{folder}/" for folder in folders)):
            return group
    return "/".join(nodeid.partition("::")[0].split("/")[1:3])


def rank(group: str) -> int:
    """Where a group stands in the order in which groups are begun."""
    return [*GROUPS, group].index(group)
