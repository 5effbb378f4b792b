"""Draws the pictures of docs/quota.md: one for each idea of the limiter, from the simulation.

Rule: a picture is what the product's own limiter did in virtual time, and nothing else.
"""

import itertools
from pathlib import Path

from crawler.quota.state import Quota, State
from crawler.quota.tokens import free_tokens, next_tokens_ms, used_tokens
from tests.simulation.client import Client
from tests.simulation.world import Server, World

FOLDER = Path(__file__).parent.parent.parent / "docs" / "quota"
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 200, 46, 26
LINE = '<polyline fill="none" stroke="{}" stroke-width="1.5" points="{}"/>'
TEXT = '<text x="{}" y="{}" font-size="11" font-family="sans-serif" fill="#555" {}>{}</text>'


def svg(title, unit, length_s, lines):
    """Return a picture of lines, each a colour and points of (s, value)."""
    most = max(value for _, points in lines for _, value in points) * 1.05 or 1
    across, up = (WIDTH - LEFT - 8) / length_s, (HEIGHT - BOTTOM - 22) / most
    drawn = [
        LINE.format(
            colour,
            " ".join(f"{LEFT + s * across:.1f},{HEIGHT - BOTTOM - v * up:.1f}" for s, v in points),
        )
        for colour, points in lines
    ]
    floor = HEIGHT - BOTTOM
    axes = (
        f'<path d="M{LEFT},22V{floor}H{WIDTH - 8}" fill="none" stroke="#999"/>',
        TEXT.format(LEFT, 14, "", f"{title} ({unit})"),
        TEXT.format(LEFT - 4, 30, 'text-anchor="end"', f"{most:.3g}"),
        TEXT.format(LEFT - 4, floor, 'text-anchor="end"', "0"),
        TEXT.format(WIDTH - 8, HEIGHT - 8, 'text-anchor="end"', f"{length_s} s"),
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="#fff"/>', *axes, *drawn, "</svg>\n"]
    )


def watched(length_s, told, slots, of, step_ms=500, **server):
    """Return what is seen of a crawl every so often, as (s, value)."""
    world, seen = World(101), []
    client = Client(world, Server(world, 600, **server), 10**6, slots, Quota(told))

    def look():
        seen.append((world.now_ms / 1000, of(client)))
        world.at(world.now_ms + step_ms, look)

    look()
    world.run(length_s * 1000)
    return seen


def per_second(sent):
    """Return starts a second, of the starts so far."""
    pairs = itertools.pairwise(sent)
    return [(at_s, (n - before) / (at_s - then_s)) for (then_s, before), (at_s, n) in pairs]


def flowing(length_s, per_minute, size):
    """Return the tokens that calls have taken so far which start as soon as there are some."""
    quota, state, now_ms, points = Quota(tokens_per_minute=per_minute), State(), 1, [(0, 0)]
    while now_ms < length_s * 1000:
        if free_tokens(state, quota, now_ms) == 0:
            now_ms = next_tokens_ms(state)
        state = used_tokens(state, quota, size, now_ms)
        points += [(now_ms / 1000, points[-1][1]), (now_ms / 1000, points[-1][1] + size)]
    return points


def pictures():
    """Return the pictures by their names."""
    blue, red = "#2b6cb0", "#c53030"
    windows = watched(200, 600, 40, lambda c: c.sent, kind="fixed")
    rate = watched(400, None, 40, lambda c: c.state.rate or 0, kind="bucket10")
    quota = [(0, 600), (400, 600)]
    gate = watched(120, None, 20, lambda c: c.sent, outage=(40_000, 80_000))
    wide = watched(
        120, None, None, lambda c: int(c.state.width), latency_ms=200, capacity=("429", 64)
    )
    noise = watched(120, None, 10, lambda c: c.state.rate or 0, refused=0.1, latency_ms=50)
    return {
        "window": svg("told 600 a minute: starts", "a second", 200, [(blue, per_second(windows))]),
        "rate": svg("a quota of 600 that nobody tells: the rate", "a minute", 400,
                    [(red, quota), (blue, rate)]),
        "tokens": svg("6,000 tokens a minute, calls of 500: tokens taken", "tokens", 60,
                      [(red, [(0, 500), (60, 6_440)]), (blue, flowing(60, 6_000, 500))]),
        "noise": svg("10 % are refused at random: the rate", "a minute", 120, [(blue, noise)]),
        "gate": svg("out of order from 40 to 80 s: starts", "a second", 120,
                    [(blue, per_second(gate))]),
        "concurrency": svg("64 are served at once: calls in flight that may be", "calls", 120,
                           [(red, [(0, 64), (120, 64)]), (blue, wide)]),
    }  # fmt: skip


def main():
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (FOLDER / f"{name}.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
