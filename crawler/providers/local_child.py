"""The child process of the `local` provider: serves a GGUF file on loopback until told to end.

Rule: it reads a key from its standard input and answers nobody without it. It prints its
address on the first line, and lives as long as its standard input is open: when
its parent dies, however that happens, the kernel closes it.
"""

import os
import signal
import sys

SLOTS = 4
CONTEXT_TOKENS_PER_SLOT = 1024


def main() -> None:
    """Serve the model named by the first argument."""
    # A Ctrl-C at the terminal reaches the whole group; the parent decides what it means, and the
    # calls in flight need the child to the last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    key = sys.stdin.buffer.readline().decode().strip()
    address_out = os.dup(1)
    os.dup2(2, 1)  # whatever the library prints is no address

    import xllamacpp  # noqa: PLC0415 - a hundred megabytes, and only wanted here

    threads = min(SLOTS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    params.ui = False
    params.api_keys = [key]
    params.endpoint_props = params.endpoint_slots = params.endpoint_metrics = False
    params.cors_origins = ""  # no page of the web reads an answer
    params.cors_credentials = False
    server = xllamacpp.Server(params)
    os.write(address_out, f"{server.listening_address}\n".encode())
    os.close(address_out)
    sys.stdin.buffer.read()
    os._exit(0)  # the server's threads have nothing to save


if __name__ == "__main__":
    main()
