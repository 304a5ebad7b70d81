"""Keys of age that are made and checked without age."""

import shutil
import subprocess

import pytest

from module_utils.age_keys import is_recipient, new_identity, recipients_of
from module_utils.backup_rules import backup_problems

# the pair of the format's own specification has these forms
PUBLIC = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


@pytest.mark.skipif(shutil.which("age-keygen") is None, reason="age is not installed: apt install age")
def test_age_takes_them() -> None:
    for _ in range(5):
        made = new_identity()
        told = subprocess.run(["age-keygen", "-y"], input=made, capture_output=True, text=True, check=True).stdout
        assert recipients_of(made) == [told.strip()]


@pytest.mark.skipif(shutil.which("age-keygen") is None, reason="age is not installed: apt install age")
def test_what_age_makes_is_taken() -> None:
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    (found,) = recipients_of(made)
    assert f"# public key: {found}" in made


def test_several_keys_have_several_recipients_and_no_two_are_alike() -> None:
    first, second = new_identity(), new_identity()
    assert recipients_of(f"# of 2025\n{first}\n\n{second}\n") == recipients_of(first) + recipients_of(second)
    assert first != second
    assert recipients_of("") == []


@pytest.mark.parametrize("text", ["", "age1", PUBLIC[:-1], PUBLIC[:-1] + "q", PUBLIC.replace("z", "y", 1), None, "ü1ü"])
def test_what_is_no_public_key(text: str | None) -> None:
    assert is_recipient(PUBLIC)
    assert not is_recipient(text)


def test_a_wrong_secret_key_is_refused_without_showing_it() -> None:
    good = new_identity()
    with pytest.raises(ValueError, match=r"secret key 2 is none of age's") as raised:
        recipients_of(f"{good}\n{good[:-1]}{'P' if good[-1] == 'Q' else 'Q'}")
    assert good[20:40] not in str(raised.value)


def test_the_inventory_is_checked_for_them() -> None:
    values = {"backup_age_recipients": [PUBLIC, "age1x"], "backup_identity": "AGE-SECRET-KEY-1X", "backup_time": 750}
    found = [(problem.variable, problem.problem) for problem in backup_problems(values)]
    assert found == [
        ("backup_age_recipients.1", "is no public key of age's"),
        ("backup_identity", "secret key 1 is none of age's: it begins with AGE-SECRET-KEY-1"),
        ("backup_time", "is no time of day"),
    ]
    assert list(backup_problems({"backup_time": "23:59", "backup_drill_time": "00:00", "backup_identity": ""})) == []


def test_copies_elsewhere_need_a_password() -> None:
    elsewhere = {"backup_offsite_repository": "sftp:backup@nas.example.org:/cariflex"}
    (problem,) = backup_problems(elsewhere)
    assert (problem.variable, problem.problem) == (
        "vault_backup_offsite_password",
        "is not set, and backup_offsite_repository is",
    )
    assert list(backup_problems(elsewhere | {"backup_offsite_password": "x"})) == []
