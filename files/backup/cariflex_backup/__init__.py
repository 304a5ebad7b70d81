"""Backups of an EMS: made, kept, proven and restored on the host, with Python's standard library alone."""
