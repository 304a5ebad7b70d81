"""Whether the controller itself is recent enough. Written so that the old versions it refuses can still read it."""

from __future__ import annotations

PYTHON_MIN = (3, 11)
ANSIBLE_MIN = (2, 19)


def controller_problems(python: tuple[int, ...], ansible: tuple[int, ...]) -> list[tuple[str, str, str, str]]:
    """What is too old of the Python and the ansible-core that run the playbook, in the fields of a `Problem`."""
    fix = "run it as README.md says (make dev), or make the environment by hand with Python {}.{}: {}".format(
        *PYTHON_MIN, "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    )
    checks = (("Python", python, PYTHON_MIN), ("ansible-core", ansible, ANSIBLE_MIN))
    return [
        (name, ".".join(map(str, version)), "is too old, {}.{} or newer is needed".format(*oldest), fix)
        for name, version, oldest in checks
        if version[:2] < oldest
    ]
