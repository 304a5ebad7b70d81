"""Messages: what comes in is checked before it is parsed, what goes out before it is sent."""

import re
from typing import Any

from openleadr import messaging

MAX_MESSAGE_BYTES = 1024 * 1024  # a week at 15 minutes is 250 kB

_ENCODING = re.compile(rb"""\A(?:\xef\xbb\xbf)?\s*<\?xml[^>]*encoding\s*=\s*["']([^"']*)["']""")


class MessageError(Exception):
    """A body that must not reach the parser; the text says why."""


def check_body(body: bytes) -> None:
    """Refuse what no OpenADR message contains: other encodings than UTF-8, document types, entities.

    Document types are how entity expansion and external entities get in. The encoding is fixed because a document
    type could hide in another one.

    Raises:
        MessageError: with the reason.
    """
    encoding = _ENCODING.match(body)
    if encoding and encoding.group(1).lower() not in (b"utf-8", b"us-ascii", b"ascii"):
        raise MessageError("the encoding must be UTF-8")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise MessageError("the body is not UTF-8") from None
    if "\0" in text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise MessageError("document types and entities are not allowed")


def schema_fault(message_type: str, **payload: Any) -> str | None:
    """Render a message and validate it against the OpenADR 2.0b schema.

    A VEN drops the whole message silently when one element is not valid, so the VTN looks before it sends.

    Returns:
        What the schema says is wrong, or None.
    """
    try:
        messaging.validate_xml_schema(messaging.create_message(message_type, **payload))
    except (SyntaxError, ValueError) as error:
        return str(error)
    return None
