"""The fault matrix's judge: it takes what is right, and finds what is lost, doubled, out of order or left over."""

from datetime import UTC, datetime

import pytest

from tests.integration.faults.flow import Told


@pytest.mark.parametrize(
    ("signal", "versions", "stored", "right"),
    [
        ("ENERGY_PRICE", [1.0, 2.0], [1.0, 2.0], True),
        ("ENERGY_PRICE", [1.0, 2.0], [2.0], True),  # the VEN polled after both
        ("ENERGY_PRICE", [1.0, 2.0], [], False),
        ("ENERGY_PRICE", [1.0, 2.0], [1.0], False),
        ("ENERGY_PRICE", [1.0, 2.0], [2.0, 2.0], False),
        ("ENERGY_PRICE", [1.0, 2.0], [1.0, 2.0, 1.0, 2.0], False),
        ("ENERGY_PRICE", [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], False),
        ("ENERGY_PRICE", [1.0, None], [], True),
        ("ENERGY_PRICE", [1.0, None], [1.0], False),
        ("LOAD_CONTROL", [50.0, None], [50.0, 100.0], True),
        ("LOAD_CONTROL", [50.0, None], [], True),  # the VEN never heard of it before it was cancelled
        ("LOAD_CONTROL", [50.0, None], [50.0], False),
    ],
)
def test_only_what_is_right_is_taken(
    signal: str, versions: list[float | None], stored: list[float], right: bool
) -> None:
    told = Told("event", signal, datetime(2026, 5, 1, tzinfo=UTC), 1, versions)
    assert (told.fault_of(stored) is None) == right
