"""Each fault happens to each component while events flow; afterwards nothing is lost, doubled or wrong.

The whole system runs as its roles render it, with real images and restart policies (tests/support/ems.py). After each
fault every event ordered since the beginning is looked at again, in FlexMeasures' database, in the VTN and at the
devices (flow.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.integration.faults.faults import COMPONENTS, FAULTS, Hand, hand
from tests.integration.faults.flow import Flow
from tests.support.ems import Ems
from tests.support.summary import RECOVERED

pytestmark = [pytest.mark.docker, pytest.mark.slow]

RECOVERY_SECONDS = 150  # the longest wait; a quiet machine needs a fifth of it
BEFORE_SECONDS = 3.0
HAND_IMAGE = "CARIFLEX_TEST_TESTHOST_TRIXIE_IMAGE"


@dataclass(frozen=True)
class Site:
    """The system, what does harm to it, and what it has to do."""

    ems: Ems
    hand: Hand
    flow: Flow


@pytest.fixture(scope="module")
def site(ems: Ems) -> Iterator[Site]:
    with hand(ems, os.environ.get(HAND_IMAGE, "cariflex-testhost-trixie:current")) as hand_:
        yield Site(ems, hand_, Flow(ems, "flow"))


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_doubled_or_wrong(
    site: Site, record_property: Callable[[str, object], None], fault: str, component: str
) -> None:
    site.flow.start()
    time.sleep(BEFORE_SECONDS)
    FAULTS[fault](site.ems, site.hand, component)
    over = time.monotonic()
    site.flow.pause(RECOVERY_SECONDS)
    while faults := site.flow.faults():
        if time.monotonic() - over > RECOVERY_SECONDS:
            record_property(RECOVERED, [fault, component, "failed"])
            pytest.fail("\n".join(faults[:20]))
        time.sleep(0.5)
    record_property(RECOVERED, [fault, component, f"{time.monotonic() - over:.0f}"])
