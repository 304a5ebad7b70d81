"""The worker's health check: a worker that has gone deaf is ended once, one that cannot be judged never."""

from collections.abc import Callable
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from cariflex.fm_plugin import worker_health
from cariflex.fm_plugin.worker_health import DEAF_SECONDS, Deaf, check


class Worker:
    """What the check sees at a time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.raises: Exception | None = None
        self.ended: list[float] = []

    def look(self) -> None:
        if self.raises:
            raise self.raises

    def end(self) -> None:
        self.ended.append(self.now)

    def checked(self, after: float = 15) -> str | None:
        self.now += after
        return check(self.look, self.end, lambda: self.now)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Worker:
    monkeypatch.setattr(worker_health, "LISTENED", tmp_path / "listened")
    return Worker()


def test_a_worker_that_listens_is_well(worker: Worker) -> None:
    assert [worker.checked() for _ in range(3)] == [None] * 3
    assert not worker.ended


def test_one_that_goes_deaf_is_ended_once(worker: Worker) -> None:
    worker.checked()
    worker.raises = Deaf("nobody")
    assert worker.checked(DEAF_SECONDS - 1) == "nobody"
    assert not worker.ended
    assert worker.checked() == "nobody; it is being restarted"
    assert [worker.checked() for _ in range(9)] == ["nobody"] * 9
    assert len(worker.ended) == 1, "until it has listened again"
    worker.raises = None
    worker.checked()
    worker.raises = Deaf("nobody")
    assert "restarted" in str(worker.checked(DEAF_SECONDS + 1))


@pytest.mark.parametrize("raises", [RedisError("away"), Deaf("nobody")])
def test_one_that_starts_or_has_lost_redis_is_left_alone(worker: Worker, raises: Exception) -> None:
    worker.raises = raises
    said: Callable[[], str | None] = worker.checked
    assert all(said() for _ in range(20))
    assert not worker.ended


def test_an_outage_of_redis_does_not_count_as_deaf(worker: Worker) -> None:
    worker.checked()
    worker.raises = RedisError("away")
    worker.checked(600)
    worker.raises = Deaf("not yet")
    worker.checked()
    worker.raises = None
    assert worker.checked() is None
    assert not worker.ended
