"""Every file that export writes is read back by pandas and DuckDB, and by `crawler add`."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.judges.conftest import JUDGES
from tests.program import crawler, rows

ODD = ['say "a, b"', "=1+1", "semi;colon", "tab\tin it", "naïve – ünïcödé 語", "שלום", "01234"]
READ = """
import json, sys
import duckdb, pandas as pd
path, form = sys.argv[1:]
texts = {"keep_default_na": False, "dtype": str}
pandas = {
    "csv": lambda: pd.read_csv(path, **texts),
    "tsv": lambda: pd.read_csv(path, sep="\\t", **texts),
    "json": lambda: pd.read_json(path, dtype=False),
    "jsonl": lambda: pd.read_json(path, lines=True, dtype=False),
    "xlsx": lambda: pd.read_excel(path, **texts),
    "parquet": lambda: pd.read_parquet(path),
}[form]()
read = {"csv": "read_csv(?, all_varchar=true)", "tsv": "read_csv(?, delim='\\t', all_varchar=true)",
        "json": "read_json(?)", "jsonl": "read_json(?)", "parquet": "read_parquet(?)"}.get(form)
found = {"pandas": pandas["word"].tolist()}
if read:
    sql = f"select word, attempts from {read}"
    found["duckdb"] = [word for word, _ in duckdb.execute(sql, [path]).fetchall()]
print(json.dumps(found))
"""


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "xlsx", "parquet"])
def test_a_table_is_read_back(tmp_path, form):
    db, table = tmp_path / "c.db", tmp_path / f"t.{form}"
    listed = tmp_path / "words.json"
    listed.write_text(json.dumps([{"word": word, "level": "A"} for word in ODD]), "utf-8")
    for command in (
        ("prompt", "add", "p", "--template", "Define {word}.", "--provider", "scripted"),
        ("add", listed, "--prompt", "p"),
        ("run",),
        ("export", table),
    ):
        assert crawler("--db", db, *command).code == 0
    python = [Path(JUDGES) / "python", "-W", "ignore", "-c", READ, table, form]
    done = subprocess.run(python, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # What a spreadsheet takes for a formula has a ' in front, in CSV alone.
    quoted = ["'=1+1" if word == "=1+1" and form in ("csv", "tsv") else word for word in added(db)]
    for reader, words in json.loads(done.stdout).items():
        assert words == quoted, reader

    again = tmp_path / "again.db"
    prompt = ("prompt", "add", "p", "--template", "Define {word}.", "--provider", "scripted")
    assert crawler("--db", again, *prompt).code == 0
    assert crawler("--db", again, "add", table).code == 0
    assert added(again) == quoted


def added(db):
    return [word for (word,) in rows(db, "SELECT text FROM words ORDER BY id")]
