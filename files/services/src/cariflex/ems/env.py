"""Where alembic gets its connection: from the start-up gate, which holds a lock."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="ems")
with context.begin_transaction():
    context.run_migrations()
