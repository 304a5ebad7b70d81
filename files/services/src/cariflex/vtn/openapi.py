"""OpenAPI description of the VTN's HTTP API, with the schemas of the models that really parse the input."""

from typing import Any

from cariflex.vtn.events import EVENT_ID_PATTERN, GROUP, EventRequest

_JSON = "application/json"


def document(ven_ids: list[str], groups: list[str]) -> dict[str, Any]:
    """The description; `ven_ids` and `groups` become the choices of targets."""
    request = EventRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = request.pop("$defs")
    for form in request["properties"]["targets"]["anyOf"]:
        if form.get("type") == "array":
            form["items"] = {"type": "string", "enum": [*ven_ids, *(f"{GROUP}{name}" for name in groups)]}
    event_id = {
        "name": "event_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{EVENT_ID_PATTERN}$"},
    }
    limit = _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})
    ven_id = _query("ven_id", _STRING)
    changed = _ref("Changed")
    put = {
        "summary": "Create or change an event (idempotent)",
        "parameters": [event_id],
        "requestBody": {"required": True, "content": {_JSON: {"schema": _ref("EventRequest")}}},
        "responses": {
            "200": _answer("It exists; `changed` says whether this request changed it", changed),
            "201": _answer("It was created", changed),
        }
        | _failures(401, 409, 413, 422, 503),
    }
    preview = {
        "summary": "What PUT would answer; changes nothing",
        "parameters": [event_id],
        "requestBody": put["requestBody"],
        "responses": {"200": _answer("`changed` says whether PUT would change it", changed)}
        | _failures(401, 409, 413, 422, 503),
    }
    delete = {
        "summary": "Cancel an event (idempotent)",
        "parameters": [event_id],
        "responses": {"200": _answer("It is cancelled", changed)} | _failures(401, 404, 409, 422, 503),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cariflex OpenADR VTN", "version": "1"},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": definitions
            | {
                "EventRequest": request,
                "Event": {"type": "object", "description": "The current version, its status and the VENs' opts"},
                "Opt": {"type": "object", "description": "An opt schedule: of periods, or of an event"},
                "Point": {"type": "object", "description": "What a VEN reports: resource, quantity and unit"},
                "Value": {"type": "object", "description": "A reported value in the unit of its point, or a status"},
                "Changed": _object(changed={"type": "boolean"}, event=_ref("Event")),
                "Problem": _object(field=_STRING, value={}, problem=_STRING, fix=_STRING),
                "Errors": _object(errors={"type": "array", "items": _ref("Problem")}),
            },
        },
        "security": [{"token": []}],
        "paths": {
            "/api/v1/events": {
                "get": {
                    "summary": "List events, the latest start first",
                    "parameters": [limit],
                    "responses": {
                        "200": _answer("The events", _object(events={"type": "array", "items": _ref("Event")}))
                    }
                    | _failures(401, 422, 503),
                }
            },
            "/api/v1/events/{event_id}": {
                "get": {
                    "summary": "One event with its versions",
                    "parameters": [event_id],
                    "responses": {"200": _answer("The event", _ref("Event"))} | _failures(401, 404, 422, 503),
                },
                "put": put,
                "delete": delete,
            },
            "/api/v1/events/{event_id}/preview": {"post": preview},
            "/api/v1/watch": {
                "get": {
                    "summary": "Events as they change: server-sent events, each with an Event as its data",
                    "parameters": [_query("event_id", _STRING | {"pattern": f"^{EVENT_ID_PATTERN}$"})],
                    "responses": {
                        "200": {
                            "description": "All that have not ended, or the one; then each again when it changes",
                            "content": {"text/event-stream": {"schema": _STRING}},
                        }
                    }
                    | _failures(401, 404, 422, 429, 503),
                }
            },
            "/api/v1/vens": {
                "get": {
                    "summary": "The VENs with registration and last poll",
                    "responses": {"200": _answer("The VENs", {"type": "object"})} | _failures(401),
                }
            },
            "/api/v1/opts": {
                "get": {
                    "summary": "List the opt schedules of VENs, the latest first",
                    "parameters": [ven_id, limit],
                    "responses": {"200": _answer("The opt schedules", _list_of("opts", "Opt"))}
                    | _failures(401, 422, 503),
                }
            },
            "/api/v1/reports": {
                "get": {
                    "summary": "What VENs were asked to report",
                    "responses": {"200": _answer("The points", _list_of("points", "Point"))} | _failures(401, 503),
                }
            },
            "/api/v1/reports/values": {
                "get": {
                    "summary": "The latest reported values, in the order of their starts",
                    "parameters": [
                        ven_id,
                        _query("resource_id", _STRING),
                        _query("report_name", _STRING),
                        _query("start", _MOMENT),
                        _query("end", _MOMENT),
                        _query("limit", limit["schema"] | {"maximum": 10000}),
                    ],
                    "responses": {"200": _answer("The values", _list_of("values", "Value"))} | _failures(401, 422, 503),
                }
            },
            "/health": {
                "get": {
                    "summary": "Whether the VTN is ready",
                    "security": [],
                    "responses": {"200": {"description": "Ready"}, "503": {"description": "Not ready, with reasons"}},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Metrics for Prometheus",
                    "security": [],
                    "responses": {"200": {"description": "Text"}},
                }
            },
        },
    }


_STRING = {"type": "string"}
_MOMENT = {"type": "string", "format": "date-time"}
_FAILURES = {
    401: "The token is missing or wrong",
    404: "There is no such event",
    409: "Something that exists is in the way",
    413: "The body is too large",
    422: "The input is not acceptable",
    429: "Too many streams are open",
    503: "The store cannot be reached",
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _list_of(name: str, item: str) -> dict[str, Any]:
    return _object(**{name: {"type": "array", "items": _ref(item)}})


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _failures(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_FAILURES[status], _ref("Errors")) for status in statuses}
