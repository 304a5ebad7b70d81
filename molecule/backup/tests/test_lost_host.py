"""A server that works is backed up, dies, and comes back on an empty one.

The tests are in the order of what happens; `told` keeps what the server was, to be found again. What goes wrong in a
container alone, a full disk, a damaged or cut archive, is in tests/integration/backup. Lines that begin with "proof: "
may be quoted.
"""

import contextlib
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.grafana.conftest import expand
from tests.support.host import CLEAN, Host, docker, eventually
from tests.support.playbook import ROOT, Run, play

SERVER, SPARE, NAS = (Host(f"cariflex-molecule-backup{suffix}") for suffix in ("", "-spare", "-nas"))
testinfra_hosts = [f"ansible://{SERVER.name}"]

FOLDER = ROOT / ".cache/molecule-backup"
INVENTORY = FOLDER / "dev"
FETCHED = FOLDER / "fetched"
ARCHIVES = "/var/backups/cariflex"
VTN = "http://192.168.240.10:8081/api/v1"
FLEXMEASURES = "https://cariflex.localhost"
CA = "/opt/cariflex/traefik/certificates/ca.crt"
VEN = "Cariflex-VEN-001"
OPERATOR = {"email": "zelie.canari@example.org", "password": "before-the-loss-1"}
NEW_ONES_ONLY = "rest:http://nas.example.net:8000/"
OF_NEW_ONES_ONLY = "RESTIC_REST_USERNAME=ems\nRESTIC_REST_PASSWORD=one-run\n"
# a user that only the database knows
ADD_OPERATOR = f"""
from flexmeasures.app import create
from flexmeasures.data import db
from flexmeasures.data.services.users import create_user
with create().app_context():
    create_user(username="zelie.canari", account_name="Cariflex", check_email_deliverability=False, **{OPERATOR})
    db.session.commit()
"""
# without those that this program, logins and samples of health change all the time
STILL = (
    "public.account",
    "public.sensor",
    "public.generic_asset",
    "public.generic_asset_type",
    "public.data_source",
    "public.alembic_version",
    "ems.alembic_version",
)


def proof(text: str) -> None:
    """Print something that may be quoted."""
    print(f"proof: {text}")


def played(*arguments: str) -> Run:
    """Run a playbook as an operator does; it has to succeed."""
    run = play("-i", INVENTORY, *arguments)
    assert run.status == 0, run.output
    return run


def of_inventory(name: str, variable: str) -> str:
    """A variable in one of the inventory's files."""
    value: str = yaml.safe_load((INVENTORY / f"group_vars/all/{name}.yml").read_text())[variable]
    return value


def vtn(host: Host, path: str, method: str = "GET", body: Any = None) -> dict[str, Any]:
    """Ask the VTN."""
    header = {"Authorization": f"Bearer {of_inventory('vault', 'vault_openadr_api_token')}"}
    answer = host.get(f"{VTN}/{path}", method=method, headers=header, body=body)
    assert answer.status in (200, 201), answer
    told: dict[str, Any] = answer.json()
    return told


def order(host: Host, event_id: str, price: float, ahead: timedelta) -> datetime:
    """Order a price for one hour; when it begins."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + ahead
    intervals = [{"duration": "PT1H", "value": price}]
    event = {"signal_name": "ENERGY_PRICE", "unit": "EUR/MWh", "start": start.isoformat(), "intervals": intervals}
    vtn(host, f"events/{event_id}", "PUT", event | {"targets": "all"})
    return start


def arrived(host: Host, start: datetime, price: float) -> bool:
    """Whether FlexMeasures has a price."""
    found = host.sql(
        "SELECT event_value FROM timed_belief WHERE sensor_id = 84 AND event_start = :'start'", start=start.isoformat()
    )
    return [price] in [[float(value) for value in row] for row in found if row[0]]


def login(host: Host, who: Mapping[str, str], ca: str = CA) -> int:
    """What the status is of logging in to FlexMeasures, as a browser that trusts one authority."""
    url = f"{FLEXMEASURES}/api/requestAuthToken"
    return host.get(url, method="POST", body=dict(who), options={"cacert": ca}).status


def runs(host: Host, kind: str) -> list[tuple[str, str]]:
    """Status and error of the recorded runs, the oldest first."""
    query = "SELECT status, replace(coalesce(error, ''), ',', ';') FROM ems.backup_run WHERE kind = :'kind'"
    return [(row[0], row[1]) for row in host.sql(f"{query} ORDER BY started_at", kind=kind) if row[0]]


def fingerprint(host: Host) -> dict[str, dict[str, Any]]:
    """Rows and hash of each table of FlexMeasures' database as it is now."""
    program = (
        "import json; from cariflex_backup.database import Server;"
        " print(json.dumps(Server('flexmeasures-db').fingerprint('flexmeasures')['tables']))"
    )
    printed = host.run("env", "PYTHONPATH=/opt/cariflex/backup", "python3", "-B", "-c", program)
    tables: dict[str, dict[str, Any]] = json.loads(printed)
    return tables


def newest_moments(host: Host) -> list[datetime]:
    """The ends of all stretches of time that can be restored."""
    told = json.loads(host.run("cariflex-backup", "--json", "moments"))
    return [datetime.fromisoformat(one.partition(" to ")[2]) for one in told["moments"]]


def archives(host: Host) -> list[str]:
    """Names of what has an archive's final name."""
    return [name for name in host.run("ls", ARCHIVES).split() if name.endswith(".age")]


def refused(host: Host, *command: str) -> str:
    """What a command says that has to fail."""
    ended = subprocess.run(["docker", "exec", host.name, *command], capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0, ended.stdout
    return ended.stdout + ended.stderr


@contextlib.contextmanager
def write_load(host: Host) -> Iterator[None]:
    """Fifty transactions a second write beliefs."""
    insert = (
        "INSERT INTO timed_belief SELECT date_trunc('day', now()) + random() * interval '1000 days', interval '0',"
        " 0.5, random(), 41, (SELECT min(id) FROM data_source) ON CONFLICT DO NOTHING \\watch 0.02\n"
    )
    command = ["docker", "exec", "-i", host.name, "docker", "exec", "-i", "flexmeasures-db"]
    psql = ["psql", "--quiet", "--username=postgres", "--dbname=flexmeasures", "--set=ON_ERROR_STOP=1"]
    with subprocess.Popen([*command, *psql], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as writer:
        assert writer.stdin
        writer.stdin.write(insert)
        writer.stdin.flush()
        time.sleep(1)
        yield
        assert writer.poll() is None, "the load ended too soon"
        writer.kill()
        # docker exec does not take its command with it
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE :'what'"
        end = f"SELECT pg_terminate_backend(pid) {others}"
        host.sql(end, what="INSERT%1000 days%")


@dataclass
class Told:
    """What the server was when it was backed up."""

    archive: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    sensors: list[list[str]] = field(default_factory=list)
    ven: dict[str, Any] = field(default_factory=dict)
    price_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    wireguard: str = ""
    ca: str = ""
    before_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    after_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    lost_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@pytest.fixture(scope="module")
def told() -> Told:
    """Filled while the server lives."""
    return Told()


# --- while it works --------------------------------------------------------------------------------------------------


def test_the_server_works_and_has_what_only_its_data_know(told: Told) -> None:
    SERVER.run("docker", "exec", "-i", "flexmeasures-server", "python3", "-", stdin=ADD_OPERATOR)
    assert login(SERVER, OPERATOR) == 200
    told.price_at = order(SERVER, "before-the-loss", 81.5, timedelta(days=3))
    eventually(lambda: arrived(SERVER, told.price_at, 81.5), 60)
    (told.ven,) = vtn(SERVER, "vens")["vens"]
    told.sensors = SERVER.sql("SELECT id, name, unit FROM sensor ORDER BY id")
    told.wireguard = SERVER.run("wg", "show", "wg0", "public-key")
    told.ca = SERVER.run("cat", CA)


def test_a_backup_killed_in_its_middle_leaves_nothing_that_looks_like_one() -> None:
    SERVER.shell(
        "systemctl start --no-block cariflex-backup.service;"
        f" until ls {ARCHIVES}/.staging-*/*/postgres/*.dump >/dev/null 2>&1; do sleep 0.05; done;"
        " systemctl kill --signal KILL cariflex-backup.service"
    )
    assert archives(SERVER) == []
    assert runs(SERVER, "full") == [("running", "")]


def test_a_backup_is_made_while_everything_writes(told: Told) -> None:
    with write_load(SERVER):
        run = played("playbooks/backup.yml")
    proof(re.findall(rf"{ARCHIVES}/\S+, [^\n]*rows, in [\d.]+ s", " ".join(run.output.split()))[0])
    assert runs(SERVER, "full") == [("failed", "it was killed; or the host went down"), ("ok", "")]
    assert runs(SERVER, "offsite") == [("ok", "")]
    (told.archive,) = archives(SERVER)


def test_the_archive_is_fetched_and_read_without_this_project(told: Told) -> None:
    FETCHED.mkdir()
    for name in (told.archive, f"{told.archive}.sha256"):
        docker("cp", f"{SERVER.name}:{ARCHIVES}/{name}", str(FETCHED))
    # after that nothing is in it any more
    order(SERVER, "after-the-backup", 1.5, timedelta(days=4))
    identity = of_inventory("backup_vault", "backup_identity")
    stamp = told.archive.partition(".")[0]
    read = (
        f"age --decrypt --identity - {ARCHIVES}/{told.archive} | tar --extract --gzip --to-stdout {stamp}/manifest.json"
    )
    told.manifest = json.loads(SERVER.run("sh", "-c", read, stdin=identity))
    assert told.manifest["environment"] == "dev"
    assert sum(table["rows"] for table in told.manifest["databases"]["flexmeasures"]["tables"].values()) > 50_000


def test_data_for_another_environment_have_nobody_in_them(told: Told, tmp_path: Path) -> None:
    run = played("playbooks/anonymize.yml", "-e", f"anonymize_archive={told.archive}", "-e", f"anonymize_to={tmp_path}")
    proof(re.findall(r"\d+ rows in \d+ tables, \d+ values changed.*? s\.", " ".join(run.output.split()))[0])
    stamp = told.archive.partition(".")[0]
    with tarfile.open(tmp_path / f"{stamp}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    docker("cp", str(tmp_path / stamp / "postgres/flexmeasures.dump"), f"{SERVER.name}:/root/of-nobody.dump")
    text = SERVER.shell("docker exec -i flexmeasures-db pg_restore --file=- </root/of-nobody.dump")
    assert "canari" not in text
    found = re.search(r"^COPY public\.sensor \((.*?)\) FROM stdin;\n(.*?)^\\\.$", text, re.MULTILINE | re.DOTALL)
    assert found
    column = found[1].split(", ").index("id")
    ids = [line.split("\t")[column] for line in found[2].splitlines()]
    assert sorted(ids, key=int) == [id_ for id_, *_ in told.sensors]


# --- copies elsewhere ------------------------------------------------------------------------------------------------


def test_a_target_that_is_gone_is_told_and_costs_no_archive() -> None:
    NAS.run("systemctl", "stop", "ssh")
    said = refused(SERVER, "cariflex-backup", "run")
    NAS.run("systemctl", "start", "ssh")
    assert re.search(
        r"The archive \d{8}_\d{6} was made. restic cat at sftp:copies@nas.example.net:/srv/copies failed", said
    )
    assert len(archives(SERVER)) == 2
    assert [status for status, _ in runs(SERVER, "offsite")] == ["ok", "failed"]
    assert json.loads(SERVER.run("cariflex-backup", "--json", "offsite-check")) == {"copies": "good"}


def test_a_target_that_takes_new_copies_only_keeps_them_whoever_has_the_password() -> None:
    settings = json.loads(SERVER.run("cat", "/opt/cariflex/backup/settings.json"))
    environment = "/root/new-ones-only.environment"
    SERVER.run("tee", environment, stdin=OF_NEW_ONES_ONLY)
    settings["offsite"] |= {"repository": NEW_ONES_ONLY, "environment_file": environment, "prune": False}
    SERVER.run("tee", "/root/new-ones-only.json", stdin=json.dumps(settings))
    program = ("cariflex-backup", "--settings", "/root/new-ones-only.json", "--json")
    for _ in range(2):
        SERVER.run(*program, "run")
    copies = json.loads(SERVER.run(*program, "offsite-list"))
    assert len(copies) == 2
    restic = f"restic --repo {NEW_ONES_ONLY} --password-file {settings['offsite']['password_file']}"
    said = SERVER.shell(f"set -a; . {environment}; {restic} forget --prune {copies[0]['id']} 2>&1 || true")
    assert "unable to remove snapshot" in said
    assert json.loads(SERVER.run(*program, "offsite-list")) == copies
    assert json.loads(SERVER.run(*program, "offsite-check")) == {"copies": "good"}


# --- moments ---------------------------------------------------------------------------------------------------------


def test_every_moment_reaches_the_archive_of_the_log(told: Told) -> None:
    told.before_at = order(SERVER, "before-the-moment", 83.5, timedelta(days=6))
    eventually(lambda: arrived(SERVER, told.before_at, 83.5), 60)
    told.moment = datetime.now(UTC)
    told.after_at = order(SERVER, "after-the-moment", 84.5, timedelta(days=7))
    eventually(lambda: arrived(SERVER, told.after_at, 84.5), 60)
    now = datetime.now(UTC)
    eventually(lambda: max(newest_moments(SERVER), default=now) > now, 120)
    assert json.loads(SERVER.run("cariflex-backup", "--json", "moments"))["gaps"] == []


# --- lost, and back --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lost(told: Told) -> None:
    """The server is gone; the inventory names the empty one."""
    told.lost_at = datetime.now(UTC)
    docker("kill", SERVER.name)
    docker(
        "run",
        "--rm",
        "--network=none",
        "--volume=cariflex-test-docker:/cache",
        "cariflex-testhost-trixie:current",
        "sh",
        "-c",
        CLEAN,
    )
    hosts = INVENTORY / "hosts.yml"
    hosts.write_text(hosts.read_text().replace(f"ansible_host: {SERVER.name}\n", f"ansible_host: {SPARE.name}\n"))


RESTORE = ("playbooks/restore.yml", "-e", "restore_confirm=dev")


@pytest.mark.usefixtures("lost")
def test_a_restore_to_an_empty_host_can_be_previewed(told: Told) -> None:
    run = played(*RESTORE, "-e", f"restore_archive={FETCHED / told.archive}", "--check")
    assert run.count("failed") == 0
    assert SPARE.shell("ls -d /opt/cariflex /var/backups/cariflex 2>/dev/null || true") == ""


@pytest.fixture(scope="module")
def restored(lost: None, told: Told) -> str:  # noqa: ARG001 - it has to have happened
    """What restoring to the empty host printed."""
    began = time.monotonic()
    run = played(*RESTORE, "-e", f"restore_archive={FETCHED / told.archive}")
    printed = " ".join(run.output.split())
    proof(
        f"an empty host became the lost one in {time.monotonic() - began:.0f} s; load average {os.getloadavg()[0]:.1f}"
    )
    proof(re.findall(r"\d+ rows in \d+ tables, all as the manifest has them.*? without service", printed)[0])
    return printed


def test_every_table_came_back_as_the_manifest_has_it(restored: str, told: Told) -> None:
    databases = told.manifest["databases"]
    every = [table for one in databases.values() for table in one["tables"].values()]
    rows = sum(table["rows"] for table in every)
    assert f"{rows} rows in {len(every)} tables, all as the manifest has them" in restored
    tables = databases["flexmeasures"]["tables"]
    found = fingerprint(SPARE)
    assert {name: found[name] for name in STILL} == {name: tables[name] for name in STILL}
    assert found["public.timed_belief"]["rows"] >= tables["public.timed_belief"]["rows"] > 50_000


@pytest.mark.usefixtures("restored")
def test_every_sensor_has_its_id(told: Told) -> None:
    assert SPARE.sql("SELECT id, name, unit FROM sensor ORDER BY id") == told.sensors


@pytest.mark.usefixtures("restored")
def test_old_passwords_open_flexmeasures_behind_the_old_authority(told: Told) -> None:
    SPARE.run("tee", "/root/old-ca.crt", stdin=told.ca)
    assert login(SPARE, OPERATOR, "/root/old-ca.crt") == 200
    admin = {"email": "admin@digitribe.fr", "password": of_inventory("vault", "vault_flexmeasures_admin_password")}
    assert login(SPARE, admin, "/root/old-ca.crt") == 200
    assert login(SPARE, OPERATOR | {"password": "another"}, "/root/old-ca.crt") in (401, 422)


@pytest.mark.usefixtures("restored")
def test_the_ven_goes_on_polling_with_its_old_registration(told: Told) -> None:
    def polls() -> dict[str, Any]:
        (ven,) = vtn(SPARE, "vens")["vens"]
        return ven if ven["last_poll"] and ven["last_poll"] > told.ven["last_poll"] else {}

    ven = eventually(polls, 60)
    assert (ven["ven_id"], ven["registration_id"]) == (told.ven["ven_id"], told.ven["registration_id"])


@pytest.mark.usefixtures("restored")
def test_what_was_ordered_before_the_backup_is_there_and_what_came_after_is_not(told: Told) -> None:
    events = {event["event_id"]: event for event in vtn(SPARE, "events")["events"]}
    assert "after-the-backup" not in events
    assert vtn(SPARE, "events/before-the-loss")["opts"][VEN]["opt_type"] == "optIn"
    assert arrived(SPARE, told.price_at, 81.5)


@pytest.mark.usefixtures("restored")
def test_a_new_event_flows() -> None:
    start = order(SPARE, "after-the-restore", 82.5, timedelta(days=5))
    eventually(lambda: arrived(SPARE, start, 82.5), 60)


@pytest.mark.usefixtures("restored")
def test_dashboards_show_what_they_showed() -> None:
    """Every query of every panel, as Grafana's role; Grafana's own image comes from a registry."""
    panels = json.loads((ROOT / "files/grafana/dashboards/cariflex.json").read_text())["panels"]
    end = datetime.now(UTC)
    shown = {}
    for panel in panels:
        shortest = timedelta(minutes=int(panel.get("interval", "1m").removesuffix("m")))
        sql = expand(panel["targets"][0]["rawSql"], end - timedelta(days=7), end, shortest).rstrip().rstrip(";")
        shown[panel["title"]] = SPARE.sql(f"SET ROLE grafana_ro; SELECT count(*) FROM ({sql}) AS panel")[-1][0]  # noqa: S608 - of ours
    proof(f"rows in the panels: {shown}")
    for title in ("PV production", "Battery state of charge", "EV charging"):
        assert int(shown[title]) > 100, shown


@pytest.mark.usefixtures("restored")
def test_wireguard_has_the_key_that_its_clients_know(told: Told) -> None:
    assert SPARE.run("wg", "show", "wg0", "public-key") == told.wireguard


@pytest.mark.usefixtures("restored")
def test_the_restored_backup_is_recorded_as_one_that_went_well() -> None:
    assert runs(SPARE, "full")[-1] == ("ok", "")


@pytest.mark.usefixtures("restored")
def test_the_check_of_everything_passes_and_a_deployment_would_change_nothing() -> None:
    played("playbooks/self_check.yml")
    run = played("playbooks/site.yml", "--check")
    assert run.changed_tasks() == []


# --- once more, over a host that runs --------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored")
def test_a_restore_killed_between_stopping_and_starting_loses_nothing(told: Told) -> None:
    identity = of_inventory("backup_vault", "backup_identity")
    process = subprocess.Popen(
        ["docker", "exec", "-i", SPARE.name, "cariflex-backup", "restore", "--identity-on-stdin", "--confirm", "dev"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin
    process.stdin.write(identity)
    process.stdin.close()
    SPARE.shell(
        "until docker inspect --format '{{ .State.Running }}' flexmeasures-server | grep -q false; do sleep 0.05; done;"
        " pkill --signal KILL --full '[c]ariflex-backup restore'"
    )
    assert process.wait(60) != 0
    run = played(*RESTORE, "-e", "restore_deploy=false")
    assert "all as the manifest has them" in " ".join(run.output.split())
    assert SPARE.sql("SELECT id, name, unit FROM sensor ORDER BY id") == told.sensors
    assert login(SPARE, OPERATOR) == 200
    assert [
        name for (name,) in SPARE.sql("SELECT datname FROM pg_database WHERE datname LIKE '%\\_\\_%'") if name
    ] == []


@pytest.mark.usefixtures("restored")
def test_to_a_moment_of_the_lost_host_between_two_writes(told: Told) -> None:
    """Its disk of archives has survived."""
    docker("cp", f"{SERVER.name}:{ARCHIVES}/moments", str(FETCHED))
    docker("cp", f"{FETCHED}/moments/.", f"{SPARE.name}:{ARCHIVES}/moments")
    lost = (told.lost_at - max(end for end in newest_moments(SPARE) if end < told.lost_at)).total_seconds()
    proof(f"of what the lost host had committed, all but the last {lost:.1f} s can be restored")
    assert lost < 60
    run = played(*RESTORE, "-e", "restore_deploy=false", "-e", f"restore_moment={told.moment.isoformat()}")
    proof(re.findall(r"The databases are as they were at .*? without service", " ".join(run.output.split()))[0])
    events = {event["event_id"] for event in vtn(SPARE, "events")["events"]}
    assert events >= {"before-the-loss", "after-the-backup", "before-the-moment"}
    assert not events & {"after-the-moment", "after-the-restore"}
    assert arrived(SPARE, told.before_at, 83.5)
    assert not arrived(SPARE, told.after_at, 84.5)
    assert SPARE.sql("SELECT id, name, unit FROM sensor ORDER BY id") == told.sensors
    assert login(SPARE, OPERATOR) == 200
    start = order(SPARE, "on-the-new-line", 85.5, timedelta(days=8))
    eventually(lambda: arrived(SPARE, start, 85.5), 60)
    now = datetime.now(UTC)
    eventually(lambda: max(newest_moments(SPARE)) > now, 180)


@pytest.mark.usefixtures("restored")
def test_a_drill_with_the_key_of_the_controller_passes_and_can_be_previewed() -> None:
    preview = played("playbooks/drill.yml", "--check")
    assert preview.changed_tasks() == []
    run = played("playbooks/drill.yml")
    assert "restored and compared, no differences" in " ".join(run.output.split())


@pytest.mark.usefixtures("restored")
def test_a_copy_comes_back_from_elsewhere_to_the_new_host(told: Told) -> None:
    stamp = told.archive.partition(".")[0]
    copies = json.loads(SPARE.run("cariflex-backup", "--json", "offsite-list"))
    assert SERVER.name in [copy["host"] for copy in copies]
    SPARE.run("cariflex-backup", "offsite-fetch")
    newest = archives(SPARE)[-1]
    assert newest.partition(".")[0] >= stamp
    identity = of_inventory("backup_vault", "backup_identity")
    verified = SPARE.run("cariflex-backup", "--json", "verify", newest, "--identity-on-stdin", stdin=identity)
    assert json.loads(verified)["contents"] == "good"


@pytest.mark.usefixtures("restored")
def test_purging_ends_all_that_archives_and_leaves_what_it_made() -> None:
    played("playbooks/purge.yml", "-e", "purge_confirmed=true", "-e", "purge_images=false")
    assert SPARE.run("docker", "ps", "--all", "--quiet") == ""
    assert SPARE.shell("systemctl list-units --all --no-legend 'cariflex-*' | grep -w active || true") == ""
    assert SPARE.shell("ls /usr/local/sbin/cariflex-* /etc/systemd/system/cariflex-* 2>/dev/null || true") == ""
    assert archives(SPARE)
    assert SPARE.run("ls", f"{ARCHIVES}/moments")
