"""From a bare host to a running EMS: the real playbooks on a whole host, judged through the real APIs and the database.

The tests are in the order of the stages (conftest.py). What is expected is written out from the documentation of the
system, not derived from playbooks/vars/topology.yml.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.integration.site.conftest import CA, FLEXMEASURES, Below, Drifted, Rotated, Site, Stage, below
from tests.support.host import Answer, Host, docker, eventually
from tests.support.panels import PSQL, without_rows

pytestmark = pytest.mark.docker

SENSORS = """
41 pv_01_power kW
42 pv_02_power kW
43 pv_03_power kW
44 pv_04_power kW
45 pv_05_power kW
46 pv_06_power kW
47 pv_07_power kW
48 pv_08_power kW
49 pv_09_power kW
50 pv_10_power kW
51 bat_01_power kWh
52 bat_02_power kWh
53 bat_03_power kWh
54 bat_04_power kWh
55 bat_05_power kWh
56 bat_06_power kWh
57 bat_07_power kWh
58 bat_08_power kWh
59 bat_09_power kWh
60 bat_10_power kWh
61 ev_01_power kWh
62 ev_02_power kWh
63 ev_03_power kWh
64 ev_04_power kWh
65 ev_05_power kWh
66 ev_06_power kWh
67 ev_07_power kWh
68 ev_08_power kWh
69 ev_09_power kWh
70 ev_10_power kWh
81 irradiance W/m²
82 temperature °C
83 wind_speed m/s
84 consumption_price EUR/MWh
85 production_price EUR/MWh
86 load_control_signal %
87 demand_response_signal dimensionless
"""

# Container -> its networks, each with the documented address or any.
CONTAINERS: dict[str, dict[str, str | None]] = {
    "traefik": {"traefik-public": None},
    "flexmeasures-server": {
        "traefik-public": None,
        "flexmeasures-internal": None,
        "openadr-internal": "192.168.240.20",
    },
    "flexmeasures-worker": {"flexmeasures-internal": None},
    "flexmeasures-db": {"flexmeasures-internal": None},
    "flexmeasures-redis": {"flexmeasures-internal": None},
    "openadr-vtn": {"openadr-internal": "192.168.240.10", "flexmeasures-internal": None},
    "openadr-ven": {"openadr-internal": "192.168.240.11"},
    "openadr-simulator": {"openadr-internal": "192.168.240.30"},
    "cariflex-feeds": {"openadr-internal": None},
}
GRAFANA: dict[str, dict[str, str | None]] = {
    "smart-city-grafana": {"traefik-public": None, "flexmeasures-internal": None}
}

VTN = "http://192.168.240.10:8081"
VEN = "Cariflex-VEN-001"


def expected_containers(site: Site) -> dict[str, dict[str, str | None]]:
    """The documented containers; Grafana's only where its image can be had."""
    return CONTAINERS | (GRAFANA if "grafana" in site.images else {})


def healthy(host: Host) -> set[str]:
    """Names of the containers that run and are healthy."""
    return {
        name
        for name, container in host.inspect().items()
        if container["State"]["Running"] and container["State"].get("Health", {}).get("Status") == "healthy"
    }


def started(containers: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Which container it is and when it started: equal only where it was neither replaced nor restarted."""
    return {name: (container["Id"], container["State"]["StartedAt"]) for name, container in containers.items()}


# --- before anything exists ------------------------------------------------------------------------------------------


def test_the_host_is_bare(bare: Site) -> None:
    assert bare.host.shell("command -v docker || echo none").strip() == "none"
    assert bare.host.shell("ls /opt").split() == []


def test_a_preview_of_a_bare_host_succeeds_and_shows_what_would_change(previewed: Stage) -> None:
    assert previewed.run.count("failed") == 0
    assert previewed.run.count("changed") > 0


def test_a_preview_changes_nothing(previewed: Stage) -> None:
    assert previewed.host.shell("command -v docker || echo none").strip() == "none"
    assert not previewed.host.shell("ls -d /opt/cariflex /var/cache/cariflex /etc/docker 2>/dev/null || true")
    ours = re.compile(r"^/(root/\.ansible|var/log|var/lib/systemd|var/tmp|etc/machine-id|etc/\.updated|var/\.updated)")
    written = [line[2:] for line in docker("diff", previewed.host.name).splitlines() if line[0] == "A"]
    # what systemd writes when it boots is older than the preview
    boot = previewed.host.shell("stat --format %Y /proc/1").strip()
    newer = previewed.host.shell(f"find / -xdev -newermt @{int(boot) + 15} -not -type d 2>/dev/null || true").split()
    assert [path for path in newer if path in written and not ours.match(path)] == []


# --- the deployed system ---------------------------------------------------------------------------------------------


def test_every_container_is_healthy(deployed: Stage) -> None:
    assert healthy(deployed.host) == set(expected_containers(deployed))


def test_the_summary_names_addresses_and_the_arrived_price(deployed: Stage) -> None:
    printed = " ".join(deployed.run.output.split())
    for expected in (FLEXMEASURES, "admin@digitribe.fr", "vault.yml", "is in sensor 84"):
        assert expected in printed


def test_networks_have_the_documented_subnets(deployed: Stage) -> None:
    listed = deployed.host.run("docker", "network", "ls", "--quiet", "--filter", "type=custom").split()
    networks = json.loads(deployed.host.run("docker", "network", "inspect", *listed))
    assert {network["Name"]: (network["IPAM"]["Config"][0]["Subnet"], network["Internal"]) for network in networks} == {
        "traefik-public": ("172.29.0.0/16", False),
        "openadr-internal": ("192.168.240.0/24", False),
        "flexmeasures-internal": ("192.168.241.0/24", True),
    }


def test_containers_are_in_their_networks_with_their_addresses(deployed: Stage) -> None:
    found = {
        name: {network: entry["IPAddress"] for network, entry in container["NetworkSettings"]["Networks"].items()}
        for name, container in deployed.host.inspect().items()
    }
    expected = expected_containers(deployed)
    assert {name: set(networks) for name, networks in found.items()} == {k: set(v) for k, v in expected.items()}
    for name, networks in expected.items():
        fixed = {network: address for network, address in networks.items() if address}
        assert {network: found[name][network] for network in fixed} == fixed


def test_the_sensors_are_the_documented_ones_and_ours_from_101_up(deployed: Stage) -> None:
    rows = deployed.host.sql("SELECT id, name, unit FROM sensor ORDER BY id")
    assert [" ".join(row) for row in rows if int(row[0]) <= 100] == SENSORS.split("\n")[1:-1]
    assert [" ".join(row) for row in rows if int(row[0]) > 100] == [
        *(f"{100 + number} battery_{number:02}_power_kw kW" for number in range(1, 6)),
        *(f"{105 + number} ev_{number:02}_power_kw kW" for number in range(1, 6)),
        "111 site_load_power kW",
    ]


def test_every_sensor_belongs_to_its_asset_on_the_site(deployed: Stage) -> None:
    rows = deployed.host.sql(
        "SELECT s.name, a.name, p.name FROM sensor s JOIN generic_asset a ON a.id = s.generic_asset_id"
        " LEFT JOIN generic_asset p ON p.id = a.parent_asset_id WHERE s.id <= 70 ORDER BY s.id"
    )
    expected = [
        [f"{kind.lower()}_{number:02}_power", f"{kind}_{number:02}", "Cariflex"]
        for kind in ("PV", "Bat", "EV")
        for number in range(1, 11)
    ]
    assert rows == expected


def test_there_are_no_other_assets_than_the_site_and_its_devices(deployed: Stage) -> None:
    rows = deployed.host.sql(
        "SELECT t.name, count(*), min(a.latitude), min(a.longitude) FROM generic_asset a"
        " JOIN generic_asset_type t ON t.id = a.generic_asset_type_id GROUP BY t.name ORDER BY t.name"
    )
    place = ["14.6415", "-61.0242"]
    assert [row[:2] for row in rows] == [["battery", "10"], ["site", "1"], ["solar", "10"], ["two-way_evse", "10"]]
    assert next(row for row in rows if row[0] == "site")[2:] == place


def test_accounts_and_users(deployed: Stage) -> None:
    rows = deployed.host.sql("SELECT u.email, a.name FROM fm_user u JOIN account a ON a.id = u.account_id ORDER BY 1")
    assert rows == [["admin@digitribe.fr", "Cariflex"], ["ven@cariflex.internal", "Cariflex"]]


# --- what is public --------------------------------------------------------------------------------------------------


def through_proxy(host: Host, path: str, **options: str) -> Answer:
    """A request to FlexMeasures as a browser on the host would make it, trusting the local authority only."""
    return host.get(FLEXMEASURES + path, options={"cacert": CA, **options})


def test_flexmeasures_answers_by_https_with_the_local_authority(deployed: Stage) -> None:
    answer = through_proxy(deployed.host, "/health")
    assert answer.status == 200, answer
    assert answer.json()["status"] == "ok"
    assert set(answer.json()["checks"]) >= {"database", "redis", "workers"}
    assert answer.headers["strict-transport-security"]


def test_the_certificate_does_not_hold_without_that_authority(deployed: Stage) -> None:
    answer = deployed.host.get(FLEXMEASURES + "/health")
    assert answer.status == 0
    assert "certificate" in answer.body


def test_http_is_redirected(deployed: Stage) -> None:
    answer = deployed.host.get("http://cariflex.localhost/health")
    assert (answer.status, answer.headers["location"]) == (301, FLEXMEASURES + "/health")


def test_the_registering_endpoint_is_not_public(deployed: Stage) -> None:
    address = "http://192.168.240.20:5000/cariflex/v1/topology"
    assert deployed.host.get(address, method="POST", body={}).status == 401, (
        "the endpoint is not where it is looked for"
    )
    assert through_proxy(deployed.host, "/cariflex/v1/topology").status == 404


def test_an_unknown_name_gets_no_certificate(deployed: Stage) -> None:
    answer = deployed.host.get("https://example.org/", options={"connect-to": "example.org:443:127.0.0.1:443"})
    assert answer.status == 0
    assert "unrecognized name" in answer.body


def test_grafana_answers_or_is_left_out_with_a_line(deployed: Stage) -> None:
    if "grafana" not in deployed.images:
        assert "grafana is left out" in deployed.run.output
        return
    answer = deployed.host.get("https://grafana.cariflex.localhost/api/health", options={"cacert": CA})
    assert (answer.status, answer.json()["database"]) == (200, "ok")


def test_only_traefik_publishes_ports(deployed: Stage) -> None:
    published = {
        name: sorted(port for port, bindings in container["NetworkSettings"]["Ports"].items() if bindings)
        for name, container in deployed.host.inspect().items()
    }
    assert {name: ports for name, ports in published.items() if ports} == {"traefik": ["443/tcp", "80/tcp"]}


def test_nothing_else_on_the_host_can_be_reached_from_outside(deployed: Stage) -> None:
    listening = {line.split()[3] for line in deployed.host.run("ss", "-Hltn").splitlines()}
    outside = {address for address in listening if not address.startswith("127.0.0.1:")}
    assert outside == {"0.0.0.0:80", "[::]:80", "0.0.0.0:443", "[::]:443"}


# --- the way of an event ---------------------------------------------------------------------------------------------


def token(site: Site) -> dict[str, str]:
    """The header that opens the VTN's API."""
    return {"Authorization": f"Bearer {site.secrets()['vault_openadr_api_token']}"}


def put_event(site: Site, event_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create an event through the VTN's API and wait until the VEN has answered it; the event with that answer."""
    answer = site.host.get(f"{VTN}/api/v1/events/{event_id}", method="PUT", headers=token(site), body=body)
    assert answer.status == 201, answer

    def answered() -> Any:
        event = site.host.get(f"{VTN}/api/v1/events/{event_id}", headers=token(site)).json()
        return event if event["opts"][VEN] else None

    event: dict[str, Any] = eventually(answered, 40)
    return event


def values(site: Site, sensor: int, unit: str, start: datetime, duration: str, count: int) -> list[float]:
    """What FlexMeasures' API tells of a sensor, once it is there completely."""
    login = site.login()

    def complete() -> Any:
        query = urlencode({"start": start.isoformat(), "duration": duration, "unit": unit})
        answer = site.host.get(
            f"{FLEXMEASURES}/api/v3_0/sensors/{sensor}/data?{query}", headers=login, options={"cacert": CA}
        )
        assert answer.status == 200, answer
        found = answer.json()
        assert found["unit"] == unit
        return found["values"] if found["values"].count(None) == 0 and len(found["values"]) == count else None

    arrived: list[float] = eventually(complete, 60)
    return arrived


def hour(days: int) -> datetime:
    """The full hour that many days ahead."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=days)


def stored(site: Site, sensor: int, start: datetime, hours: int) -> list[tuple[str, float]]:
    """Start (UTC) and value of everything stored for a sensor within some hours."""
    rows = site.host.sql(
        "SELECT to_char(event_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), event_value FROM timed_belief"
        " WHERE sensor_id = :sensor AND event_start >= :'start' AND event_start < :'end' ORDER BY event_start",
        sensor=sensor,
        start=start.isoformat(),
        end=(start + timedelta(hours=hours)).isoformat(),
    )
    return [(row[0], float(row[1])) for row in rows]


def test_the_ven_is_registered_with_the_vtn(deployed: Stage) -> None:
    (ven,) = deployed.host.get(f"{VTN}/api/v1/vens", headers=token(deployed)).json()["vens"]
    assert (ven["ven_id"], ven["registration_id"]) == (VEN, "reg-Cariflex-VEN-001")


def test_the_vtns_api_wants_its_token(deployed: Stage) -> None:
    assert deployed.host.get(f"{VTN}/api/v1/events").status == 401


def test_the_documented_openadr_address_answers(deployed: Stage) -> None:
    address = "http://192.168.240.10:8080/OpenADR2/Simple/2.0b/OadrPoll"
    assert deployed.host.get(address, method="POST", body={}).status not in (0, 404)


def test_an_energy_price_of_24_hours_arrives_in_sensor_84(deployed: Stage) -> None:
    start, prices = hour(3), [80 + 1.5 * number for number in range(24)]
    event = put_event(
        deployed,
        "site-price",
        {
            "signal_name": "ENERGY_PRICE",
            "unit": "EUR/MWh",
            "start": start.isoformat(),
            "intervals": [{"duration": "PT1H", "value": price} for price in prices],
            "targets": [VEN],
        },
    )
    assert event["opts"][VEN]["opt_type"] == "optIn"
    assert values(deployed, 84, "EUR/MWh", start, "PT24H", 24) == prices
    expected = [(f"{start + timedelta(hours=number):%Y-%m-%d %H:%M}", price) for number, price in enumerate(prices)]
    assert stored(deployed, 84, start - timedelta(hours=1), 26) == expected


def test_a_load_control_of_4_hours_arrives_in_sensor_86(deployed: Stage) -> None:
    start = hour(3)
    event = put_event(
        deployed,
        "site-load",
        {
            "signal_name": "LOAD_CONTROL",
            "unit": "%",
            "start": start.isoformat(),
            "intervals": [{"duration": "PT3H", "value": 60}, {"duration": "PT1H", "value": 40}],
            "targets": "all",
        },
    )
    assert event["opts"][VEN]["opt_type"] == "optIn"
    assert values(deployed, 86, "%", start, "PT4H", 16) == [60.0] * 12 + [40.0] * 4
    assert len(stored(deployed, 86, start - timedelta(hours=1), 6)) == 16


def test_data_flow_by_themselves_a_week_of_history_weather_and_the_tariff(deployed: Stage) -> None:
    """All 30 device sensors, weather and the price of what is fed in; each value says whose it is."""

    def fed() -> dict[int, tuple[int, str]]:
        rows = deployed.host.sql(
            "SELECT sensor_id, count(DISTINCT event_start),"
            " string_agg(DISTINCT replace(data_source.name, ',', ''), '+')"
            " FROM timed_belief JOIN data_source ON data_source.id = source_id"
            " WHERE sensor_id BETWEEN 41 AND 85 GROUP BY sensor_id"
        )
        return {int(sensor): (int(count), names) for sensor, count, names in rows}

    eventually(lambda: {*range(41, 71), 81, 82, 83, 85} <= fed().keys(), 180)
    found = fed()
    assert all(found[sensor][0] >= 7 * 288 for sensor in range(41, 71))
    assert all("simulator" in found[sensor][1] for sensor in range(41, 71))
    # the test host has no internet
    assert {found[sensor][1] for sensor in (81, 82, 83)} == {"clear sky simulated"}
    assert found[85][0] >= 7 * 24 + 48
    # history that is made up has been known since a meter would have told it, not since the deployment
    known = deployed.host.sql(
        "SELECT DISTINCT replace(data_source.name, ',', ''), belief_horizon = interval '0' FROM timed_belief"
        " JOIN data_source ON data_source.id = source_id WHERE data_source.type = 'feed' ORDER BY 1"
    )
    assert known == [["clear sky simulated", "t"], ["simulator", "t"]]


# --- secrets ---------------------------------------------------------------------------------------------------------


TEXT = "tr -cd '[:print:]\\n'"  # of files some of which are databases


def leaks(site: Site, text: str) -> list[str]:
    """Names of the secrets whose value is in a text."""
    return [name for name, value in site.secrets().items() if value in text]


def test_secrets_are_generated_each_its_own_and_outside_git(deployed: Stage) -> None:
    secrets = deployed.secrets()
    assert len(secrets) > 10
    assert len(set(secrets.values())) == len(secrets)
    assert all(len(secret) == 40 for secret in secrets.values())


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("docker inspect $(docker ps --all --quiet)", id="docker inspect"),
        pytest.param("cat /proc/[0-9]*/cmdline", id="arguments"),
        pytest.param("cat /proc/[0-9]*/environ 2>/dev/null", id="environment"),
        pytest.param(f"find /opt/cariflex -type f -not -path '*/secrets/*' -exec cat {{}} + | {TEXT}", id="files"),
        pytest.param("for c in $(docker ps --all --quiet); do docker logs $c; done 2>&1", id="logs"),
        pytest.param("journalctl --no-pager", id="journal"),
        pytest.param("docker image inspect $(docker image ls --quiet)", id="images"),
    ],
)
def test_no_secret_is_in(deployed: Stage, command: str) -> None:
    text = deployed.host.shell(command)
    assert text
    assert leaks(deployed, text) == []


def test_no_secret_is_in_what_ansible_prints(deployed: Stage) -> None:
    assert leaks(deployed, deployed.run.output) == []


def test_secret_files_are_readable_by_their_service_only(deployed: Stage) -> None:
    modes = deployed.host.shell("find /opt/cariflex -path '*/secrets/*' -type f -printf '%m\n' | sort -u").split()
    assert modes == ["400"]


def redis(site: Site, *command: str) -> str:
    """What Redis answers to its user for backups."""
    script = 'REDISCLI_AUTH=$(cat /run/secrets/redis_backup_password) redis-cli --user backup "$@" 2>&1'
    return site.host.run("docker", "exec", "flexmeasures-redis", "sh", "-c", script, "sh", *command)


def test_redis_saves_for_its_backup_user_and_shows_it_no_data(deployed: Stage) -> None:
    assert redis(deployed, "ping").strip() == "PONG"
    assert int(redis(deployed, "lastsave")) > 0
    assert "rdb_bgsave_in_progress" in redis(deployed, "info", "persistence")
    assert "Background saving" in redis(deployed, "bgsave")
    for refused in ("keys x", "get x", "set x 1", "config get save", "acl list", "shutdown"):
        assert "NOPERM" in redis(deployed, *refused.split()), refused


# --- CIS Docker Benchmark, section 5 (docs/decisions/0026-cis-docker-benchmark.md) ------------------------------------

Container = dict[str, Any]


def mounts(container: Container) -> set[str]:
    """What of the host a container sees."""
    return {mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"}


CIS: dict[str, Callable[[Container], bool]] = {
    "5.2 AppArmor profile not switched off": lambda c: c["AppArmorProfile"] != "unconfined",
    "5.4 no capabilities": lambda c: c["HostConfig"]["CapDrop"] == ["ALL"] and not c["HostConfig"]["CapAdd"],
    "5.5 not privileged": lambda c: c["HostConfig"]["Privileged"] is False,
    "5.6 no system folders of the host": lambda c: all(path.startswith("/opt/cariflex/") for path in mounts(c)),
    "5.10 the host's network is not shared": lambda c: c["HostConfig"]["NetworkMode"] != "host",
    "5.11 memory is limited": lambda c: c["HostConfig"]["Memory"] > 0,
    "5.12 a CPU weight is set": lambda c: c["HostConfig"]["CpuShares"] > 0,
    "5.13 the root file system is read-only": lambda c: c["HostConfig"]["ReadonlyRootfs"] is True,
    "5.16 the host's processes are not shared": lambda c: c["HostConfig"]["PidMode"] == "",
    "5.17 the host's IPC is not shared": lambda c: c["HostConfig"]["IpcMode"] == "private",
    "5.18 no devices of the host": lambda c: not c["HostConfig"]["Devices"],
    "5.20 mounts are not shared": lambda c: all(mount.get("Propagation") != "shared" for mount in c["Mounts"]),
    "5.21 the host's UTS is not shared": lambda c: c["HostConfig"]["UTSMode"] == "",
    "5.22 seccomp and 5.26 no-new-privileges": lambda c: c["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"],
    "5.25 no cgroup of its own choice": lambda c: c["HostConfig"]["CgroupParent"] == "",
    "5.27 health is checked": lambda c: bool(c["Config"]["Healthcheck"]["Test"]),
    "5.29 processes are limited": lambda c: c["HostConfig"]["PidsLimit"] > 0,
    "5.30 not on the default network": lambda c: "bridge" not in c["NetworkSettings"]["Networks"],
    "5.31 the host's user namespace is not shared": lambda c: c["HostConfig"]["UsernsMode"] == "",
    "5.32 no Docker socket": lambda c: not any("docker.sock" in path for path in mounts(c)),
    "4.1 not root": lambda c: int(c["Config"]["User"].split(":")[0]) > 0,
    "logs are limited": lambda c: bool(c["HostConfig"]["LogConfig"]["Config"]["max-size"]),
}


@pytest.mark.parametrize("item", CIS)
def test_every_container_holds(deployed: Stage, item: str) -> None:
    assert [name for name, container in deployed.host.inspect().items() if not CIS[item](container)] == []


# --- the dashboard ---------------------------------------------------------------------------------------------------


def test_every_panel_shows_what_has_happened(deployed: Stage) -> None:
    """All 14, as Grafana's role, on what a deployed host has brought about by itself and for three events."""
    events = deployed.host.get(f"{VTN}/api/v1/events?limit=1000", headers=token(deployed)).json()["events"]
    # the self check's price begins with the hour after it, which may have come
    priced = any(event["signal_name"] == "ENERGY_PRICE" and event["status"] == "active" for event in events)
    for event_id, signal, unit, value, lasts in (
        *(() if priced else (("site-price-now", "ENERGY_PRICE", "EUR/MWh", 120, "PT1H"),)),
        ("site-load-now", "LOAD_CONTROL", "%", 50, "PT2H"),
        ("site-level-now", "SIMPLE", "dimensionless", 1, "PT2H"),
    ):
        body = {"signal_name": signal, "unit": unit, "start": hour(0).isoformat(), "targets": "all"}
        put_event(deployed, event_id, body | {"intervals": [{"duration": lasts, "value": value}]})

    def psql(statement: str) -> str:
        return deployed.host.run("docker", "exec", "-i", "flexmeasures-db", "sh", "-c", PSQL, stdin=statement)

    def nothing_is_empty() -> bool:
        empty = without_rows(psql)
        assert empty == set(), f"nothing is shown in {sorted(empty)}"
        return True

    # net power has to wait for five minutes of the sun
    eventually(nothing_is_empty, 420, pause=10)


# --- drift -----------------------------------------------------------------------------------------------------------


DRIFT = """
container flexmeasures-redis network openadr-internal: declared not joined, found joined
container openadr-vtn network flexmeasures-internal: declared joined, found not joined
container openadr-ven: declared running, found exited
container stranger: declared none, found in the network traefik-public
FlexMeasures sensors.pv_01_power: declared name = pv_01_power, found name = PV power
"""


def test_each_difference_is_a_line_and_the_status_says_that_there_are_some(drifted: Drifted) -> None:
    assert drifted.run.status == 2
    printed = map(str.strip, drifted.run.output.splitlines())
    assert [line for line in printed if ": declared " in line] == DRIFT.split("\n")[1:-1], drifted.run.output
    assert "5 differences from the topology, 0 parts not looked at" in drifted.run.output


def test_the_differences_are_written_as_json(drifted: Drifted) -> None:
    assert drifted.report["host"] == drifted.host.name
    assert drifted.report["not_looked_at"] == []
    told = ["{where}: declared {declared}, found {found}".format(**one) for one in drifted.report["differences"]]
    assert told == DRIFT.split("\n")[1:-1]


def test_looking_for_drift_changes_nothing(drifted: Drifted) -> None:
    assert drifted.run.count("changed") == 0
    before, after = drifted.as_found
    assert after == before
    assert leaks(drifted, drifted.run.output) == []


def test_without_a_difference_it_says_so(drifted: Drifted) -> None:
    assert drifted.undone.status == 0, drifted.undone.output
    assert "No drift: all as declared" in drifted.undone.output
    assert drifted.undone.count("changed") == 0


# --- once more -------------------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(repeated: Stage) -> None:
    assert repeated.run.changed_tasks() == []
    assert repeated.run.count("changed") == 0


def test_a_second_run_restarts_nothing(repeated: Stage) -> None:
    assert started(repeated.host.inspect()) == started(repeated.before)


def test_a_preview_of_the_deployed_host_shows_no_change(checked: Stage) -> None:
    assert checked.run.changed_tasks() == []
    assert checked.run.count("changed") == 0
    assert started(checked.host.inspect()) == started(checked.before)


# --- after a reboot --------------------------------------------------------------------------------------------------


def test_a_backup_is_made_that_only_the_controller_can_read(checked: Stage) -> None:
    run = checked.play("playbooks/backup.yml")
    assert run.status == 0, run.output
    ((status, name),) = checked.host.sql("SELECT status, archive FROM ems.backup_run WHERE kind = 'full'")
    assert status == "ok"
    assert name.endswith(".tar.gz.age")
    assert f"/var/backups/cariflex/{name}, " in run.output
    assert checked.host.shell("stat --format %a /var/backups/cariflex/*").split() == ["600", "600"]
    key: str = yaml.safe_load((checked.inventory / "group_vars/all/backup_vault.yml").read_text())["backup_identity"]
    verify = ("cariflex-backup", "--json", "verify")
    assert json.loads(checked.host.run(*verify))["contents"] == "not read: encrypted"
    assert json.loads(checked.host.run(*verify, "--identity-on-stdin", stdin=key))["contents"] == "good"
    held = (
        "grep --recursive --files-with-matches --fixed-strings --file=- /opt/cariflex /etc /var/backups /root || true"
    )
    assert checked.host.run("sh", "-c", held, stdin=key) == ""


def test_everything_comes_back_after_a_reboot(rebooted: Stage) -> None:
    eventually(lambda: healthy(rebooted.host) == set(expected_containers(rebooted)), 180)
    now, before = rebooted.host.inspect(), rebooted.before
    assert {name: container["Id"] for name, container in now.items()} == {
        name: container["Id"] for name, container in before.items()
    }
    assert all(now[name]["State"]["StartedAt"] > before[name]["State"]["StartedAt"] for name in before)
    assert eventually(lambda: through_proxy(rebooted.host, "/health").status == 200, 60)


def test_what_was_stored_is_still_there_after_a_reboot(rebooted: Stage) -> None:
    assert len(stored(rebooted, 84, hour(3) - timedelta(hours=1), 26)) >= 23
    events = rebooted.host.get(f"{VTN}/api/v1/events", headers=token(rebooted)).json()["events"]
    assert {"site-price", "site-load"} <= {event["event_id"] for event in events}


def test_a_new_event_flows_after_a_reboot(rebooted: Stage) -> None:
    start = hour(6)
    event = put_event(
        rebooted,
        "site-after-reboot",
        {
            "signal_name": "ENERGY_PRICE",
            "unit": "EUR/MWh",
            "start": start.isoformat(),
            "intervals": [{"duration": "PT1H", "value": 77.5}],
            "targets": "all",
        },
    )
    assert event["opts"][VEN]["opt_type"] == "optIn"
    assert values(rebooted, 84, "EUR/MWh", start, "PT1H", 1) == [77.5]


# --- other secrets ---------------------------------------------------------------------------------------------------


def test_every_secret_is_another(rotated: Rotated) -> None:
    new = rotated.secrets()
    assert new.keys() == rotated.old_secrets.keys()
    assert not set(new.values()) & set(rotated.old_secrets.values())


def test_the_services_follow_and_nothing_holds_an_old_secret(rotated: Rotated) -> None:
    assert healthy(rotated.host) == set(expected_containers(rotated))
    files = rotated.host.shell(f"find /opt/cariflex -type f -exec cat {{}} + | {TEXT}")
    assert any(value in files for value in rotated.secrets().values()), "the files were read, secrets among them"
    assert [name for name, value in rotated.old_secrets.items() if value in files] == []


def test_old_secrets_open_nothing(rotated: Rotated) -> None:
    old = rotated.old_secrets
    header = {"Authorization": f"Bearer {old['vault_openadr_api_token']}"}
    assert rotated.host.get(f"{VTN}/api/v1/events", headers=header).status == 401
    login = {"email": "admin@digitribe.fr", "password": old["vault_flexmeasures_admin_password"]}
    refused = rotated.host.get(
        f"{FLEXMEASURES}/api/requestAuthToken", method="POST", body=login, options={"cacert": CA}
    )
    assert refused.status in (401, 422), refused
    for role, secret in (
        ("postgres", "postgres_superuser"),
        ("flexmeasures", "flexmeasures_db"),
        ("openadr", "openadr_db"),
        ("grafana_ro", "grafana_db"),
        ("cariflex_backup", "postgres_backup"),
    ):
        command = f"psql -h $(hostname -i | cut -d' ' -f1) -U {role} -d postgres -c 'SELECT 1' 2>&1 || true"
        password = f"PGPASSWORD={old[f'vault_{secret}_password']}"
        printed = rotated.host.run("docker", "exec", "--env", password, "flexmeasures-db", "sh", "-c", command)
        assert "password authentication failed" in printed, printed


def test_a_new_event_flows_with_other_secrets(rotated: Rotated) -> None:
    start = hour(7)
    event = put_event(
        rotated,
        "site-other-secrets",
        {
            "signal_name": "ENERGY_PRICE",
            "unit": "EUR/MWh",
            "start": start.isoformat(),
            "intervals": [{"duration": "PT1H", "value": 66.5}],
            "targets": "all",
        },
    )
    assert event["opts"][VEN]["opt_type"] == "optIn"
    assert values(rotated, 84, "EUR/MWh", start, "PT1H", 1) == [66.5]


# --- the end ---------------------------------------------------------------------------------------------------------


def volumes(site: Site) -> set[str]:
    """Names of the volumes with the system's data."""
    return {name for name in site.host.run("docker", "volume", "ls", "--quiet").split() if "-" in name}


def test_stopping_removes_containers_and_keeps_the_data(stopped: Stage) -> None:
    assert stopped.host.inspect() == {}
    assert {"flexmeasures-db-data", "flexmeasures-redis-data", "openadr-ven-data", "cariflex-feeds-data"} <= volumes(
        stopped
    )
    assert stopped.host.shell("ls /opt/cariflex").split()


def test_purging_leaves_nothing(purged: Stage) -> None:
    assert volumes(purged) == set()
    assert purged.host.run("docker", "network", "ls", "--quiet", "--filter", "type=custom").split() == []
    assert purged.host.shell("ls -d /opt/cariflex /var/cache/cariflex 2>/dev/null || true") == ""
    assert purged.host.shell("ls /usr/local/sbin/cariflex-* /etc/systemd/system/cariflex-* 2>/dev/null || true") == ""
    assert purged.host.shell("ls /var/backups/cariflex").split()  # backups outlive what they are of
    assert not (purged.inventory / "group_vars/all/vault.yml").exists()


# --- the machine below -----------------------------------------------------------------------------------------------


def test_the_machines_own_containers_networks_and_volumes_are_untouched(purged: Stage, below_before: Below) -> None:
    now = below()
    for kind in ("containers", "networks", "volumes"):
        before, after = getattr(below_before, kind), getattr(now, kind)
        same = {name: after.get(name) for name in before}
        assert same == before, f"{kind} of this machine changed: by the test, or by somebody else meanwhile?"
    new = {*now.containers, *now.networks, *now.volumes} - {
        *below_before.containers,
        *below_before.networks,
        *below_before.volumes,
    }
    ours = {*expected_containers(purged), "flexmeasures-db-data", "flexmeasures-redis-data", "openadr-ven-data"}
    assert not new & (ours | {"traefik-public", "openadr-internal", "flexmeasures-internal"})
