"""Whether the controller itself is recent enough. Written so that the old versions it refuses can still read it."""

from __future__ import annotations

PYTHON_MIN = (3, 11)
ANSIBLE_MIN = (2, 19)


def controller_problems(python: tuple[int, ...], ansible: tuple[int, ...]) -> list[tuple[str, str, str, str]]:
    """What is too old of the Python and the ansible-core that run the playbook, in the fields of a `Problem`."""
    needed = "Python {}.{} or newer".format(*PYTHON_MIN)
    fix = "make dev brings its own; by hand: ./bootstrap.sh with " + needed + ", then .venv/bin/ansible-playbook"
    checks = (("Python", python, PYTHON_MIN), ("ansible-core", ansible, ANSIBLE_MIN))
    return [
        (name, ".".join(map(str, version)), "is too old, {}.{} or newer is needed".format(*oldest), fix)
        for name, version, oldest in checks
        if version[:2] < oldest
    ]
