"""Every template of every role, rendered for every inventory, is what Compose, the services and the CIS items want.

The roles themselves render, with their real wiring; only roles/stack is replaced by one that keeps what it is given.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stacks import SECRETS, Stack, render

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ["dev", "test", "prod"]
STACKS = ["feeds", "flexmeasures", "grafana", "openadr", "postgres", "redis", "traefik"]
DOMAINS = {
    "dev": ("cariflex.localhost", "grafana.cariflex.localhost"),
    "test": ("test.cariflex.digitribe.fr", "grafana.test.cariflex.digitribe.fr"),
    "prod": ("cariflex.digitribe.fr", "grafana.digitribe.fr"),
}
IMAGES = yaml.safe_load((ROOT / "playbooks/vars/versions.yml").read_text())["versions_images"]


@pytest.fixture(scope="session", params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def stacks(environment: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    references = {name: f"example/{name}:1" for name in IMAGES}
    return render(environment, tmp_path_factory.mktemp(environment), images_references=references)


def services(stacks: dict[str, Stack]) -> dict[str, dict[str, Any]]:
    """Every service of every stack."""
    return {name: service for stack in stacks.values() for name, service in stack.services.items()}


def test_every_stack_is_rendered(stacks: dict[str, Stack]) -> None:
    assert sorted(stacks) == STACKS


def test_compose_accepts_every_file(stacks: dict[str, Stack], tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker Compose is not installed: run `make test`, which installs it")
    for name, stack in stacks.items():
        for path, text in {**stack.files, **{f"secrets/{secret}": "x" for secret in stack.secrets}}.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        command = ["docker", "compose", "--project-directory", str(tmp_path / name), "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name


def test_every_other_yaml_file_can_be_read(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        for path, text in stack.files.items():
            if path.endswith((".yml", ".json")):
                assert yaml.safe_load(text), path


def test_nothing_is_left_unrendered(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        for path, text in stack.files.items():
            if path.endswith((".yml", ".conf", ".sql")):
                assert not re.search(r"\{\{|\{%|\bNone\b|AnsibleUndefined", text), path


def test_containers_are_hardened(stacks: dict[str, Stack]) -> None:
    for name, service in services(stacks).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert int(str(service["user"]).split(":")[0]) > 0, name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["cpu_shares"], name
        assert service["healthcheck"]["test"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == "unless-stopped", name
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "ulimits"} & service.keys(), name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name


def test_images_are_started_as_they_are(stacks: dict[str, Stack]) -> None:
    for name, service in services(stacks).items():
        assert service["image"].startswith("example/"), name
        assert "build" not in service, name


def test_only_the_proxy_publishes_ports(stacks: dict[str, Stack]) -> None:
    published = {name: service["ports"] for name, service in services(stacks).items() if "ports" in service}
    assert published == {"traefik": ["80:80", "443:443"]}


def test_containers_are_called_as_documented_and_are_where_they_belong(stacks: dict[str, Stack]) -> None:
    found = {
        service["container_name"]: {
            network: (options or {}).get("ipv4_address") for network, options in service["networks"].items()
        }
        for service in services(stacks).values()
    }
    documented = {
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
        "smart-city-grafana": {"traefik-public": None, "flexmeasures-internal": None},
        "traefik": {"traefik-public": None},
    }
    assert {name: networks for name, networks in found.items() if name in documented} == documented


def test_no_secret_is_outside_its_file(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        for path, text in stack.files.items():
            for name, value in SECRETS.items():
                assert value not in text, (path, name)


def test_every_secret_that_a_container_mounts_has_a_value(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        mounted = {secret for service in stack.services.values() for secret in service.get("secrets", [])}
        assert mounted == stack.secrets.keys()
        assert all(len(value) >= 32 for value in stack.secrets.values())
        declared = {name: entry["file"] for name, entry in stack.compose.get("secrets", {}).items()}
        assert declared == {name: f"./secrets/{name}" for name in stack.secrets}


def test_a_changed_file_or_secret_would_restart_its_service(stacks: dict[str, Stack]) -> None:
    for name, service in services(stacks).items():
        assert re.fullmatch("[0-9a-f]{64}", service["labels"]["cariflex.config"]), name


def test_domains_are_those_of_the_environment(stacks: dict[str, Stack], environment: str) -> None:
    routes = yaml.safe_load(stacks["traefik"].files["dynamic/routes.yml"])["http"]["routers"]
    flexmeasures, grafana = DOMAINS[environment]
    assert routes["flexmeasures"]["rule"] == f"Host(`{flexmeasures}`) && !PathPrefix(`/cariflex/`)"
    assert routes["grafana"]["rule"] == f"Host(`{grafana}`)"
    assert flexmeasures in stacks["flexmeasures"].files["conf/flexmeasures.cfg"]
    root_url = stacks["grafana"].services["smart-city-grafana"]["environment"]["GF_SERVER_ROOT_URL"]
    assert root_url == f"https://{grafana}/"


def test_certificates_come_from_where_the_environment_says(stacks: dict[str, Stack], environment: str) -> None:
    traefik = yaml.safe_load(stacks["traefik"].files["conf/traefik.yml"])
    acme = traefik.get("certificatesResolvers", {}).get("acme", {}).get("acme", {}).get("caServer", "local")
    expected = {"dev": "local", "test": "acme-staging-v02", "prod": "acme-v02"}[environment]
    assert expected in acme


def test_only_web_is_published(stacks: dict[str, Stack]) -> None:
    published = {name: service["ports"] for name, service in services(stacks).items() if "ports" in service}
    assert published == {"traefik": ["80:80", "443:443"]}


def test_plain_http_is_redirected(stacks: dict[str, Stack]) -> None:
    web = yaml.safe_load(stacks["traefik"].files["conf/traefik.yml"])["entryPoints"]["web"]
    assert web["http"]["redirections"]["entryPoint"] == {"to": "websecure", "scheme": "https", "permanent": True}


def test_flexmeasures_settings_are_python(stacks: dict[str, Stack]) -> None:
    compile(stacks["flexmeasures"].files["conf/flexmeasures.cfg"], "flexmeasures.cfg", "exec")


def test_the_plugin_is_handed_over_with_all_that_it_imports(stacks: dict[str, Stack]) -> None:
    files = stacks["flexmeasures"].files
    given = {path.removeprefix("python/") for path in files if path.startswith("python/")}
    for path in given:
        for module in re.findall(r"^(?:from|import) (cariflex[\w.]*)", files[f"python/{path}"], flags=re.MULTILINE):
            name = module.replace(".", "/")
            assert {f"{name}.py", f"{name}/__init__.py"} & given, (path, module)


def test_grafana_reads_with_its_own_role_and_a_fixed_uid(stacks: dict[str, Stack]) -> None:
    source = yaml.safe_load(stacks["grafana"].files["provisioning/datasources/postgresql.yml"])["datasources"][0]
    assert source["uid"] == "cariflex-postgresql"
    assert source["user"] == "grafana_ro"
    assert source["jsonData"]["database"] == "flexmeasures"
    dashboards = [json.loads(text) for path, text in stacks["grafana"].files.items() if path.startswith("dashboards/")]
    uids = {panel["datasource"]["uid"] for board in dashboards for panel in board["panels"] if panel.get("datasource")}
    assert uids == {"cariflex-postgresql"}


def test_alerts_ask_the_same_datasource_and_lead_to_panels_that_exist(stacks: dict[str, Stack]) -> None:
    files = stacks["grafana"].files
    panels = {panel["id"] for panel in json.loads(files["dashboards/cariflex.json"])["panels"]}
    provisioned = yaml.safe_load(files["provisioning/alerting/alerts.yml"])
    (group,) = provisioned["groups"]
    rules = {rule["uid"]: rule for rule in group["rules"]}
    assert len(rules) == len(group["rules"]) == 11
    for rule in rules.values():
        found, fires = rule["data"]
        assert found["datasourceUid"] == found["model"]["datasource"]["uid"] == "cariflex-postgresql"
        assert found["refId"] == fires["model"]["expression"]
        assert rule["condition"] == fires["refId"]
        assert (rule["noDataState"], rule["execErrState"]) == ("Alerting", "Alerting")
        assert rule["panelId"] in panels
        # Grafana takes a $ for a variable of its environment
        assert "$" not in found["model"]["rawSql"]
        assert rule["annotations"]["summary"]


def test_a_key_of_open_meteo_is_a_file_and_leads_to_its_customers_service(tmp_path: Path) -> None:
    images = {name: f"example/{name}:1" for name in IMAGES}
    for key, host in (("k3y-0123456789", "customer-api"), ("", "api")):
        folder = tmp_path / host
        folder.mkdir()
        given = {"images_references": images, "vault_open_meteo_api_key": key, "rendered_roles": ["feeds"]}
        stack = render("prod", folder, **given)["feeds"]
        weather = yaml.safe_load(stack.files["conf/feeds.yml"])["weather"]
        assert weather["url"] == f"https://{host}.open-meteo.com"
        assert weather.get("with_key", False) is bool(key)
        assert stack.secrets.get("open_meteo_api_key", "") == key
        assert ("open_meteo_api_key" in stack.services["cariflex-feeds"]["secrets"]) is bool(key)
        assert not key or all(key not in text for text in stack.files.values())


def test_nobody_waits_for_plans_where_nobody_plans(tmp_path: Path) -> None:
    images = {name: f"example/{name}:1" for name in IMAGES}
    for schedules, waited in (({"schedules": {"every": "PT30M"}}, ["PT30M"]), ({"schedules": None}, [])):
        folder = tmp_path / str(len(waited))
        folder.mkdir()
        given = {"images_references": images, "topology_overrides": schedules, "rendered_roles": ["grafana"]}
        text = render("test", folder, **given)["grafana"].files["provisioning/alerting/alerts.yml"]
        (group,) = yaml.safe_load(text)["groups"]
        rules = [rule for rule in group["rules"] if rule["uid"] == "cariflex-plan-missed"]
        assert [re.findall("4 [*] interval '(.*?)'", rule["data"][0]["model"]["rawSql"])[0] for rule in rules] == waited


def test_dashboards_lead_to_flexmeasures_of_the_environment(stacks: dict[str, Stack], environment: str) -> None:
    board = json.loads(stacks["grafana"].files["dashboards/cariflex.json"])
    assert [link["url"] for link in board["links"]] == [f"https://{DOMAINS[environment][0]}/"]


def test_contacts_are_told_and_taken_away_again(tmp_path: Path) -> None:
    contact = {"type": "email", "settings": {"addresses": "ops@example.org"}}
    for contacts, told in (([contact], True), ([], False)):
        folder = tmp_path / str(told)
        folder.mkdir()
        images = {name: f"example/{name}:1" for name in IMAGES}
        given = {"images_references": images, "grafana_contacts": contacts, "rendered_roles": ["grafana"]}
        text = render("test", folder, **given)["grafana"].files["provisioning/alerting/alerts.yml"]
        provisioned = yaml.safe_load(text)
        assert ("contactPoints" in provisioned) is told
        assert ("deleteContactPoints" in provisioned) is not told
        if told:
            assert provisioned["contactPoints"][0]["receivers"] == [{"uid": "cariflex-1", **contact}]
            assert provisioned["policies"][0]["receiver"] == provisioned["contactPoints"][0]["name"]


@pytest.fixture(scope="module")
def phpipam(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    """The stacks of an environment where phpIPAM is deployed too."""
    given = {
        "images_references": {
            name: f"example/{name}:1" for name in (*IMAGES, "phpipam-www", "phpipam-cron", "phpipam-db")
        },
        "phpipam_deploy": True,
        "phpipam_server_docker_available": False,
        "topology_overrides": {"domains": {"phpipam": "ipam.example.org"}},
        "rendered_roles": ["phpipam_server", "traefik"],
        **PHPIPAM_SECRETS,
    }
    return render("test", tmp_path_factory.mktemp("phpipam"), **given)


PHPIPAM_SECRETS = {
    name: f"{name.removeprefix('vault_').replace('_', '-')}-0123456789-0123456789"
    for name in ("vault_phpipam_db_password", "vault_phpipam_admin_password", "vault_phpipam_app_code")
}


def test_phpipam_is_deployed_only_where_it_is_wanted(tmp_path: Path) -> None:
    given = {"images_references": {name: f"example/{name}:1" for name in IMAGES}}
    assert render("test", tmp_path, rendered_roles=["phpipam_server"], **given) == {}


def test_phpipam_stands_behind_the_proxy_and_its_database_on_a_network_of_its_own(phpipam: dict[str, Stack]) -> None:
    database, servers = phpipam["phpipam-database"].services, phpipam["phpipam"].services
    assert database["phpipam-db"]["networks"] == {"phpipam-internal": {}}
    assert servers["phpipam-www"]["networks"] == {
        "traefik-public": {},
        "phpipam-internal": {"ipv4_address": "192.168.242.10"},
    }
    routes = yaml.safe_load(phpipam["traefik"].files["dynamic/routes.yml"])["http"]
    assert routes["routers"]["phpipam"]["rule"] == "Host(`ipam.example.org`)"
    assert routes["services"]["phpipam"]["loadBalancer"]["servers"] == [{"url": "http://phpipam-www:80"}]
    environment = servers["phpipam-www"]["environment"]
    assert environment["IPAM_DATABASE_PASS_FILE"] == "/run/secrets/phpipam_database_password"
    assert (environment["IPAM_TRUST_X_FORWARDED"], environment["IPAM_DISABLE_INSTALLER"]) == ("true", "1")
    assert environment["TZ"] == "America/Martinique"
    assert servers["phpipam-cron"]["environment"]["SCAN_INTERVAL"] == "1h"


def test_phpipam_has_no_more_rights_than_it_needs(phpipam: dict[str, Stack]) -> None:
    database = phpipam["phpipam-database"].services["phpipam-db"]
    assert (database["user"], database["read_only"]) == ("999:999", True)
    assert database["security_opt"] == ["no-new-privileges:true"]
    for service in (database, *phpipam["phpipam"].services.values()):
        assert service["cap_drop"] == ["ALL"]
        assert service["image"].startswith("example/phpipam-")
        assert service["mem_limit"]
        assert service["healthcheck"]["test"]
        assert not {"privileged", "network_mode", "ports", "build"} & service.keys()
    for stack in (phpipam["phpipam-database"], phpipam["phpipam"]):
        assert not any(secret in text for text in stack.files.values() for secret in PHPIPAM_SECRETS.values())


def test_compose_accepts_phpipams_files(phpipam: dict[str, Stack], tmp_path: Path) -> None:
    test_compose_accepts_every_file(phpipam, tmp_path)
