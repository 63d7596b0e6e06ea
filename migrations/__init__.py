"""The history of the database's schema, run by ``astound.migrate``.

A new revision is a file ``versions/000N_what.py`` written by hand. Its id is
``engine.store.tables.SCHEMA_HEAD``; the tests compare what it makes with that module. On SQLite a
batch that recreates ``tracks`` must pass ``table_kwargs={"sqlite_autoincrement": True}``, and no
revision may copy ``tracks`` without its row in ``sqlite_sequence``: ids are never used again.
"""
