"""The page docs/schema.sql is the schema, and a migration that has landed stays as it is."""

import re
import sqlite3

from crawler.storage import upgrade
from crawler.storage.upgrade import migrate, migrations
from tests.storage.schema_page import PAGE, SCRIPT, SECTIONS, at_once_script, schema_page

LANDED = {
    "0001_ledger.sql": "2709eb91efbc6610dafeda50db3b11a6ff289ea36a1b91a78e4096ed6ec8caf0",
    "0002_answers.sql": "78a0f74f3fe34d8514d588869848dfbc25b3d2df2d0ecc2c2de3ec5081965622",
    "0003_quota.sql": "7c330038e3e2ab5d16590687e2846d97a8897df4375902d659e19fa91f466913",
    "0004_reliability.sql": "1976866e801cfe4767148906340afe17276a0c543f3e8b536c4a878355834758",
    "0005_why.sql": "33ed261dc23548c86a9c550a33d8287da45594df9d52d66d80e23482d8a05ab2",
    "0006_refusals.sql": "cc0637cd3192929e10f13d246ecc9893612135b90e301463da50df61384bae0b",
    "0007_answers_in_doubt.sql": "7f3dd271278ce9c173f5df5bf579b72500edf2a43cf8f6136c7d43625f5f758c",
    "0008_details.sql": "e5c87237b154b4b06b5076a75f7af917ca98f8172899c80ab66a6f8aeea86264",
    "0009_limiter.sql": "059c05e0065327c4467d40df2092a1c67f0cb1a6a9f7e883088f11fa94d27968",
    "0010_edited_rows.sql": "0bf58447e7c312f257a808102b4ea3fece28c6da0ac804f0fa4d462d2a18c162",
    "0011_owners.sql": "e8d9daf956f8d2bd9b6fea3c2e52b3b93904a4848035126a03dc74393632e28f",
    "0012_columns.sql": "7552157f4474bd4988048c1f99e6a98f308f0e8ee4c92c102087af7195440a02",
    "0013_items.sql": "43e5971efac5f85cca2c37a288237d8de720c8836ff12ade9b530346177bc78f",
    "0014_revisions.sql": "1dcaeba277e7210232ef7fdc1728765f6c2932a7a4dfa46ac766499d79300168",
    "0015_reviews.sql": "0c27c2ac26efc73ddd7c10c23c3bac6ff81d036572dee561f04e37558146668b",
}
"""The digests of the migrations that somebody's database may have been made with."""
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


def new_database():
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, 0)
    return conn


def objects(conn):
    """Return what is in a schema, without comments and blanks."""
    rows = conn.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL")
    return {
        (kind, name): re.sub(r"\s+", "", re.sub(r"--[^\n]*", "", sql)) for kind, name, sql in rows
    }


def test_the_page_is_fresh():
    assert PAGE.read_text("utf-8") == schema_page(), "docs/schema.sql is old: run scripts/schema"


def test_the_page_makes_the_schema_that_the_migrations_make():
    conn = sqlite3.connect(":memory:")
    conn.executescript(PAGE.read_text("utf-8"))
    migrated = new_database()
    made, known = objects(conn), objects(migrated)
    # ALTER TABLE puts new columns behind a table's constraints: columns are compared by name.
    assert made.keys() == known.keys()
    for kind, name in known:
        if kind == "table":
            told = f"SELECT * FROM pragma_table_xinfo('{name}')"
            assert conn.execute(told).fetchall() == migrated.execute(told).fetchall(), name
        else:
            assert made[kind, name] == known[kind, name], name


def test_every_table_and_view_has_a_comment():
    page = PAGE.read_text("utf-8")
    for name in [name for names in SECTIONS.values() for name in names]:
        assert re.search(rf"^-- .+\nCREATE (TABLE|VIEW) {name}\b", page, re.MULTILINE), name


def test_a_migration_that_has_landed_is_never_edited():
    """Whoever has a database made with it could not open that any more: add a new migration.

    A new one is listed here when it lands.
    """
    assert {migration.name: migration.sha256 for migration in migrations()} == LANDED


def test_what_a_new_file_gets_at_once_is_what_the_migrations_make(monkeypatch):
    assert SCRIPT.read_text("utf-8") == at_once_script(), "it is old: run scripts/schema"
    once = new_database()
    monkeypatch.setattr(upgrade, "at_once", lambda: None)
    known = new_database()
    for told in ("PRAGMA user_version", "PRAGMA application_id", SCHEMA):
        assert once.execute(told).fetchall() == known.execute(told).fetchall(), told
    assert list(once.iterdump()) == list(known.iterdump())


def test_where_a_migration_has_changed_a_new_file_gets_them_one_by_one(monkeypatch):
    more = upgrade.Migration(len(LANDED) + 1, "9999_more.sql", "CREATE TABLE more (x ANY) STRICT;")
    monkeypatch.setattr(upgrade, "migrations", lambda: (*known, more))
    known = migrations()
    assert upgrade.at_once() is None
    assert ("table", "more") in objects(new_database())
