"""A throwaway host in a container (files/images/testhost), to deploy the whole system on.

Nothing of the machine below is touched but one volume that keeps the images between runs: containers, networks, volumes
and ports of what is deployed live in the host's own engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "cariflex-test-"
# Docker's own folder of the test host: images that are there need not be loaded again
CACHE = "cariflex-test-docker"
ARCHIVE = "/srv/cariflex-images"

# What systemd and an engine need beyond Docker's defaults. A privileged container would do as well, and would see every
# device of the machine below; some machines refuse it.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE")
OPTIONS = [
    *("--cgroupns", "private", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *(f"--cap-add={capability}" for capability in CAPABILITIES),
    *("--tmpfs", "/run:exec,mode=755", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,mode=1777"),
]

# What a deployment left in the cache, without the images: an engine that starts would start those containers again.
# Each container's own layer is named in layerdb/mounts.
CLEAN = """
cd /cache
for mount in image/overlay2/layerdb/mounts/*/; do
  [ ! -d "$mount" ] || rm -rf "overlay2/$(cat "$mount/mount-id")" "overlay2/$(cat "$mount/init-id")" "$mount"
done
rm -rf containers network volumes tmp
"""

# Images that are not in the archive any more.
FORGET = f"""
docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' |
  while read -r image; do grep -qF '"'"$image"'"' {ARCHIVE}/manifest.json || echo "$image"; done |
  xargs --no-run-if-empty docker image rm
docker image prune --force
"""


def docker(*arguments: str, timeout: float = 120, stdin: str | None = None) -> str:
    """What a docker command of the machine below prints.

    Raises:
        AssertionError: it failed; with all that it printed.
    """
    ended = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)
    assert ended.returncode == 0, f"docker {' '.join(arguments)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: its code; 0 when there was none.
        headers: by lower-case name.
        body: its text; or curl's message when there was no answer.
    """

    status: int
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        """The body as JSON; a failed assertion that shows it otherwise."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"no JSON in the answer {self.status}: {self.body}") from None


@dataclass(frozen=True)
class Host:
    """A running test host."""

    name: str

    def run(self, *command: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What a command on the host prints; it has to succeed."""
        return docker("exec", *(["-i"] if stdin is not None else []), self.name, *command, stdin=stdin, timeout=timeout)

    def shell(self, script: str) -> str:
        """What a shell script on the host prints; its last command has to succeed."""
        return self.run("sh", "-c", script)

    def sql(self, query: str, database: str = "flexmeasures", **variables: object) -> list[list[str]]:
        """The rows of a query in the deployed database, each value as text; `:name` or `:'name'` is a variable."""
        psql = ["psql", "--no-psqlrc", "--csv", "--tuples-only", "--username=postgres", f"--dbname={database}"]
        psql += ["--set=ON_ERROR_STOP=1", *(f"--set={name}={value}" for name, value in variables.items())]
        rows = self.run("docker", "exec", "-i", "flexmeasures-db", *psql, stdin=query).splitlines()
        return [row.split(",") for row in rows]

    def inspect(self) -> dict[str, dict[str, Any]]:
        """Name -> `docker inspect` of every container that is deployed on the host."""
        ids = self.run("docker", "ps", "--all", "--quiet").split()
        found = json.loads(self.run("docker", "inspect", *ids)) if ids else []
        return {container["Name"].removeprefix("/"): container for container in found}

    def get(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        options: Mapping[str, str] | None = None,
    ) -> Answer:
        """An HTTP request from the host itself, with curl; what it sends stays out of the list of processes."""
        settings = {"url": url, "request": method, "max-time": "30", **(options or {})}
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        lines += [f"header = {json.dumps(f'{name}: {value}')}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += ['header = "Content-Type: application/json"', f"data-binary = {json.dumps(json.dumps(body))}"]
        ended = subprocess.run(
            ["docker", "exec", "-i", self.name, "curl", "--silent", "--show-error", "--include", "--config", "-"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            timeout=60,
        )
        if ended.returncode != 0:
            return Answer(0, {}, ended.stderr)
        head, _, text = ended.stdout.replace("\r\n", "\n").partition("\n\n")
        status, *fields = head.splitlines()
        named = (field.partition(":") for field in fields)
        return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in named}, text)

    def wait_until_booted(self) -> None:
        """Until systemd has started everything."""
        try:
            eventually(lambda: self.shell("systemctl is-system-running || true").strip() == "running", 60)
        except AssertionError as error:
            failed = self.shell("systemctl --failed; journalctl --no-pager --priority 4 --lines 50")
            raise AssertionError(f"{self.name} does not boot: {error}\n{failed}") from None

    def restart(self) -> None:
        """Reboot it."""
        docker("restart", "--time", "90", self.name, timeout=180)
        self.wait_until_booted()


def eventually(check: Callable[[], Any], seconds: float, pause: float = 1) -> Any:
    """The first answer of `check` that is neither false nor a failed assertion; its last failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = check()
            assert answer, f"still {answer!r} after {seconds} s"
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
        else:
            return answer


@contextlib.contextmanager
def running(image: str, archive: Path, say: Callable[[str], None], keep: bool = False) -> Iterator[Host]:
    """A fresh host, gone afterwards.

    Args:
        image: the test host's image.
        archive: folder with the archive of images, mounted at `ARCHIVE`.
        say: tells whoever waits what is going on.
        keep: leave it running afterwards, to look at it.
    """
    with alone(say):
        host = Host(PREFIX + secrets.token_hex(3))
        leftovers = docker("ps", "--all", "--quiet", "--filter", f"volume={CACHE}").split()
        if leftovers:  # of a run that was killed: the lock says that nobody uses them
            docker("rm", "--force", "--volumes", *leftovers)
        docker("run", "--rm", "--network=none", f"--volume={CACHE}:/cache", image, "sh", "-c", CLEAN)
        mounts = [f"--volume={CACHE}:/var/lib/docker", f"--volume={archive}:{ARCHIVE}:ro"]
        docker("run", "--detach", f"--name={host.name}", f"--hostname={host.name}", *OPTIONS, *mounts, image)
        say(f"test host {host.name}")
        try:
            host.wait_until_booted()
            yield host
        finally:
            if keep:
                say(f"{host.name} is kept: docker exec -it {host.name} bash")
            else:
                # frees the images of earlier versions; those of the archive stay for the next run
                subprocess.run(["docker", "exec", host.name, "sh", "-c", FORGET], capture_output=True, timeout=120)
                docker("rm", "--force", "--volumes", host.name)


@contextlib.contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """Waits until no other test run on this machine uses the cache."""
    with Path(tempfile.gettempdir(), f"{CACHE}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another test run on this machine has a test host: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
