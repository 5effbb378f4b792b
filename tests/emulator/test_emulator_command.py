"""`crawler emulator` as a person uses it: told wrong, stopped, killed, watched."""

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys

import grpc
import pytest

from crawler.errors import Exit
from crawler.providers.vertex import messages
from tests.emulating import emulator
from tests.program import crawler, crawler_process, told


def ask(endpoint, *words, timeout=5):
    """Ask about words, one after the other; return the codes."""

    async def asked():
        async with grpc.aio.insecure_channel(endpoint) as channel:
            call = channel.unary_unary(messages.GENERATE)
            return [await code_of(call(body(word), timeout=timeout)) for word in words]

    return asyncio.run(asked())


def connect_for_ever(endpoint):
    host, port = endpoint.split(":")
    while True:
        socket.create_connection((host, int(port)), timeout=5).close()


def body(word):
    request = messages.GenerateContentRequest(model="gemini-2.5-flash")
    request.contents.add().parts.add(text=f'Define "{word}".')
    return request.SerializeToString()


async def code_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--fault", "internal"], "KIND=RATE"),
        (["--fault", "internal=often"], "KIND=RATE"),
        (["--fault", "hiccup=0.1"], "'hiccup' is no kind of fault"),
        (["--fault", "internal=2"], "1 at the most"),
        (["--word-fault", "abrogate"], "WORD=KIND"),
        (["--word-fault", "abrogate=internal*"], "WORD=KIND"),
        (["--word-fault", "abrogate=internal*x"], "WORD=KIND"),
        (["--word-fault", "abrogate=internal*0"], "at least once"),
        (["--outage", "5"], "FROM,TO"),
        (["--outage", "5,2"], "ends after"),
        (["--outage", "0,3,2"], "over before"),
        (["--outage", "0,3,2,1"], "FROM,TO"),
        (["--burst", "5"], "bucket"),
        (["--tenants", "5"], "per minute"),
        (["--jitter-ms", "5"], "jitter"),
        (["--per-minute", "0"], "--per-minute"),
        (["--window", "round"], "round"),
        (["--port", "65536"], "--port"),
    ],
)
def test_options_that_make_no_sense_are_told_before_anything_starts(options, cause):
    assert cause in told(crawler("emulator", *options), Exit.USAGE)[1]


def test_a_port_that_is_taken_and_a_log_that_cannot_be_written_are_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        what, _, hint = told(crawler_process("emulator", "--port", port), Exit.CONFIGURATION)
        assert str(port) in what
        assert "--port 0" in hint
    log = tmp_path / "missing" / "log"
    told(crawler_process("emulator", "--port", 0, "--log", log), Exit.DATABASE)


def test_its_options_are_read_without_grpc_and_without_google():
    program = (
        "import sys, crawler.cli.emulator, crawler.emulator.settings;"
        "print({'grpc', 'google.protobuf', 'google.rpc', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)

    assert done.stdout.decode().strip() == "{'asyncio'}"


def test_it_does_what_its_options_say_and_sums_up_at_the_end():
    with emulator(
        fault=["internal=0"],
        word_fault=["odd=unavailable*1", "odd=internal*1", "a=b=aborted"],
        per_minute=5,
        window="sliding",
        latency_ms=1,
        retry_info=False,
    ) as emulated:
        words = ("odd", "odd", "odd", "odd", "a=b", "more")
        codes = ["UNAVAILABLE", "INTERNAL", "OK", "OK", "ABORTED", "RESOURCE_EXHAUSTED"]
        assert ask(emulated.endpoint, *words) == codes
        assert [line["code"] for line in emulated.log()] == codes
        assert emulated.stop() == {
            "received": 6,
            "codes": dict.fromkeys(["OK"], 2)
            | dict.fromkeys(["UNAVAILABLE", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED"], 1),
            "most_in_flight": 1,
            "answered_more_than_once": {"odd": 2},
        }


def test_in_an_outage_of_its_port_nobody_can_connect():
    with emulator(outage="0.1,99", outage_kind="refused") as emulated:
        # Whoever is in the queue when the port is closed is reset, not refused.
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            connect_for_ever(emulated.endpoint)
        assert emulated.stop()["received"] == 0


def test_killed_it_has_written_down_what_its_clients_saw_and_comes_back_on_its_port():
    with emulator(seed=3) as emulated:
        endpoint = emulated.endpoint
        seen = asyncio.run(ask_until_killed(emulated))
        assert len(seen) > 50
        assert seen <= {line["word"] for line in emulated.log() if line["code"] == "OK"}

        emulated.start()
        assert emulated.endpoint == endpoint
        assert ask(endpoint, "again") == ["OK"]
        assert emulated.log()[-1]["word"] == "again"


async def ask_until_killed(emulated):
    """Return the words that were answered until the emulator was killed amid them."""
    seen = set()
    async with grpc.aio.insecure_channel(emulated.endpoint) as channel:
        call = channel.unary_unary(messages.GENERATE)

        async def asking(name):
            for number in range(100_000):
                if await code_of(call(body(f"{name}-{number}"), timeout=5)) != "OK":
                    return
                seen.add(f"{name}-{number}")
                if len(seen) == 200:
                    emulated.kill()

        await asyncio.gather(*(asking(name) for name in "abcdefgh"))
    return seen


def test_ctrl_c_stops_it_promptly_though_calls_hang_and_a_terminal_shows_figures():
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crawler", "emulator", "--port", "0", "--fault", "hang=1"],
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        assert ask(endpoint, "word", timeout=0.1) == ["DEADLINE_EXCEEDED"]
        shown = b""
        while b"1 received" not in shown:
            shown += os.read(leader, 4096)
        assert f"export VERTEX_EMULATOR_HOST={endpoint}".encode() in shown
        hanging = subprocess.Popen(
            [sys.executable, "-c", HANGING, endpoint], stdout=subprocess.PIPE, text=True
        )
        while b"2 received \xc2\xb7 0 OK \xc2\xb7 0 refused \xc2\xb7 1 in flight" not in shown:
            shown += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=5)
        assert json.loads(out)["codes"] == {"HANG": 2}
        assert process.returncode == 0
        assert hanging.communicate(timeout=10)[0].strip() in ("UNAVAILABLE", "CANCELLED")
    finally:
        process.kill()
        process.wait()
        os.close(leader)


HANGING = """
import asyncio, sys
from tests.emulator.test_emulator_command import ask
print(ask(sys.argv[1], "word", timeout=60)[0])
"""
