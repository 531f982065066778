"""API keys: read from text, compared in constant time, read again where their file changed."""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")  # what may stand after Bearer (RFC 6750), too long to guess
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_MOST_BYTES: Final = 1 << 20


class BrokenKeys(ValueError):
    """Keys can't be read; the message says where and why, and holds none of them."""


@dataclass(frozen=True)
class ApiKey:
    """One key.

    Attributes:
        name: whose it is; may be logged.
        digest: the key's SHA-256. Keys are long and random, so that a slow hash would add nothing.
    """

    name: str
    digest: bytes


def digest_of(key: str) -> bytes:
    """Return a key's SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read keys, one a line: `NAME:KEY`, or `NAME:sha256:DIGEST` in hexadecimal; `#` begins a comment line.

    A name may have several keys, so that one can be replaced without a gap.

    Raises:
        BrokenKeys: a line is neither, two keys are the same, or there is none.
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, _, secret = line.partition(":")
        kind, _, hexadecimal = secret.partition(":")
        if not _NAME.fullmatch(name):
            raise BrokenKeys(f"line {number} has no name: write NAME:KEY")
        if kind == "sha256" and _DIGEST.fullmatch(hexadecimal):
            digest = bytes.fromhex(hexadecimal)
        elif _KEY.fullmatch(secret):
            digest = digest_of(secret)
        else:
            raise BrokenKeys(
                f"line {number} has no key: 16 to 256 letters, digits and -._~+/=, or sha256: and 64 hexadecimal digits"
            )
        if any(digest == key.digest for key in keys):
            raise BrokenKeys(f"line {number} has a key that another line has")
        keys.append(ApiKey(name, digest))
    if not keys:
        raise BrokenKeys("there is no key")
    return tuple(keys)


def find_key(keys: Iterable[ApiKey], sent: str) -> ApiKey | None:
    """Return the key that was sent, None where it is none of them; takes as long whichever it is."""
    digest, found = digest_of(sent), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


class KeyRing:
    """The keys of one app: some that stay, and a file's, which may change while the service runs.

    The file's content is looked at again and again instead of waiting for SIGHUP: a secret that is mounted into a
    container changes in place, and nobody there can send a signal.
    """

    def __init__(self, fixed: tuple[ApiKey, ...] = (), file: Path | None = None) -> None:
        """Read the keys.

        Raises:
            BrokenKeys: the file can't be read, or holds what is no key: the service would else begin open to all.
        """
        self._fixed = fixed
        self._file = file
        self._seen: bytes | None = None
        self._from_file: tuple[ApiKey, ...] = ()
        if file is not None:
            self._seen = _read(file)
            self._from_file = _parse(self._seen)

    @property
    def needed(self) -> bool:
        """Whether requests need a key; never changes, whatever becomes of the file."""
        return bool(self._fixed) or self._file is not None

    def find(self, sent: str) -> ApiKey | None:
        """Return the key that was sent, None where it is none of ours."""
        return find_key((*self._fixed, *self._from_file), sent)

    def holds(self, key: ApiKey) -> bool:
        """Return whether a key that was found is still one of ours."""
        return key in self._fixed or key in self._from_file

    def look_again(self) -> None:
        """Read the file where it changed; a broken one leaves the keys as they were and is told once."""
        if self._file is None:
            return
        try:
            content: bytes | None = _read(self._file)
        except BrokenKeys as error:
            if self._seen is not None:
                log.error("API keys: %s; those that were read before stay", error)  # noqa: TRY400  it says it all
            self._seen = None
            return
        if content == self._seen or content is None:
            return
        self._seen = content
        try:
            self._from_file = _parse(content)
        except BrokenKeys as error:
            log.error("API keys: %s; those that were read before stay", error)  # noqa: TRY400
            return
        log.info("API keys: %d from the file", len(self._from_file))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BrokenKeys(f"the file can't be read ({error.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise BrokenKeys("the file is too large to hold keys")
    return content


def _parse(content: bytes) -> tuple[ApiKey, ...]:
    try:
        return parse_keys(content.decode())
    except UnicodeDecodeError:
        raise BrokenKeys("the file is no text") from None
