"""Measures what a row costs with others, beside ours and a bare loop that stores nothing.

    scripts/bench peers [--words 3000] [--rounds 3] [--latency-ms 5] [--peers flexllm openai]

Against openai_server.py on the loopback, in turn, whole child processes with their imports:

    bare loop   bare_client.py: asks and stores nothing
    crawler     `crawler run --provider openai`
    flexllm     its batch of chat completions into a JSON-lines file
    openai      the SDK alone, as many workers as calls may be in flight; nothing is stored

A peer is installed once, in the version that is pinned here, into an environment of its own below
--environments. One that can't be had is left out, with a word.
"""

import argparse
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import harness
import openai
from harness import Usage

PINNED = {"flexllm": "flexllm==0.17.10", "openai": "openai==3.57.0"}
INSTALL_S = 300


def installed(peer: str, folder: Path) -> Path | None:
    """Return the interpreter of a peer's environment; None, with a word, if it can't be had."""
    place = folder / PINNED[peer]
    python, stamp = place / "bin" / "python", place / "installed"
    if stamp.exists():
        return python
    try:
        venv.create(place, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", PINNED[peer]]
        subprocess.run(pip, check=True, timeout=INSTALL_S, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{peer} is left out: {PINNED[peer]} can't be installed ({type(error).__name__})")
        return None
    stamp.touch()
    return python


def one_round(
    args: argparse.Namespace, folder: Path, address: str, peers: Mapping[str, Path]
) -> dict[str, Usage]:
    """Measure every side once."""
    words = folder / "words.txt"
    costs = {
        "bare loop": openai.bare(words, address),
        "crawler": openai.crawl(folder, words, address, args.words),
    }
    for peer, python in peers.items():
        script, output = str(harness.HERE / "peer_side.py"), folder / "answers.jsonl"
        told = (peer, address, str(words), str(openai.CONCURRENCY), str(output))
        costs[peer] = harness.measure([str(python), script, *told], {"PYTHONPATH": ""})
        output.unlink(missing_ok=True)
    return costs


def show(rounds: list[dict[str, Usage]], words: int) -> None:
    """Print the medians, and the medians of the ratios to the bare loop."""
    print("CPU ratio  wall ratio  CPU ms a row  rows/s  peak MiB")
    for side in rounds[0]:
        cpu = median(costs[side].cpu_s / costs["bare loop"].cpu_s for costs in rounds)
        wall = median(costs[side].wall_s / costs["bare loop"].wall_s for costs in rounds)
        usage = Usage(*map(median, zip(*(costs[side] for costs in rounds), strict=True)))
        figures = f"{usage.cpu_s * 1000 / words:12.3f}  {words / usage.wall_s:6.0f}"
        print(f"{cpu:9.2f}  {wall:10.2f}  {figures}  {usage.peak_mib:8.0f}  {side}")


def main(argv: list[str] | None = None) -> None:
    """Read the options, install, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--words", type=int, default=3_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--latency-ms", default="5", metavar="LOW[,HIGH]", help="of the server")
    options.add_argument("--peers", nargs="*", choices=PINNED, default=list(PINNED))
    options.add_argument("--environments", type=Path, default=Path(sys.prefix) / "peers")
    args = options.parse_args(argv)
    found = {peer: installed(peer, args.environments.absolute()) for peer in args.peers}
    peers = {peer: python for peer, python in found.items() if python is not None}
    print(f"{args.words} words, concurrency {openai.CONCURRENCY}, latency {args.latency_ms} ms")
    with (
        harness.workspace(args.dir) as folder,
        harness.server("--latency-ms", args.latency_ms) as address,
    ):
        harness.write_words(folder / "words.txt", args.words)
        show([one_round(args, folder, address, peers) for _ in range(args.rounds)], args.words)


if __name__ == "__main__":
    main()
