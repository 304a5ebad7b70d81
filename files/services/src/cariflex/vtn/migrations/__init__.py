"""Migrations of the VTN's store (alembic), run by the VTN itself when it starts."""
