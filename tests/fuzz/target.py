"""What a target is: how an input is made, and what is done with it."""

import random
from collections.abc import Callable
from dataclasses import dataclass


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Target:
    """One thing that is fuzzed.

    Attributes:
        make: an input, by chance.
        run: gives it to the service; raises whatever nobody promised. What it returns is kept as a kind of outcome.
    """

    make: Callable[[random.Random], bytes]
    run: Callable[[bytes], str]


def expect(holds: bool, words: str) -> None:
    if not holds:
        raise Broken(words)
