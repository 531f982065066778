"""What bulk runs made in a target: so that a rerun goes on, and nothing else's files are replaced.

Each actor writes files of lines of its own into `.pix2dslr/` of the target, each line a JSON object: before a batch,
the names that it is about to write; after it, what each became. So what a killed actor left is known to be ours, and
done again. Of all lines a reader keeps 32 bytes: ten million pictures are 320 MB.
"""

import hashlib
import json
import uuid
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.commands.bulk_places import OWN, Place
from service.commands.files import Stamp
from service.commands.ledger import NAME as OF_ENHANCE

_LINES_A_FILE: Final = {True: 100_000, False: 1000}
"""By whether files can grow: else each is written anew with every batch. A line has some 200 bytes."""


@dataclass(frozen=True)
class Made:
    """One answer that was written.

    Attributes:
        target: its name in the target.
        stamp: which version of it.
        source: what it was made of, as `enhance` or `bulk` call it.
        source_stamp: which version of that.
        how: digest of all else that it depends on.
    """

    target: str
    stamp: Stamp
    source: str
    source_stamp: Stamp
    how: str


def digest_of(options: Mapping[str, Any]) -> str:
    """Digest how answers are made: names and JSON values."""
    return hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=16).hexdigest()


class Segment:
    """The lines of one actor."""

    def __init__(self, target: Place) -> None:
        self._target = target
        self._lines: list[str] = []
        self._count = 0
        self._name = ""
        self._next_file()

    def begin(self, targets: Iterable[str]) -> None:
        """Note what will be written next; raises OSError or CantWrite."""
        self._write([json.dumps({"begun": list(targets)})])

    def end(self, made: Iterable[Made], failed: Iterable[str]) -> None:
        """Note what became of what was begun: answers, and names that were not written. Raises as `begin`."""
        lines = [
            json.dumps(
                {
                    "target": each.target,
                    "stamp": [each.stamp.size, each.stamp.mtime_ns],
                    "source": each.source,
                    "source_stamp": [each.source_stamp.size, each.source_stamp.mtime_ns],
                    "how": each.how,
                }
            )
            for each in made
        ]
        self._write([*lines, json.dumps({"failed": list(failed)})])
        if self._count >= _LINES_A_FILE[self._target.appends]:
            self._next_file()

    def _write(self, lines: list[str]) -> None:
        self._count += len(lines)
        if self._target.appends:
            self._target.append(self._name, _joined(lines))
        else:
            self._lines += lines
            self._target.write(self._name, _joined(self._lines))

    def _next_file(self) -> None:
        self._lines = []
        self._count = 0
        self._name = f"{OWN}/{uuid.uuid4().hex}.jsonl"


class Known:
    """All that was ever made in a target, by `bulk` and by `enhance`."""

    def __init__(self, target: Place) -> None:
        """Read it; raises OSError."""
        hashes = array("Q")
        for name in sorted(target.look(OWN).files):
            if name.endswith(".jsonl"):
                _take(hashes, target.read(f"{OWN}/{name}"))
        if OF_ENHANCE in target.look("").files:
            _take(hashes, target.read(OF_ENHANCE))
        self._hashes: npt.NDArray[np.uint64] = np.unique(np.frombuffer(hashes, np.uint64))

    def is_answer(self, target: str, stamp: Stamp) -> bool:
        """Whether this version of a file is an answer."""
        return self._has("answer", target, _told(stamp))

    def is_ours(self, target: str, stamp: Stamp, source: str, source_stamp: Stamp) -> bool:
        """Whether a file is an answer to a picture, in any version of either: under its name, or moved."""
        return (
            self._has("begun", target)
            or self._has("name", target, _told(stamp), source)
            or self._has("stamp", target, _told(stamp), _told(source_stamp))
        )

    def is_done(self, target: str, stamp: Stamp, source_stamp: Stamp, how: str) -> bool:
        """Whether a file is the answer to this version of a picture, made in this way."""
        return self._has("done", target, _told(stamp), _told(source_stamp), how)

    def _has(self, *facts: str) -> bool:
        wanted = np.uint64(_hash(*facts))
        place = int(np.searchsorted(self._hashes, wanted))
        return place < len(self._hashes) and bool(self._hashes[place] == wanted)


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _take(hashes: "array[int]", data: bytes) -> None:
    begun: set[str] = set()
    for line in data.splitlines():
        try:
            row = json.loads(line)
            if "begun" in row:
                begun.update(row["begun"])
            elif "failed" in row:
                begun.difference_update(row["failed"])
            else:
                begun.discard(row["target"])
                hashes.extend(_hashes_of(row))
        except (ValueError, TypeError, KeyError, AttributeError):  # a line that was cut off
            continue
    hashes.extend(_hash("begun", target) for target in begun)


def _hashes_of(row: Mapping[str, Any]) -> Iterable[int]:
    target, stamp, source_stamp = row["target"], _stamp(row["stamp"]), _stamp(row["source_stamp"])
    how = row["how"] if "how" in row else digest_of(row["options"])
    return (
        _hash("answer", target, stamp),
        _hash("name", target, stamp, row["source"]),
        _hash("stamp", target, stamp, source_stamp),
        _hash("done", target, stamp, source_stamp, how),
    )


def _stamp(value: Any) -> str:
    return _told(Stamp(**value) if isinstance(value, dict) else Stamp(*value))


def _told(stamp: Stamp) -> str:
    return f"{stamp.size} {stamp.mtime_ns}"


def _hash(*facts: str) -> int:
    text = "\0".join(facts).encode("utf-8", "surrogatepass")  # no name has a NUL in it
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
