"""The ids by which one event is followed through all logs."""

from typing import Any


def trace(wire_id: object, modification_number: object, ven_name: str) -> dict[str, Any]:
    """Fields of a log line about an event: `event_id` is the operator's, as in the logs of the VTN.

    Our VTN makes an event's id on the wire from the operator's and the VEN's (`price-1:Cariflex-VEN-001`); another
    VTN's is the operator's as it is.
    """
    return {
        "event_id": str(wire_id).removesuffix(f":{ven_name}"),
        "wire_event_id": str(wire_id),
        "modification_number": modification_number,
    }
