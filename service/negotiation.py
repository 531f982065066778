"""What an answer's headers agree on with the client: its type, and whether the client has it already. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.picture import plain_media_type

_ANY: Final = "*"
_MOST_RANGES: Final = 100
"""Entries of an Accept header that count, and parameters of one; browsers send ten."""


@dataclass(frozen=True)
class _Range:
    """One entry of an Accept header: `type/subtype`, either of which may be `*`, and its weight."""

    type: str
    subtype: str
    weight: float

    def precedence(self, kind: str) -> int:
        """How closely it fits a media type: 2 by name, 1 as `type/*`, 0 as `*/*`, -1 not at all."""
        type_, _, subtype = kind.partition("/")
        if (self.type, self.subtype) == (_ANY, _ANY):
            return 0
        if self.type != type_:
            return -1
        return 2 if self.subtype == subtype else 1 if self.subtype == _ANY else -1


def accepted(accept: str, own: str, others: Sequence[str]) -> str:
    """Choose the media type to answer in (RFC 9110, 12.4.2 and 12.5.1).

    The one of highest weight wins, the most precise range giving each type its weight, and a tie goes to `own`. There
    is one exception, which the RFC leaves to the server: a wildcard that takes `own` asks for nothing in particular.
    Browsers put formats that they can show in front of `*/*;q=0.8`, and nobody who sends a JPEG from a page wants WebP
    back for that. Who wants another type names it without a wildcard beside it.

    Args:
        accept: the header, several joined with commas; empty takes anything.
        own: the type that is answered where nothing is asked for, such as that of the picture as it came.
        others: what else there is, the better first.

    Returns:
        `own` or one of `others`; `own` too where nothing that there is would be accepted: an answer in another type
        is of more use than a refusal.
    """
    ranges = _ranges(accept)
    if not ranges:
        return own
    precedence, weight = _weigh(ranges, own)
    if precedence < 2 and weight > 0:
        return own
    best, best_weight = own, weight
    for kind in others:
        if kind != own and (offered := _weigh(ranges, kind)[1]) > best_weight:
            best, best_weight = kind, offered
    return best


def _weigh(ranges: Sequence[_Range], kind: str) -> tuple[int, float]:
    """Return how closely a header names a type, -1 where it does not, and the weight that it gives to it."""
    fitting = [(entry.precedence(kind), entry.weight) for entry in ranges]
    return max((each for each in fitting if each[0] >= 0), default=(-1, 0.0))


def _ranges(accept: str) -> list[_Range]:
    found = []
    for entry in accept.split(",", _MOST_RANGES)[:_MOST_RANGES]:
        kind, *parameters = (part.strip().lower() for part in entry.split(";", _MOST_RANGES)[:_MOST_RANGES])
        type_, slash, subtype = plain_media_type(kind).partition("/")
        if not (type_ and slash and subtype):
            continue
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _quality(value.strip())
        found.append(_Range(type_, subtype, weight))
    return found


def _quality(text: str) -> float:
    """Read a weight; what is none, or not within 0..1, makes the entry count for nothing."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def entity_tag(*parts: str | bytes) -> str:
    """Return a strong entity tag of everything that an answer's bytes depend on (RFC 9110, 8.8.3).

    Args:
        parts: in an order that is always the same; each counts with its length, so that none runs into the next.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return f'"{digest.hexdigest()}"'


def is_known(if_none_match: Sequence[str], tag: str) -> bool:
    """Whether If-None-Match headers name a tag, by weak comparison (RFC 9110, 13.1.2).

    `*` names none: it asks whether there is an answer already, and the service keeps no answers.
    """
    # most headers are of other answers, whatever there is in them
    known = (
        entry.strip().removeprefix("W/") for header in if_none_match if tag in header for entry in header.split(",")
    )
    return tag in known
