"""Migrations of the database schema, run by ``astound.migrate``.

Write a new revision by hand in ``versions/000N_what.py``. Its id becomes
``engine.store.tables.SCHEMA_HEAD``; the tests compare its result with that module. On SQLite, a
batch that recreates ``tracks`` must pass ``table_kwargs={"sqlite_autoincrement": True}`` and keep
the row of ``tracks`` in ``sqlite_sequence``, because ids are never reused.
"""
