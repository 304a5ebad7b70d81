"""``GET /health``: whether what FlexMeasures needs is well, within a bounded time."""

from __future__ import annotations

from flask import Response, current_app, jsonify, request

from cariflex.fm_plugin import probes

# Below the 3 s after which monitoring and Docker's health checks commonly give up.
DEADLINE_SECONDS = 2.5


def view() -> Response:
    """200 when every check is well, else 503; ``?checks=database,redis`` limits what is looked at."""
    asked = request.args.get("checks", "")
    names = [name for name in asked.split(",") if name] or list(probes.PROBES)
    unknown = [name for name in names if name not in probes.PROBES]
    if unknown:
        answer = jsonify({"message": f"There is no check {unknown[0]!r}. There are: {', '.join(probes.PROBES)}."})
        answer.status_code = 400
        return answer
    results = probes.run(current_app.config, names, DEADLINE_SECONDS)
    well = all(result["ok"] for result in results.values())
    answer = jsonify({"status": "ok" if well else "failing", "checks": results})
    answer.status_code = 200 if well else 503
    answer.headers["Cache-Control"] = "no-store"
    return answer
