"""Sends one file to a service and says what became of it."""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from service.problems import MEDIA_TYPE, all_problems
from tests.corpus.children import Child, has_exiftool
from tests.corpus.comparing import Look, agreed, is_fault, metadata_faults, refusal_class
from tests.corpus.reading import DECODERS
from tests.hostile.sending import problem_faults

CLASSES: Final = ("same", "unchecked", "refused-rightly", "refused-though-readable", "different", "error", "timeout")
"""`unchecked` files are answered, and no decoder can be asked about them."""
WRONG: Final = ("different", "error", "timeout")
_ALLOWED: Final = frozenset(problem.type for problem in all_problems() if problem.status < 500)
_MAGIC: Final = (
    (b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"II*\0", "tiff"), (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"BM", "bmp"),
)  # fmt: skip
_HEAD: Final = 64


@dataclass(frozen=True)
class Row:
    """What became of a file; a line of the CSV.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        format: by its first bytes.
        bytes: how many.
        seconds: that the service took for the first request.
        status: of its answers, with a slash between them where they differ.
        problem: the last part of the problem's type.
        outcome: one of `CLASSES`.
        wrong: whether the run fails for it.
        kinds: of the faults: size, colour, alpha, depth, metadata, ...
        detail: faults, or the problem's words and what the decoders say.
        mean, high, largest: differences of the PNG answer in levels: mean, 99th percentile, largest.
    """

    path: str
    sha256: str
    format: str
    bytes: int
    seconds: float = 0
    status: str = ""
    problem: str = ""
    outcome: str = "same"
    wrong: bool = False
    kinds: str = ""
    detail: str = ""
    mean: float = 0
    high: float = 0
    largest: float = 0

    def cells(self) -> dict[str, str]:
        """The row as text, by column."""
        return {
            name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in asdict(self).items()
        }


@dataclass
class _Reply:
    status: int
    body: bytes
    kind: str
    seconds: float
    error: str = ""


@dataclass
class Trial:
    """Sends files, each in its own format and in others.

    Args:
        client: of the service.
        child: reads files.
        formats: to ask for besides the file's own.
        strength: of the enhancement; only at 0 are pixels compared.
        answers: SHA-256 of each answer that came, by the file's SHA-256 and the format that was asked for.
    """

    client: httpx.Client
    child: Child
    formats: Sequence[str] = ("png",)
    strength: float = 0
    answers: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, path: Path) -> Row:
        """Send a file and judge its answers."""
        data = path.read_bytes()
        row = Row(str(path), hashlib.sha256(data).hexdigest(), format_of(data), len(data))
        replies = self._replies(path.name, data)
        seconds = replies[""].seconds
        statuses = list(dict.fromkeys(str(reply.status or reply.error) for reply in replies.values()))
        row = replace(row, seconds=seconds, status="/".join(statuses))
        if changed := self._changed(row.sha256, replies):
            return replace(row, outcome="different", wrong=True, kinds="repeated", detail=changed)
        late = [reply for reply in replies.values() if reply.error]
        if late:
            outcome = "timeout" if "timed out" in late[0].error else "error"
            return replace(row, outcome=outcome, wrong=True, detail=late[0].error)
        refused = [reply for reply in replies.values() if reply.status != 200]
        return self._refused(row, path, refused[0]) if refused else self._answered(row, path, replies)

    def repeat(self, path: Path) -> str:
        """Send a file again; return what differs from the answers before."""
        data = path.read_bytes()
        return self._changed(hashlib.sha256(data).hexdigest(), self._replies(path.name, data))

    def _replies(self, name: str, data: bytes) -> dict[str, _Reply]:
        return {format_: self._send(name, data, format_) for format_ in ("", *self.formats)}

    def _send(self, name: str, data: bytes, format_: str) -> _Reply:
        options = {"strength": str(self.strength), **({"format": format_} if format_ else {})}
        start = time.perf_counter()
        try:
            answer = self.client.post("/enhance", files={"image": (name, data)}, data=options)
        except httpx.TimeoutException:
            return _Reply(0, b"", "", time.perf_counter() - start, "timed out")
        except httpx.HTTPError as error:
            return _Reply(0, b"", "", time.perf_counter() - start, f"{type(error).__name__}: {error}")
        kind = answer.headers.get("content-type", "")
        return _Reply(answer.status_code, answer.content, kind, time.perf_counter() - start)

    def _changed(self, sha256: str, replies: dict[str, _Reply]) -> str:
        faults = []
        for format_, reply in replies.items():
            body = reply.body if reply.status == 200 else str(json_of(reply).get("type", reply.status)).encode()
            now = f"{reply.status} {hashlib.sha256(body).hexdigest()}"
            before = self.answers.setdefault((sha256, format_), now)
            if before != now:
                faults.append(f"format={format_ or 'its own'}: {before[:12]}, and then {now[:12]} {json_of(reply)}")
        return "; ".join(faults)

    def _refused(self, row: Row, path: Path, reply: _Reply) -> Row:
        told = json_of(reply)
        problem = str(told.get("type", "")).removeprefix("urn:pix2dslr:problem:")
        row = replace(row, problem=problem)
        if reply.kind != MEDIA_TYPE or not told:
            return replace(row, outcome="error", wrong=True, detail=f"no problem: {reply.body[:200]!r}")
        faults = list(problem_faults(told, reply.status, _ALLOWED))
        if faults or reply.status >= 500:
            return replace(row, outcome="error", wrong=True, detail="; ".join(faults))
        looks = self._looks(path, {})
        said = "; ".join(f"{look.decoder}: {look.error or look.complaint or 'reads it'}" for look in looks)
        wrong = is_fault(problem, looks)
        return replace(row, outcome=refusal_class(looks), wrong=wrong, detail=f"{told['detail']} | {said}")

    def _answered(self, row: Row, path: Path, replies: dict[str, _Reply]) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for asked, reply in replies.items():
                format_ = reply.kind.removeprefix("image/")
                if asked and format_ != asked:
                    return replace(row, outcome="error", wrong=True, detail=f"{asked} was asked for, {format_} came")
                files[format_ if asked else f"own {format_}"] = Path(folder, f"{asked or 'own'}.{format_}")
                files[format_ if asked else f"own {format_}"].write_bytes(reply.body)
            looks = self._looks(path, files) if self.strength == 0 else []
            own = next(iter(files))
            faults = self._metadata(path, files[own], row.format == own.removeprefix("own "))
        found = {name: seen for name in files if (seen := agreed(looks, name)) is not None}
        exact = found.get("png") or found.get(own)
        faults = [f"{fault} ({name})" for name, seen in found.items() for fault in seen.faults] + faults
        if exact is not None:
            row = replace(row, mean=exact.mean, high=exact.high, largest=exact.largest)
        said = "; ".join(f"{look.decoder}: {look.error or look.complaint}" for look in looks if not look.reads)
        whole = any(look.reads and not look.error for look in looks)
        if faults and whole:
            kinds = "+".join(sorted({fault.partition(":")[0] for fault in faults}))
            detail = "; ".join(faults) + (f" | {said}" if said else "")
            return replace(row, outcome="different", wrong=True, kinds=kinds, detail=detail)
        outcome = "same" if whole and exact is not None else "unchecked"
        return replace(row, outcome=outcome, detail="; ".join(each for each in (*faults, said) if each))

    def _looks(self, path: Path, files: dict[str, Path]) -> list[Look]:
        return [self.child.look(decoder, path, files) for decoder in DECODERS]

    def _metadata(self, path: Path, answer: Path, strict: bool) -> list[str]:
        if not has_exiftool() or answer.suffix == ".bmp":
            return []
        before, after = self.child.tags(path.resolve(), answer)
        return metadata_faults(before, after, strict) if before and after else []


def json_of(reply: _Reply) -> dict[str, object]:
    """A problem's members, nothing where it is none."""
    try:
        told = json.loads(reply.body) if reply.kind == MEDIA_TYPE else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def format_of(data: bytes) -> str:
    """A file's format by its first bytes; `other` where it is none that the service takes."""
    if data[4:8] == b"ftyp":
        return "avif" if b"avi" in data[8:_HEAD] else "heic"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "other")
