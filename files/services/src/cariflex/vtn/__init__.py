"""OpenADR 2.0b VTN: openleadr speaks the protocol, PostgreSQL holds the truth, an HTTP API takes the orders."""
