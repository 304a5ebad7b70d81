"""A production server, asked from outside: what is open, who gets in, what is served. Before and after a reboot.

What somebody may want to quote is printed, in lines that begin with "proof: ".
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HOST = "cariflex-molecule-production"
OUTSIDE = "cariflex-molecule-outside"
testinfra_hosts = [f"ansible://{HOST}"]

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
PASSWORD = PROJECT / "molecule/production/vault-password"
INVENTORY = PROJECT / ".cache/molecule-production/prod"
ADDRESS, FLEXMEASURES = "198.51.100.7", "cariflex.digitribe.fr"
OPERATOR, INTERNAL = "198.51.100.20", "192.168.77.2"
CONTAINERS = {
    *("traefik", "flexmeasures-server", "flexmeasures-worker", "flexmeasures-db", "flexmeasures-redis"),
    *("openadr-vtn", "openadr-ven", "cariflex-feeds"),
}
SSH = (
    "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=4"
    " -o LogLevel=ERROR"
)


def proof(text: str) -> None:
    """Print something that may be quoted."""
    for line in text.splitlines():
        print(f"proof: {line}")


def outside(command: str, timeout: float = 120) -> str:
    """What a shell command prints on the other side, whether it succeeds or not."""
    done = subprocess.run(
        ["docker", "exec", OUTSIDE, "sh", "-c", command], capture_output=True, text=True, timeout=timeout, check=False
    )
    return (done.stdout + done.stderr).strip()


def eventually(check: Callable[[], Any], seconds: float) -> Any:
    """The first true answer; the last one when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < deadline:
        time.sleep(1)
    return answer


def serial(domain: str) -> str:
    """The number of the certificate that is shown for a name and chains to the authority; empty without one."""
    ask = f"openssl s_client -connect {domain}:443 -servername {domain} -CAfile /pki/root.crt -verify_return_error"
    return outside(f"{ask} </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null").removeprefix("serial=")


@pytest.fixture(scope="module", autouse=True)
def up(host: Any) -> None:
    """Wait until everything runs."""

    def healthy() -> set[str]:
        return set(host.check_output("docker ps --filter health=healthy --format '{{ .Names }}'").split())

    assert eventually(lambda: healthy() >= CONTAINERS, 180), host.check_output("docker ps --all")


@pytest.fixture(scope="module")
def first(host: Any) -> None:
    """Skips what one look is enough for."""
    if host.file("/root/seen").exists:
        pytest.skip("seen before the reboot")  # it takes minutes, and a reboot changes nothing of it


@pytest.fixture(scope="module")
def tunnel(host: Any) -> Iterator[None]:
    """The operator's machine in the VPN, with the file that the host made for it."""
    configuration = host.file("/etc/wireguard/clients/operator.conf").content_string
    subprocess.run(
        [
            "docker",
            "exec",
            "-i",
            OUTSIDE,
            "sh",
            "-c",
            "umask 077; mkdir -p /etc/wireguard; cat >/etc/wireguard/ems.conf",
        ],
        input=configuration,
        text=True,
        check=True,
    )
    started = outside("wg-quick up ems")
    assert "ems" in outside("wg show interfaces"), started
    yield
    outside("wg-quick down ems")


# --- what is open ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("first")
def test_of_all_ports_a_stranger_finds_80_and_443() -> None:
    scan = outside(f"nmap -Pn -n -p- --min-rate 4000 --max-retries 1 -S 198.51.100.10 -e eth0 {ADDRESS}", 300)
    proof(scan)
    assert re.findall(r"^(\d+)/tcp +open ", scan, re.MULTILINE) == ["80", "443"]
    assert "65533 filtered" in scan


def test_ssh_is_for_the_allowed_networks() -> None:
    assert outside(f"{SSH} -b {OPERATOR} root@{ADDRESS} hostname") == HOST
    assert "timed out" in outside(f"{SSH} -b 198.51.100.10 root@{ADDRESS} hostname")
    assert "Permission denied (publickey)" in outside(
        f"{SSH} -b {OPERATOR} -o PubkeyAuthentication=no -o PreferredAuthentications=password root@{ADDRESS} hostname"
    )


@pytest.mark.usefixtures("tunnel")
def test_wireguard_gives_ssh_the_vtns_api_and_grafanas_port(host: Any) -> None:
    assert eventually(lambda: outside(f"{SSH} root@10.8.0.1 hostname") == HOST, 20)
    proof(outside("wg show ems latest-handshakes"))
    assert int(outside("wg show ems latest-handshakes").split()[-1]) > 0
    assert "401" in outside("curl -s -m 5 -o /dev/null -w '%{http_code}' http://192.168.240.10:8081/api/v1/events")
    # in place of Grafana, whose image comes from a registry
    image = host.check_output("docker inspect --format '{{ .Config.Image }}' flexmeasures-server")
    host.check_output(
        f"docker run --detach --rm --name stand-in --network traefik-public {image} python3 -m http.server 3000"
    )
    try:
        address = host.check_output(
            "docker inspect --format '{{ (index .NetworkSettings.Networks \"traefik-public\").IPAddress }}' stand-in"
        )
        get = f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{address}"
        assert eventually(lambda: outside(f"{get}:3000/") == "200", 20)
        assert outside(f"{get}:8083/") == "000"  # Traefik's metrics are nobody's
    finally:
        host.check_output("docker rm --force stand-in")


@pytest.mark.usefixtures("first")
def test_who_fails_at_ssh_again_and_again_is_banned(host: Any) -> None:
    attempt = f"{SSH} -b {INTERNAL} -o PubkeyAuthentication=no nobody@192.168.77.1 true"
    assert "Permission denied" in outside(attempt)
    for _ in range(5):
        outside(attempt)
    assert eventually(lambda: INTERNAL in host.check_output("fail2ban-client status sshd"), 20)
    assert "Permission denied" not in outside(attempt)
    assert outside(f"{SSH} -b {OPERATOR} root@{ADDRESS} hostname") == HOST


# --- what is served --------------------------------------------------------------------------------------------------


def test_certificates_chain_to_the_authority() -> None:
    assert eventually(lambda: serial(FLEXMEASURES), 60)
    answer = outside(f"curl -sS -m 10 --cacert /pki/root.crt https://{FLEXMEASURES}/health")
    assert json.loads(answer)["status"] == "ok"


@pytest.mark.usefixtures("first")
def test_certificates_are_renewed_when_told_to() -> None:
    before = eventually(lambda: serial(FLEXMEASURES), 60)
    for _ in range(3):  # where the authority came back before port 80 was open
        command = ["ansible-playbook", "playbooks/renew_certificates.yml", "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
        done = subprocess.run(
            [*command, "-i", INVENTORY],
            cwd=PROJECT,
            env=os.environ | {"ANSIBLE_VAULT_PASSWORD_FILE": str(PASSWORD)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout
    after = eventually(lambda: serial(FLEXMEASURES), 60)
    proof(f"certificate {before}, and after renewal {after}")
    assert after not in (before, "")


@pytest.mark.usefixtures("first")
def test_a_judge_of_tls_finds_nothing_above_low() -> None:
    assert eventually(lambda: serial(FLEXMEASURES), 60)
    judge = "testssl --quiet --color 0 --add-ca /pki/root.crt --overwrite --jsonfile /tmp/judged.json"
    outside(f"{judge} https://{FLEXMEASURES}/ >/tmp/judged.txt", 300)
    judged = json.loads(outside("cat /tmp/judged.json"))
    assert len(judged) > 100
    # the first is about the judge's own OpenSSL, the second about the authority, which names no list of what it revoked
    judged = [one for one in judged if one["id"].split()[0] not in ("engine_problem", "cert_revocation")]
    counts = {
        level: sum(one["severity"] == level for one in judged) for level in ("OK", "INFO", "LOW", "MEDIUM", "HIGH")
    }
    grades = {one["id"]: one["finding"] for one in judged if one["id"] in ("overall_grade", "final_score")}
    proof(f"testssl.sh: {counts}, {grades}")
    found = [one for one in judged if one["severity"] in ("WARN", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert [f"{one['id']}: {one['finding']}" for one in found] == []


# --- the host --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """What the engine says of itself.

    Attributes:
        info: `docker info`.
        bridge: `docker network inspect` of the default network.
        settings: its file of settings and its arguments.
    """

    info: dict[str, Any]
    bridge: dict[str, Any]
    settings: str


@pytest.fixture(scope="module")
def engine(host: Any) -> Engine:
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    (bridge,) = json.loads(host.check_output("docker network inspect bridge"))
    arguments = host.check_output("tr '\\0' ' ' </proc/$(pidof dockerd)/cmdline")
    return Engine(info, bridge, host.file("/etc/docker/daemon.json").content_string + arguments)


# CIS Docker Benchmark 1.7, section 2 (docs/decisions/0026-cis-docker-benchmark.md)
ENGINE: dict[str, Callable[[Engine], bool]] = {
    "2.2 no traffic between containers of the default network": lambda engine: (
        engine.bridge["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    ),
    "2.3 logging level": lambda engine: "log-level" not in engine.settings,
    "2.4 the engine may change iptables": lambda engine: "iptables" not in engine.settings,
    "2.5 no insecure registries": lambda engine: "insecure-registr" not in engine.settings,
    "2.6 no aufs": lambda engine: engine.info["Driver"] == "overlay2",
    "2.7 no port of the engine": lambda engine: "tcp://" not in engine.settings and '"hosts"' not in engine.settings,
    "2.11 no control group of its own choice": lambda engine: "cgroup-parent" not in engine.settings,
    "2.13 logs are limited": lambda engine: '"max-size"' in engine.settings,
    "2.14 no new privileges": lambda engine: "name=no-new-privileges" in engine.info["SecurityOptions"],
    "2.15 containers run on while the engine restarts": lambda engine: engine.info["LiveRestoreEnabled"] is True,
    "2.17 the engine's own seccomp profile": lambda engine: (
        "name=seccomp,profile=builtin" in engine.info["SecurityOptions"]
    ),
    "2.18 nothing experimental": lambda engine: engine.info["ExperimentalBuild"] is False,
}


@pytest.mark.parametrize("item", ENGINE)
def test_the_engine_holds(item: str, engine: Engine) -> None:
    holds = ENGINE[item](engine)
    proof(f"CIS {item}: {'held' if holds else 'NOT HELD'}")
    assert holds


@pytest.mark.usefixtures("first")
def test_no_secret_can_be_read_off_the_engine_or_the_processes(host: Any) -> None:
    vault = INVENTORY / "group_vars/all/vault.yml"
    shown = subprocess.run(
        ["ansible-vault", "view", "--vault-password-file", PASSWORD, vault], capture_output=True, text=True, check=True
    ).stdout
    secrets = dict(re.findall(r'^(vault_\w+): "(\w+)"$', shown, re.MULTILINE))
    assert len(secrets) > 12
    for what, command in {
        "docker inspect": "docker inspect $(docker ps --all --quiet)",
        "ps": "ps auxeww",
        "logs": "for c in $(docker ps --all --quiet); do docker logs $c; done 2>&1; journalctl --no-pager",
        "compose.yml": "cat /opt/cariflex/*/compose.yml",
    }.items():
        text = host.check_output(command)
        found = [name for name, value in secrets.items() if value in text]
        proof(f"{what}: {len(text)} characters, of {len(secrets)} secrets found: {found or 'none'}")
        assert found == []


@pytest.mark.parametrize("unit", ["docker", "fail2ban", "ssh", "ufw", "wg-quick@wg0"])
def test_it_runs_now_and_at_every_boot(unit: str, host: Any) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


@pytest.mark.usefixtures("first")
def test_an_auditor_is_content(host: Any) -> None:
    host.check_output("apt-get install --yes --no-install-recommends lynis")
    report = host.run(
        "lynis audit system --quick --no-colors --quiet; grep ^hardening_index= /var/log/lynis-report.dat"
    ).stdout
    (index,) = re.findall(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    proof(f"lynis hardening index {index}")
    warnings = host.run("grep '^warning' /var/log/lynis-report.dat").stdout
    proof(warnings)


def test_the_first_look_is_over(host: Any) -> None:
    host.check_output("touch /root/seen")
