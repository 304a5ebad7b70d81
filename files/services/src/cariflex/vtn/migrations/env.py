"""Where alembic gets its connection: from the VTN, which holds a lock on it."""

from alembic import context

from cariflex.vtn.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
