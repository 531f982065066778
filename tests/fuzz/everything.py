"""Every target."""

from tests.fuzz.targets import targets

__all__ = ["targets"]
