"""The schema `ems` in FlexMeasures' database, as alembic makes it: what our services have observed."""
