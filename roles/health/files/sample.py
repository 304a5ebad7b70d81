#!/usr/bin/python3
"""Sample the health of containers, queues, certificates and the host, and store it in the schema ems.

Run every minute by cariflex-health.timer (or cron) as root: it asks Docker, which no container may. Its argument is a
file with what to look at, as the role health writes it. Standard library only.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Sample = dict[str, Any]
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
COLUMNS = {
    "time": "timestamptz",
    "kind": "text",
    "name": "text",
    "status": "text",
    "detail": "text",
    "cpu": "float8",
    "memory_bytes": "bigint",
    "memory_limit_bytes": "bigint",
    "restarts": "int",
    "disk_used_fraction": "float8",
    "certificate_days": "float8",
    "outbox_age_seconds": "float8",
    "waiting": "int",
    "failed": "int",
}


def run(arguments: list[str], stdin: str = "", seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """A command's result; one that takes too long counts as failed."""
    try:
        return subprocess.run(  # noqa: S603 - commands of this file
            arguments, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(arguments, 1, "", str(error))


def size(text: str) -> int | None:
    """Bytes of a size as Docker writes it, such as 12.3MiB."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", text.strip())
    return int(float(found[1]) * UNITS[found[2]]) if found and found[2] in UNITS else None


def told(output: str) -> Sample:
    """What a service of ours says of itself in its health check: one JSON document a line, cut off at 4 kB."""
    facts: Sample = {}
    for line in output.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            facts = {**said, **facts}
    return facts


def container(name: str, inspected: Sample | None, usage: Sample | None) -> Sample:
    """A container's sample; None stands for one that is not there."""
    sample: Sample = {"kind": "container", "name": name, "status": "missing"}
    if inspected is None:
        return sample
    state = inspected["State"]
    health = state.get("Health") or {}
    status = state["Status"] if state["Status"] != "running" else health.get("Status", "healthy")
    output = (health.get("Log") or [{}])[-1].get("Output", "")
    facts = told(output)
    outbox = facts.get("outbox")
    well = status == "healthy"
    sample.update(
        status="ok" if well else status,
        detail=None if well else ("; ".join(facts.get("reasons", [])) or output.strip() or state.get("Error") or None),
        restarts=inspected["RestartCount"],
        memory_limit_bytes=inspected["HostConfig"]["Memory"] or None,
    )
    if sample["detail"]:
        sample["detail"] = sample["detail"][:500]
    if isinstance(outbox, dict):
        sample.update(
            outbox_age_seconds=outbox["oldest_seconds"], waiting=outbox["waiting"], failed=outbox.get("aside")
        )
    if usage:
        sample.update(
            cpu=float(usage["CPUPerc"].rstrip("%")) / 100,
            memory_bytes=size(usage["MemUsage"].partition("/")[0]),
        )
    return sample


def days_left(expires: str, now: datetime) -> float:
    """Days until a time in ISO 8601."""
    return (datetime.fromisoformat(expires) - now).total_seconds() / 86400


def certificate(name: str, days: float) -> Sample:
    """A certificate's sample."""
    return {"kind": "certificate", "name": name, "status": "ok" if days > 0 else "expired", "certificate_days": days}


def own_certificates(inspected: dict[str, Sample], now: datetime) -> list[Sample]:
    """The certificates that services of ours say they have."""
    found = []
    for name, one in inspected.items():
        log = (one["State"].get("Health") or {}).get("Log") or [{}]
        facts = told(log[-1].get("Output", "")).get("certificate")
        if isinstance(facts, dict):
            found.append(certificate(name, days_left(facts["expires"], now)))
    return found


def served_certificates(metrics: str, now: datetime) -> list[Sample]:
    """The certificates that Traefik serves, from its metrics; of several for a name the one that lasts longest."""
    ends: dict[str, float] = {}
    for labels, value in re.findall(r"^traefik_tls_certs_not_after\{(.*)\} (\S+)$", metrics, re.MULTILINE):
        for name in dict(re.findall(r'(\w+)="([^"]*)"', labels)).get("sans", "").split(","):
            ends[name] = max(ends.get(name, 0.0), float(value))
    return [certificate(name, (end - now.timestamp()) / 86400) for name, end in sorted(ends.items()) if name]


def proxy_metrics(inspected: Sample | None, port: int) -> str:
    """Traefik's metrics, asked from the host at the container's address; nothing where it does not answer."""
    for network in ((inspected or {}).get("NetworkSettings") or {}).get("Networks", {}).values():
        try:
            url = f"http://{network['IPAddress']}:{port}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (OSError, ValueError):
            continue
    return ""


def queues(names: list[str], redis: str) -> list[Sample]:
    """How many jobs wait and have failed in each of FlexMeasures' queues, as RQ keeps them."""
    asked = "".join(f"LLEN rq:queue:{name}\nZCARD rq:failed:{name}\n" for name in names)
    shell = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) exec redis-cli"
    done = run(["docker", "exec", "-i", redis, "sh", "-c", shell], asked)
    numbers = [int(line) for line in done.stdout.split() if line.isdigit()]
    if len(numbers) != 2 * len(names):
        reason = (done.stderr or done.stdout or "no answer").strip()[:500]
        return [{"kind": "queue", "name": name, "status": "unknown", "detail": reason} for name in names]
    return [
        {"kind": "queue", "name": name, "status": "ok", "waiting": numbers[2 * i], "failed": numbers[2 * i + 1]}
        for i, name in enumerate(names)
    ]


def host(paths: list[str]) -> list[Sample]:
    """The fullest of the file systems below some folders, the load and the memory in use."""
    used = []
    for path in paths:
        try:
            found = shutil.disk_usage(path)
        except OSError:
            continue
        used.append(found.used / (found.used + found.free))  # as df has it: without what is reserved for root
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    load = float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0])
    return [
        {
            "kind": "host",
            "name": "host",
            "status": "ok",
            "cpu": load,
            "memory_bytes": memory["MemTotal"] - memory["MemAvailable"],
            "memory_limit_bytes": memory["MemTotal"],
            "disk_used_fraction": max(used, default=None),
        }
    ]


def collect(settings: Sample, now: datetime) -> list[Sample]:
    """One sample of everything."""
    names: list[str] = settings["containers"]
    found = json.loads(run(["docker", "inspect", "--type", "container", *names]).stdout or "[]")
    inspected = {one["Name"].lstrip("/"): one for one in found}
    running = [name for name, one in inspected.items() if one["State"]["Running"]]
    lines = run(["docker", "stats", "--no-stream", "--format", "{{json .}}", *running]).stdout if running else ""
    usage = {one["Name"]: one for one in map(json.loads, lines.splitlines())}
    samples = [container(name, inspected.get(name), usage.get(name)) for name in names]
    samples += own_certificates(inspected, now)
    samples += served_certificates(proxy_metrics(inspected.get("traefik"), settings["proxy_metrics_port"]), now)
    samples += queues(settings["queues"], settings["redis"])
    samples += host(settings["paths"])
    return [{"time": now.isoformat(), **sample} for sample in samples]


def statements(samples: list[Sample], kept_days: int) -> str:
    """SQL that stores them, in one transaction, and forgets old ones. The same samples again change nothing."""
    tag = f"$s{secrets.token_hex(8)}$"
    names = ", ".join(COLUMNS)
    types = ", ".join("{} {}".format(*column) for column in COLUMNS.items())
    given = f"{tag}{json.dumps(samples)}{tag}::jsonb"
    return (
        "BEGIN; SET LOCAL ROLE flexmeasures;\n"  # noqa: S608 - texts of others are within the tag, which nobody can guess
        f"INSERT INTO ems.health_sample ({names}) SELECT {names}"
        f" FROM jsonb_to_recordset({given}) AS sample ({types}) ON CONFLICT DO NOTHING;\n"
        f"DELETE FROM ems.health_sample WHERE time < now() - interval '{int(kept_days)} days';\nCOMMIT;\n"
    )


def main(path: str) -> int:
    """Sample once; 1 when it could not be stored."""
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    now = datetime.now(UTC).replace(microsecond=0)
    psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--username=postgres"]
    stored = run(
        ["docker", "exec", "-i", settings["database_container"], *psql, settings["database"]],
        statements(collect(settings, now), settings["kept_days"]),
    )
    if stored.returncode:
        print(f"the samples were not stored: {stored.stderr.strip()}", file=sys.stderr)
    return int(stored.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
