"""Every target."""

from functools import cache

from tests.fuzz import app, targets
from tests.fuzz.targets import Target


@cache
def all_targets() -> dict[str, Target]:
    """Return them by name."""
    return targets.targets() | app.TARGETS
