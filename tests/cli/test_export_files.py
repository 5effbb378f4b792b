"""The file of an export is there whole or not at all, and nothing else is left beside it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.errors import Exit
from tests.program import add_prompt, crawler

PAUSED = """
import os, signal, sys
from crawler.cli import export, main
write = export.write_csv
def paused(stream, rows, fields):
    write(stream, rows, fields)
    print("written", flush=True)
    sys.stdin.read()
export.write_csv = paused
sys.argv = ["crawler", *sys.argv[1:]]
main()
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "c.db"
    add_prompt(path, "p", "{word}")
    crawler("--db", path, "add", "a", "b", "--prompt", "p")
    assert crawler("--db", path, "run").code == Exit.DONE
    return path


def exporting(path):
    """Begin to export, up to the moment before the file is given its name."""
    args = ["--db", path, "export", "--prompt", "p", "-o", path.with_name("out.csv")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen([sys.executable, "-c", PAUSED, *map(str, args)], **pipes)
    assert running.stdout.readline() == b"written\n"
    return running


def hidden(path):
    return [found.name for found in path.parent.iterdir() if found.name.startswith(".out.csv")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_export_that_is_ended_leaves_nothing(path, number):
    running = exporting(path)
    assert len(hidden(path)) == 1
    running.send_signal(number)
    running.communicate(timeout=20)
    assert running.returncode == Exit.WORK_LEFT
    assert hidden(path) == []
    assert not path.with_name("out.csv").exists()


def test_what_a_killed_export_has_left_is_removed_by_the_next(path):
    running = exporting(path)
    others = [".out.csv.mine", f".out.csv.{os.getpid()}", ".other.csv.123"]
    for name in others:
        path.with_name(name).touch()
    running.kill()
    running.communicate(timeout=20)
    assert len(hidden(path)) == 3
    out = path.with_name("out.csv")
    # In a process of its own: the file of ours is one that is being written.
    done = subprocess.run(
        [sys.executable, "-m", "crawler", "--db", path, "export", "--prompt", "p", "-o", out],
        check=False,
    )
    assert done.returncode == Exit.DONE
    assert out.exists()
    assert {name for name in others if path.with_name(name).exists()} == set(others)
    assert len(hidden(path)) == 2


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
def test_a_file_that_is_replaced_keeps_its_mode(path, mode):
    out = path.with_name("out.csv")
    out.touch()
    out.chmod(mode)
    export = ("--db", path, "export", "--prompt", "p", "-o", out)
    assert crawler(*export, "--force").code == Exit.DONE
    assert out.stat().st_mode & 0o777 == mode
    out.unlink()
    assert crawler(*export).code == Exit.DONE
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "command",
    [("run",), ("status",), ("add", "c", "--prompt", "p"), ("export", "--prompt", "p"), ("check",)],
)
def test_nobody_who_can_listen_changes_no_exit(path, command):
    with Path("/dev/full").open("wb") as full:
        args = [sys.executable, "-m", "crawler", "--db", path, *command]
        done = subprocess.run(args, stderr=full, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == Exit.DONE
