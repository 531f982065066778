"""`python -m benchmarks.fairness`: what hostile clients cost the others, in the simulated queue.

Three clients send a thumbnail, a photo of 3 megapixels and one of 12, each the next one a second after the last was
answered, and come back when they are told to. Beside them others do their worst: their waits are compared with those
beside as many clients that send the same pictures one at a time.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.simulation import Client, Device, Machine, Simulation
from service.admission import whole_seconds
from service.spec import TILE
from service.tiling import plan

HONEST: Final = {"thumbnail": plan(256, 256).tiles, "3 MP": plan(1536, 2048).tiles, "12 MP": plan(3000, 4000).tiles}
"""Tiles of what is sent by those whose waits are looked at."""

_GIANT: Final = plan(8192, 8192, TILE // 2).tiles

Sizes = Callable[[random.Random], int]
"""Draws the tiles of a picture."""


@dataclass(frozen=True)
class Attack:
    """What hostile clients do.

    Attributes:
        sizes: of their pictures.
        at_once: how many each has under way, or waiting to come again.
        every_s: seconds from one picture to the next, however many are under way; 0 sends the next when one is done.
        again_s: seconds after which a refused one comes again; None is when it was told to.
        comes_back: whether it does at all.
        hangs_up_s: seconds after which a picture is given up; 0 is never.
        clients: how many do so.
    """

    sizes: Sizes
    at_once: int = 1
    every_s: float = 0.0
    again_s: float | None = None
    comes_back: bool = True
    hangs_up_s: float = 0.0
    clients: int = 1


def _of(tiles: int) -> Sizes:
    return lambda _: tiles


_ANY: Final[Sizes] = lambda dice: dice.randint(165, _GIANT)  # noqa: E731
_PHOTO: Final = _of(HONEST["12 MP"])

ATTACKS: Final = {
    "a request a second, ever new sizes, never back": Attack(_ANY, every_s=1.0, comes_back=False),
    "ten requests a second, ever new sizes, never back": Attack(_ANY, every_s=0.1, comes_back=False),
    "24 pictures of 0.6 MP at once": Attack(_of(plan(700, 900).tiles), at_once=24),
    "240 photos of 12 MP at once": Attack(_PHOTO, at_once=240),
    "two of 67 MP with most overlap": Attack(_of(_GIANT), at_once=2),
    "240 tiles at once": Attack(_of(1), at_once=240),
    "a photo each 0.1 s, hangs up after 0.2 s": Attack(_PHOTO, every_s=0.1, comes_back=False, hangs_up_s=0.2),
    "24 photos, back at once when refused": Attack(_PHOTO, at_once=24, again_s=0.1),
    "4 clients, 12 photos each, back at once": Attack(_PHOTO, at_once=12, again_s=0.25, clients=4),
    "4 clients, ever new sizes, back at once": Attack(_ANY, at_once=12, again_s=0.25, clients=4),
    "4 clients, two of 67 MP each": Attack(_of(_GIANT), at_once=2, clients=4),
}


def one_at_a_time(attack: Attack) -> Attack:
    """What the same clients do with the same pictures where they behave."""
    return Attack(attack.sizes, clients=attack.clients)


def machine(tile_s: float) -> Machine:
    """Two lanes that take so long for a tile together."""
    return Machine((Device(0.0, 2 * tile_s, lanes=2),))


class _Loop:
    """A client that always has pictures under way, until the simulation is told to end."""

    def __init__(self, simulated: Simulation, name: str, attack: Attack, seed: int) -> None:
        self._simulated = simulated
        self._name = name
        self._attack = attack
        self._dice = random.Random(seed)
        self.ended = False
        for _ in range(attack.at_once):
            simulated.at(self._dice.uniform(0, 0.01), self._send)

    def _send(self, now: float) -> None:
        if self.ended:
            return
        then = (lambda *_: None) if self._attack.every_s else self._then
        sent = self._simulated.add((now, self._attack.sizes(self._dice)), self._name, then)
        if self._attack.every_s:
            self._simulated.at(now + self._attack.every_s, self._send)
        if self._attack.hangs_up_s:
            self._simulated.at(now + self._attack.hangs_up_s, lambda _: self._simulated.give_up(sent))

    def _then(self, picture: Client, now: float) -> None:
        if self.ended:
            return
        if picture.finished is not None:
            self._simulated.at(now, self._send)
        elif self._attack.again_s is not None:
            self._simulated.come_back(picture, now + self._attack.again_s)
        else:
            self._simulated.come_back(picture, now + whole_seconds(picture.told[-1][1]))


class _Honest:
    """A client that sends one picture after the other, and notes the seconds from the first try to the answer."""

    def __init__(
        self, simulated: Simulation, name: str, tiles: int, think_s: float, pictures: int, on_done: Callable[[], None]
    ) -> None:
        self.waits: list[float] = []
        self._simulated = simulated
        self._name = name
        self._tiles = tiles
        self._think_s = think_s
        self._left = pictures
        self._on_done = on_done
        simulated.at(5.0, self._send)  # when the others have made themselves at home

    def _send(self, now: float) -> None:
        self._simulated.add((now, self._tiles), self._name, self._then)

    def _then(self, picture: Client, now: float) -> None:
        if picture.finished is None:
            self._simulated.come_back(picture, now + whole_seconds(picture.told[-1][1]))
            return
        self.waits.append(now - picture.arrived)
        self._left -= 1
        if self._left:
            self._simulated.at(now + self._think_s, self._send)
        else:
            self._on_done()


def waits_beside(attack: Attack, tile_s: float, others: float, pictures: int, seed: int = 1) -> dict[str, list[float]]:
    """Simulate honest clients beside hostile ones.

    Args:
        attack: what the hostile ones do.
        tile_s: seconds that the device takes for a tile.
        others: the part of what the device can do that still others ask for, each of them with one picture.
        pictures: of each honest client.
        seed: of all chance.

    Returns:
        The seconds that each picture of each of `HONEST` took, from the first try to the answer.
    """
    simulated = Simulation(machine(tile_s), seed)
    dice = random.Random(seed)
    loops = [_Loop(simulated, f"hostile {number}", attack, number) for number in range(attack.clients)]
    running = set(HONEST)

    def done(name: str) -> None:
        running.discard(name)
        if not running:
            for loop in loops:
                loop.ended = True

    def passer_by(now: float) -> None:
        if not running:
            return
        tiles = dice.choice((9, 70, 350))
        simulated.add((now, tiles), f"passer-by {now}", come_back)
        simulated.at(now + dice.expovariate(others / tile_s / 143), passer_by)

    def come_back(picture: Client, now: float) -> None:
        if picture.finished is None:
            simulated.come_back(picture, now + whole_seconds(picture.told[-1][1]))

    if others:
        simulated.at(0.0, passer_by)
    honest = {
        name: _Honest(simulated, name, tiles, 1.0 + number / 10, pictures, partial(done, name))
        for number, (name, tiles) in enumerate(HONEST.items())
    }
    simulated.advance()
    return {name: each.waits for name, each in honest.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile", type=float, default=0.00145, help="seconds that the device takes for a tile")
    parser.add_argument("--others", type=float, nargs="*", default=[0.0, 0.3, 0.6], help="load by still others")
    parser.add_argument("--pictures", type=int, default=40, help="of each client whose waits are looked at")
    options = parser.parse_args()
    print("Seconds from the first try to the answer, mean: beside one picture at a time -> beside the attack, factor")
    print("| attack | load by others | " + " | ".join(HONEST) + " |")
    print("| --- | ---: |" + " ---: |" * len(HONEST))
    for name, attack in ATTACKS.items():
        for others in options.others:
            calm = waits_beside(one_at_a_time(attack), options.tile, others, options.pictures)
            beside = waits_beside(attack, options.tile, others, options.pictures)
            cells = []
            for size in HONEST:
                before, after = statistics.mean(calm[size]), statistics.mean(beside[size])
                cells.append(f"{before:.2f} -> {after:.2f}, {after / before:.2f}")
            print(f"| {name} | {others:.0%} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
