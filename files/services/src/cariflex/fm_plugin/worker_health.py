"""The worker container's health check: ``python -m cariflex.fm_plugin.worker_health``.

Exit code 0 when a worker of this host is listed in Redis and listening, else 1 with the reason on standard output.

RQ's worker goes deaf when the thread that listens for commands ends, as it does after some troubles of the network:
the worker stays alive, and nobody can tell it from one that was killed. Docker restarts no container for being
unhealthy, so the check ends a worker that has listened once and does so no longer; the restart policy brings it back.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from redis.exceptions import RedisError

from cariflex.fm_plugin import configuration, probes

DEAF_SECONDS = 40.0  # two checks in a row
# Its time is when the worker last listened; gone with the container's /tmp when the worker starts again.
LISTENED = Path("/tmp/cariflex-worker-listened")  # noqa: S108 - a memory of this container alone


class Deaf(Exception):  # noqa: N818 - a state, not an error
    """Redis answers, and no worker of this host is listening."""


def look() -> None:
    """See that a worker of this host listens.

    Raises:
        Deaf: none does.
        RedisError: Redis cannot be asked.
    """
    with probes.connected(configuration.load()) as connection:
        hosts = {worker.hostname for worker in probes.live_workers(connection)}
    host = socket.gethostname()
    if host not in hosts:
        raise Deaf(f"no worker of {host} is listening (yet); listening: {', '.join(hosts) or 'none'}")


def check(
    look: Callable[[], None] = look,
    end: Callable[[], None] = lambda: os.kill(1, signal.SIGTERM),
    clock: Callable[[], float] = time.time,
) -> str | None:
    """What is wrong with this host's worker, or None; ends a worker that has gone deaf.

    Args:
        look: sees whether it listens.
        end: ends it; what it is working on, it finishes.
        clock: Unix time.
    """
    try:
        look()
    except RedisError as error:
        if LISTENED.exists():  # nobody can say of this time that it was deaf
            _listened(clock())
        return f"Redis: {error}"
    except Deaf as deaf:
        if LISTENED.exists() and clock() - LISTENED.stat().st_mtime > DEAF_SECONDS:
            LISTENED.unlink()
            end()
            return f"{deaf}; it is being restarted"
        return str(deaf)
    _listened(clock())
    return None


def _listened(moment: float) -> None:
    LISTENED.touch()
    os.utime(LISTENED, (moment, moment))


if __name__ == "__main__":
    found = check()
    if found:
        print(found)
    sys.exit(bool(found))
