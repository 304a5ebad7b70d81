"""The CEM's process: websocket server, limits from the VEN's events, stored energy to the VEN's outbox, health."""

import sys
from contextlib import ExitStack, closing

from cariflex.s2.cem import Cem
from cariflex.s2.memory import Memory
from cariflex.s2.settings import S2Settings, read_tokens
from cariflex.service import run
from cariflex.settings import SettingsError
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Outbox, OutboxError
from cariflex.ven.plans import Plans


async def serve(settings: S2Settings) -> None:
    """Serve until cancelled."""
    tokens = read_tokens(settings)
    if missing := sorted(settings.resources.keys() - tokens.keys()):
        raise SettingsError(f"{settings.secrets_dir / 's2_tokens'}: no token for {', '.join(missing)}.")
    folder = settings.data_dir
    with ExitStack() as stores:
        try:
            outbox = stores.enter_context(closing(Outbox(folder)))
            plans = stores.enter_context(closing(Plans(folder)))
            observations = stores.enter_context(closing(Observations(folder)))
            memory = stores.enter_context(closing(Memory(folder)))
        except OutboxError as error:
            raise SettingsError(str(error)) from None
        await Cem(settings, tokens, outbox, plans, observations, memory).run()


def cli() -> None:
    """Entry point of `cariflex-s2`."""
    sys.exit(run("s2", S2Settings, serve))
