"""What a host has to be able to do after the role `docker`."""

from typing import Any


def version(host: Any, command: str) -> tuple[int, ...]:
    """The version that a command prints, as numbers."""
    text = host.check_output(command).strip().removeprefix("v").split("-")[0].split("+")[0]
    return tuple(int(part) for part in text.split("."))


def test_engine_answers_and_is_new_enough(host: Any) -> None:
    assert version(host, "docker version --format '{{.Server.Version}}'") >= (20, 10)


def test_compose_and_buildx_are_there(host: Any) -> None:
    assert version(host, "docker compose version --short") >= (2, 20)
    assert host.run("docker buildx version").succeeded


def test_engine_comes_back_after_a_reboot(host: Any) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_nothing_else_comes_from_another_release(host: Any) -> None:
    foreign = host.check_output(
        "apt-cache policy $(dpkg-query -W -f '${Package}\\n') 2>/dev/null | grep -c -B1 'Candidate: (none)' || true"
    )
    assert int(foreign) == 0
    release = host.check_output(". /etc/os-release && echo $VERSION_CODENAME")
    if release == "bookworm":
        assert "deb12" in host.check_output("dpkg-query -W -f '${Version}' base-files containerd libc6 systemd")
