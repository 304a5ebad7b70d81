"""`playbooks/secrets.yml` makes what is missing, keeps what is there, and writes no real secret unencrypted."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DECLARED = yaml.safe_load((ROOT / "playbooks/vars/secrets.yml").read_text())["secrets_declared"]


def run(inventory: Path, password_file: Path | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_VAULT_PASSWORD_FILE"}
    if password_file:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(password_file)
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(inventory), "playbooks/secrets.yml", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(params=["dev", "prod"])
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inventory(tmp_path: Path, environment: str) -> Path:
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "group_vars/all/main.yml").write_text(f"ems_environment: {environment}\n")
    (tmp_path / "hosts.yml").write_text("ems: {hosts: {nowhere.example: {}}}\n")
    return tmp_path


@pytest.fixture
def password_file(tmp_path: Path, environment: str) -> Path | None:
    if environment == "dev":
        return None
    (tmp_path / "vault-password").write_text("a password of this test\n")
    return tmp_path / "vault-password"


def contents(vault: Path, password_file: Path | None) -> dict[str, str]:
    if password_file is None:
        return dict(yaml.safe_load(vault.read_text()))
    command = [str(ROOT / ".venv/bin/ansible-vault"), "view", "--vault-password-file", str(password_file), str(vault)]
    return dict(yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_every_secret_is_made_once_and_is_another(inventory: Path, password_file: Path | None) -> None:
    first = run(inventory, password_file)
    vault = inventory / "group_vars/all/vault.yml"
    assert first.returncode == 0, first.stdout
    made = contents(vault, password_file)
    assert made.keys() == DECLARED.keys()
    assert len(set(made.values())) == len(made)
    assert all(len(value) >= 40 for value in made.values())
    assert vault.stat().st_mode & 0o777 == 0o600
    assert not any(value in first.stdout + first.stderr for value in made.values())

    before = vault.read_bytes()
    assert "changed=0" in run(inventory, password_file).stdout
    assert vault.read_bytes() == before


def test_a_missing_secret_is_added_and_the_others_are_kept(inventory: Path, password_file: Path | None) -> None:
    run(inventory, password_file)
    vault = inventory / "group_vars/all/vault.yml"
    made = contents(vault, password_file)
    kept = {name: value for name, value in made.items() if name != "vault_redis_password"}
    # what others have given out, and what somebody put there, is nobody's to remove
    kept |= {"vault_phpipam_app_code": "from phpIPAM: 'a'", "vault_of_the_site": 'of "ours"'}
    vault.write_text(yaml.safe_dump(kept))
    run(inventory, password_file)
    again = contents(vault, password_file)
    assert again.keys() == made.keys() | kept.keys()
    assert {name: again[name] for name in kept} == kept
    assert again["vault_redis_password"] != made["vault_redis_password"]


@pytest.mark.parametrize("environment", ["prod"], indirect=True)
def test_secrets_of_a_real_environment_are_encrypted(inventory: Path, password_file: Path | None) -> None:
    run(inventory, password_file)
    assert (inventory / "group_vars/all/vault.yml").read_text().startswith("$ANSIBLE_VAULT;")


@pytest.mark.parametrize("environment", ["prod"], indirect=True)
def test_a_vault_that_does_not_open_stops_the_run(inventory: Path, password_file: Path | None, tmp_path: Path) -> None:
    run(inventory, password_file)
    vault = inventory / "group_vars/all/vault.yml"
    before = vault.read_bytes()
    other = tmp_path / "other-password"
    other.write_text("another password\n")
    refused = run(inventory, other)
    assert refused.returncode != 0
    assert "Decryption failed" in refused.stdout + refused.stderr
    assert "TASK" not in refused.stdout
    assert vault.read_bytes() == before


@pytest.mark.parametrize("environment", ["prod"], indirect=True)
def test_without_a_vault_password_nothing_is_written(inventory: Path) -> None:
    refused = run(inventory)
    assert refused.returncode != 0
    assert "ANSIBLE_VAULT_PASSWORD_FILE is not set" in refused.stdout
    assert not (inventory / "group_vars/all/vault.yml").exists()


def test_one_secret_is_replaced_and_the_others_are_kept(inventory: Path, password_file: Path | None) -> None:
    run(inventory, password_file)
    vault = inventory / "group_vars/all/vault.yml"
    made = contents(vault, password_file)
    # the host of this inventory cannot be reached, so that the services cannot follow
    replaced = run(inventory, password_file, "--tags", "rotate", "-e", "secret=redis_password,openadr_api_token")
    again = contents(vault, password_file)
    assert "nowhere.example" in replaced.stdout
    assert "UNREACHABLE" in replaced.stdout
    assert {name for name in made if made[name] != again[name]} == {"vault_redis_password", "vault_openadr_api_token"}
    assert not any(value in replaced.stdout + replaced.stderr for value in again.values())


@pytest.mark.parametrize("tag", ["rotate", "show"])
def test_a_wrong_name_is_refused_with_the_right_ones(inventory: Path, password_file: Path | None, tag: str) -> None:
    run(inventory, password_file)
    vault = inventory / "group_vars/all/vault.yml"
    before = vault.read_bytes()
    for wrong, message in (("redis_pasword", "there is no secret vault_redis_pasword"), ("", "no secret is named")):
        refused = run(inventory, password_file, "--tags", tag, "-e", f"secret={wrong}")
        assert refused.returncode != 0
        assert message in refused.stdout
        assert "redis_password" in refused.stdout
    assert vault.read_bytes() == before


def test_a_secret_is_shown_when_it_is_asked_for(inventory: Path, password_file: Path | None) -> None:
    run(inventory, password_file)
    made = contents(inventory / "group_vars/all/vault.yml", password_file)
    shown = run(inventory, password_file, "--tags", "show", "-e", "secret=redis_password").stdout
    assert made.pop("vault_redis_password") in shown
    assert not any(value in shown for value in made.values())
