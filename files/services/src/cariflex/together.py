"""Several processes as one service: they start together and end together. The first process of a container.

Standard library only. When one of them ends, the others are stopped and its exit status becomes the whole's, so that
the restart policy of the container brings all of them back.
"""

import asyncio
import shlex
import signal
import sys
from asyncio.subprocess import Process

STOP_SECONDS = 8.0  # Docker grants 15 by our compose file


async def run(commands: list[str]) -> int:
    """Run the commands until one of them ends or a signal comes.

    Returns:
        0 after SIGTERM or SIGINT, otherwise the status of the one that ended first; 1 when that was 0 or a signal's,
        because a service has no business to end by itself.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    processes: list[Process] = []
    try:
        for command in commands:
            processes.append(await asyncio.create_subprocess_exec(*shlex.split(command)))
        ends = [asyncio.create_task(process.wait()) for process in processes]
        signalled = asyncio.create_task(stop.wait())
        await asyncio.wait([*ends, signalled], return_when=asyncio.FIRST_COMPLETED)
        statuses = [end.result() for end in ends if end.done()]
        signalled.cancel()
    finally:
        await asyncio.gather(*(_end(process) for process in processes))
    if stop.is_set():
        return 0
    return statuses[0] if statuses[0] > 0 else 1


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def cli() -> None:
    """Entry point of `cariflex-together`: each argument is a command."""
    sys.exit(asyncio.run(run(sys.argv[1:])))
