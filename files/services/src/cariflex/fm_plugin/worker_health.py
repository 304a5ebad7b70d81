"""The worker container's health check: ``python -m cariflex.fm_plugin.worker_health``.

Exit code 0 when a worker of this host is listed in Redis and listening, else 1 with the reason on standard output.
"""

from __future__ import annotations

import socket
import sys

from redis.exceptions import RedisError

from cariflex.fm_plugin import configuration, probes


def problem() -> str | None:
    """What is wrong with this host's worker, or None."""
    try:
        with probes.connected(configuration.load()) as connection:
            hosts = {worker.hostname for worker in probes.live_workers(connection)}
    except RedisError as error:
        return f"Redis: {error}"
    host = socket.gethostname()
    return None if host in hosts else f"no worker of {host} is listening (yet); listening: {', '.join(hosts) or 'none'}"


if __name__ == "__main__":
    found = problem()
    if found:
        print(found)
    sys.exit(bool(found))
