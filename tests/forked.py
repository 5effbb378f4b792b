"""Starts the program without its imports: a process that has made them forks itself.

A start costs 20 ms instead of half a second, and the child is a process like any other: with a
group of its own, to be stopped and killed. It knows the schema, too, and makes a new file at once.
As a script it is the process that forks, and is told over a socket what to start (arguments,
environment, where standard error goes) and whose exit code is wanted.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORTED = (
    "crawler.cli.add",
    "crawler.cli.control",
    "crawler.cli.prompt",
    "crawler.cli.run",
    "crawler.cli.crawl",
    "crawler.providers.openai.service",
)


class Forked:
    """A started process; what `subprocess.Popen` has of `pid`, `returncode`, `wait` and so on."""

    def __init__(self, origin, pid, stderr):
        self.pid = pid
        self.stderr = stderr
        self.returncode = None
        self._origin = origin
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout=None):
        """Return the exit code. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            os.close(self._pidfd)
            status = self._origin.ask({"wait": self.pid})
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def poll(self):
        """Return the exit code, if there is one yet."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        """Send a signal to the process alone."""
        os.kill(self.pid, number)


class Origin:
    """The process that forks."""

    def __init__(self, ours):
        self._socket = ours
        self._one_at_a_time = threading.Lock()

    def start(self, args, env):
        """Run the program with these arguments and changes of the environment."""
        readable, writable = os.pipe()
        pid = self.ask({"args": [str(arg) for arg in args], "env": env}, [writable])
        os.close(writable)
        return Forked(self, pid, os.fdopen(readable, encoding="utf-8", errors="replace"))

    def ask(self, told, files=()):
        """Ask, and return the answer: a number."""
        with self._one_at_a_time:
            socket.send_fds(self._socket, [json.dumps(told).encode()], list(files))
            return int(self._socket.recv(100))


@contextmanager
def origin():
    """Have such a process until the end of the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ) as process,
    ):
        theirs.close()
        try:
            yield Origin(ours)
        finally:
            ours.close()  # and so it ends
            process.wait(20)


def main():
    """Be the origin, until nobody asks any more."""
    for name in IMPORTED:
        __import__(name)
    asked = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, files, _, _ = socket.recv_fds(asked, 100_000, 1)
        if not data:
            return
        told = json.loads(data)
        if "wait" in told:
            asked.send(str(os.waitpid(told["wait"], 0)[1]).encode())
            continue
        pid = os.fork()
        if pid == 0:
            asked.close()
            be_the_program(told, files[0])
        os.setpgid(pid, pid)  # here as well as there: whoever is told of it may kill the group
        os.close(files[0])
        asked.send(str(pid).encode())


def be_the_program(told, stderr):
    """Do what `crawler ARGS` does; never returns."""
    from crawler.cli import main as program  # noqa: PLC0415 - the child's

    os.setpgid(0, 0)
    os.dup2(stderr, 2)
    os.close(stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    os.environ.update(told["env"])
    sys.argv = ["crawler", *told["args"]]
    code = 1
    try:
        program()
    except SystemExit as end:
        code = int(end.code)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
