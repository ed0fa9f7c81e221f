"""Alembic runs this file for each command; `migrate` has put the connection into its settings."""

from alembic import context

from shoal_gateway.registry import schema

# The caller's transaction holds the lock, and everything is done in it or nothing.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    transactional_ddl=True,
)
context.run_migrations()
