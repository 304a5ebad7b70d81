"""The host itself: its engine, kernel, clock, updates, SSH server and bans."""

import json
import re
from typing import Any

import pytest

WARNINGS = re.compile(r"warning|error|invalid|unknown", re.IGNORECASE)


def test_the_engine_was_started_with_our_settings(host: Any) -> None:
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    assert info["LiveRestoreEnabled"] is True
    assert info["LoggingDriver"] == "json-file"
    assert "name=no-new-privileges" in info["SecurityOptions"]
    bridge = json.loads(host.check_output("docker network inspect bridge"))
    assert bridge[0]["Options"]["com.docker.network.bridge.enable_icc"] == "false"


def test_containers_run_on_while_the_engine_restarts(host: Any) -> None:
    host.check_output("apt-get install --yes --no-install-recommends busybox-static")
    host.check_output("tar --create --directory /usr/bin busybox | docker import - sleeper")
    host.check_output("docker run --detach --name sleeper sleeper /busybox sleep 600")
    try:
        before = host.check_output("docker inspect --format '{{ .State.Pid }}' sleeper")
        host.check_output("systemctl restart docker")
        assert host.check_output("docker inspect --format '{{ .State.Pid }} {{ .State.Running }}' sleeper") == (
            f"{before} true"
        )
    finally:
        host.check_output("docker rm --force sleeper && docker rmi sleeper")


@pytest.mark.parametrize(
    ("name", "value"),
    [("net.ipv4.conf.all.accept_redirects", 0), ("net.ipv4.conf.all.send_redirects", 0), ("net.ipv4.ip_forward", 1)],
)
def test_the_kernel_is_strict_and_still_forwards(name: str, value: int, host: Any) -> None:
    assert host.sysctl(name) == value


def test_nothing_of_the_machine_below_is_set_from_a_container(host: Any) -> None:
    settings = host.file("/etc/sysctl.d/60-cariflex.conf").content_string
    assert "net.ipv4" in settings
    assert not re.search(r"^(kernel|fs|vm)\.", settings, re.MULTILINE)


def test_the_clock_is_kept_where_it_may_be_set(host: Any) -> None:
    assert host.package("chrony").is_installed
    assert "makestep 1 -1" in host.check_output("chronyd -p -f /etc/chrony/chrony.conf")
    # these hosts may not
    assert not host.service("chrony").is_running


def test_security_updates_come_by_themselves_and_restart_nothing(host: Any) -> None:
    assert host.check_output("apt-config shell x APT::Periodic::Unattended-Upgrade") == "x='1'"
    assert host.check_output("apt-config shell x Unattended-Upgrade::Automatic-Reboot") == "x='false'"
    said = host.run("unattended-upgrade --dry-run --debug 2>&1").stdout
    (allowed,) = re.findall(r"^Allowed origins are: (.*)$", said, re.MULTILINE)
    assert "-security" in allowed
    assert all("-security" in origin for origin in allowed.split(", origin="))
    assert "^docker" in said


def test_the_ssh_server_takes_keys_only(host: Any) -> None:
    shown = host.check_output("sshd -T").splitlines()
    for line in (
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitrootlogin without-password",
        "pubkeyauthentication yes",
        "x11forwarding no",
    ):
        assert line in shown
    assert host.service("ssh").is_running


def test_who_fails_again_and_again_is_banned(host: Any) -> None:
    assert host.service("fail2ban").is_running
    assert host.service("fail2ban").is_enabled
    assert host.check_output("fail2ban-client get sshd maxretry") == "5"
    host.check_output("fail2ban-client set sshd banip 192.0.2.66")
    try:
        assert "192.0.2.66" in host.check_output("nft list ruleset")
    finally:
        host.check_output("fail2ban-client set sshd unbanip 192.0.2.66")
