"""Hands the groups of tests to pytest-xdist's processes, each as a whole."""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

from tests.support.groups import group_of


class Groups(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """A process that is through with its group takes the next one.

    `--dist loadgroup` would need node ids with the group's name added, which pytest 9.2 does not let it see.
    """

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the longest groups are not those with the most tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
