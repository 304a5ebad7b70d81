"""What the VTN and the VEN share about OpenADR 2.0b: signals with their units, and the message layer.

Importing it hardens openleadr's message layer in this process, in both directions.
"""

from openleadr import messaging

# openleadr renders its templates without escaping: a request id with `<` in it would break our answer.
messaging.TEMPLATES.autoescape = True
# Its parser expands entities while it validates: one of 200 bytes is enough to end the process (a crash in libxml2).
messaging.XML_PARSER = messaging.etree.XMLParser(schema=messaging.XML_SCHEMA, resolve_entities=False, no_network=True)
