"""OpenAPI description of the VTN's HTTP API, with the schemas of the models that really parse the input."""

from typing import Any

from cariflex.vtn.events import EVENT_ID_PATTERN, EventRequest

_JSON = "application/json"


def document(ven_ids: list[str]) -> dict[str, Any]:
    """The description; `ven_ids` become the choices of targets."""
    request = EventRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = request.pop("$defs")
    for form in request["properties"]["targets"]["anyOf"]:
        if form.get("type") == "array":
            form["items"] = {"type": "string", "enum": ven_ids}
    event_id = {
        "name": "event_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{EVENT_ID_PATTERN}$"},
    }
    limit = {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    }
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
            "/api/v1/vens": {
                "get": {
                    "summary": "The VENs with registration and last poll",
                    "responses": {"200": _answer("The VENs", {"type": "object"})} | _failures(401),
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
_FAILURES = {
    401: "The token is missing or wrong",
    404: "There is no such event",
    409: "Something that exists is in the way",
    413: "The body is too large",
    422: "The input is not acceptable",
    503: "The store cannot be reached",
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _failures(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_FAILURES[status], _ref("Errors")) for status in statuses}
