"""Our FlexMeasures plugin: ``/health`` of everything FlexMeasures needs, and calls of our own below ``/cariflex/v1``.

FlexMeasures loads it with ``FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"]``. Views are imported when they are first
used: `migrate` and `worker_health` live in this package too and must start fast, without FlexMeasures.
"""

from flask import Blueprint
from flask.typing import ResponseReturnValue

__version__ = "1.0"
__settings__ = {
    "CARIFLEX_TOPOLOGY_TOKEN_FILE": {
        "description": "file with the token for POST /cariflex/v1/topology",
        "level": "info",
        "message_if_missing": " /run/secrets/flexmeasures_topology_token is used.",
    },
    "CARIFLEX_OBSERVERS": {
        "description": "e-mail addresses of the users that may POST /cariflex/v1/observations",
        "level": "info",
        "message_if_missing": " Nobody may.",
    },
    "CARIFLEX_HEALTH_MAX_QUEUE_SECONDS": {
        "description": "age of the oldest queued job from which /health fails",
        "level": "info",
        "message_if_missing": " 600 is used.",
    },
}


def show_health() -> ResponseReturnValue:
    """Whether database, Redis, workers and queues are well; 200 or 503."""
    from cariflex.fm_plugin.health import view

    return view()


def declare_topology() -> ResponseReturnValue:
    """Plan or make the declared account, users, asset types, assets and sensors."""
    from cariflex.fm_plugin.api import view

    return view()


def read_topology() -> ResponseReturnValue:
    """Tell what account, users, asset types, assets and sensors there are."""
    from cariflex.fm_plugin.api import read_view

    return read_view()


def withdraw_values() -> ResponseReturnValue:
    """Take back values that the caller stored."""
    from cariflex.fm_plugin.withdraw import view

    return view()


def store_values() -> ResponseReturnValue:
    """Store values of a source that is named."""
    from cariflex.fm_plugin.values import view

    return view()


def store_observations() -> ResponseReturnValue:
    """Keep what the VEN and the CEM have observed."""
    from cariflex.fm_plugin.observations import view

    return view()


def read_schedules(job_id: str) -> ResponseReturnValue:
    """What a job has planned for several sensors."""
    from cariflex.fm_plugin.schedules import view

    return view(job_id)


blueprint = Blueprint("cariflex", __name__)
blueprint.add_url_rule("/health", view_func=show_health, methods=["GET"])
blueprint.add_url_rule("/cariflex/v1/topology", view_func=declare_topology, methods=["POST"])
blueprint.add_url_rule("/cariflex/v1/topology", view_func=read_topology, methods=["GET"])
blueprint.add_url_rule("/cariflex/v1/withdraw", view_func=withdraw_values, methods=["POST"])
blueprint.add_url_rule("/cariflex/v1/schedules/<job_id>", view_func=read_schedules, methods=["GET"])
blueprint.add_url_rule("/cariflex/v1/values", view_func=store_values, methods=["POST"])
blueprint.add_url_rule("/cariflex/v1/observations", view_func=store_observations, methods=["POST"])
