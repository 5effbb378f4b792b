"""Runs `crawler emulator` in a process of its own: to be asked, frozen, killed, started again."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path


class Emulated:
    """An emulator's process: `endpoint`, `http`, `pid`, and what it has written down."""

    def __init__(self, options, folder):
        self.endpoint = None
        self._options = options
        self._log = folder / "requests.jsonl"
        self._errors = folder / "errors"
        self._process = None
        self.start()

    @property
    def pid(self):
        """For signals: SIGSTOP freezes it, SIGCONT lets it go on."""
        return self._process.pid

    def start(self):
        """Start it, on the same port as before; return when it listens."""
        port = self.endpoint.rpartition(":")[2] if self.endpoint else "0"
        options = ["--port", port, "--log", self._log, *self._options]
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crawler", "emulator", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        first = self._process.stdout.readline()
        assert first, self._errors.read_text("utf-8")
        said = json.loads(first)
        self.endpoint, self.http = said["endpoint"], said.get("http")

    def log(self):
        """Return the lines of the log, of this process and those before it."""
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]

    def stop(self, number=signal.SIGTERM):
        """Stop it politely; return its summary."""
        os.kill(self.pid, number)
        out, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, self._errors.read_text("utf-8")
        return json.loads(out)

    def kill(self):
        """Kill it, as the system does when memory is short; it need not be running."""
        self._process.kill()
        self._process.wait(20)
        self._process.stdout.close()


@contextmanager
def emulator(**options):
    """Run an emulator until the end of the block.

    The options are those of the command: ``per_minute=5``, ``fault=["unavailable=0.1"]``,
    ``retry_info=False``.
    """
    with tempfile.TemporaryDirectory() as folder:
        emulated = Emulated(list(_typed(options)), Path(folder))
        try:
            yield emulated
        finally:
            emulated.kill()


def _typed(options):
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
            continue
        for each in value if isinstance(value, list) else [value]:
            yield from (f"--{option}", str(each))
