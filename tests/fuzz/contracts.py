"""What is said in a few words: a model's contract, an Accept header, a decode worker's answer."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service import negotiation, problems, spec
from service.decoding import messages
from service.metadata import Metadata, Resolution, Text
from service.picture import Header, PictureTooLarge
from tests.fuzz.mutations import mutated
from tests.fuzz.target import Target, expect


@dataclass
class _Node:
    name: str
    type: str
    shape: Sequence[int | str | None]


_SPEC: Final[dict[str, Any]] = {
    "inputs": [["tiles", "tensor(uint8)", ["N", 128, 128, 3]], ["context", "tensor(uint8)", ["N", 32, 32, 3]]],
    "outputs": [["enhanced", "tensor(float)", ["N", 128, 128, 3]]],
    "metadata": {
        "pix2dslr.version": "1", "camera": "iphone", "architecture": "unet", "tile": "128", "overlap": "32",
        "trained_on": "x", "psnr": "22.5", "ssim": "0.8", "created": "2026-01-01", "weights_sha256": "0" * 64,
    },
}  # fmt: skip
_ODD: Final = (
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "64",
    "65",
    "٣٢",
    "²",
    "9" * 5000,
    "0x20",
    " 32",
    "\0",
    "tiles",
    None,
    -1,
    0,
    128,
    2**70,
)


def _make_spec(chance: random.Random) -> bytes:
    told: dict[str, Any] = json.loads(json.dumps(_SPEC))
    for _ in range(chance.choice((1, 1, 2, 3))):
        odd = chance.choice(_ODD)
        way = chance.randrange(5)
        if way < 3:
            key = chance.choice(list(told["metadata"]) or ["camera"])
            if chance.random() < 0.2:
                del told["metadata"][key]
            else:
                told["metadata"][key] = str(odd)
        else:
            nodes = told[chance.choice(("inputs", "outputs"))]
            node: list[Any] = chance.choice(nodes) if nodes else ["x", "y", []]
            place = chance.randrange(4)
            if place < 2:
                node[place] = str(odd)
            elif place == 2 and node[2]:
                node[2][chance.randrange(len(node[2]))] = odd
            else:
                nodes.append(list(node)) if chance.random() < 0.5 or not nodes else nodes.remove(node)
    return json.dumps(told).encode()


def _spec(data: bytes) -> str:
    told = json.loads(data)
    inputs, outputs = ([_Node(*node) for node in told[name]] for name in ("inputs", "outputs"))
    try:
        found = spec.read_spec(inputs, outputs, told["metadata"])
    except spec.ContractBroken as error:
        return error.clause
    expect(0 <= found.overlap <= spec.TILE // 2, "an overlap beyond half a tile")
    # what it says is answered by GET /cameras, and JSON has no NaN
    json.dumps([found.psnr, found.ssim], allow_nan=False)
    again = found.metadata()
    expect(again["camera"] == told["metadata"]["camera"], "another camera")
    return "read"


_WORDS: Final = (
    "image/png", "image/*", "*/*", "image/jpeg", "*", "/", "image/", ";", ",", "q=", "q=0", "q=1.0", "q=nan", "q=1e999",
    "q=-0", "q=0.5;q=0.7", " ", "\t", '"', "W/", '"x"', "\xff", "image/webp;q=0.9", "text/html", "=", "image/png/x",
)  # fmt: skip


def _make_header(chance: random.Random) -> bytes:
    words = [chance.choice(_WORDS) for _ in range(chance.choice((1, 2, 5, 12, 2000)))]
    return chance.choice((", ", ";", "", ",")).join(words).encode("latin-1")


def _header(data: bytes) -> str:
    text = data.decode("latin-1")
    others = ["image/png", "image/webp", "application/zip"]
    chosen = negotiation.accepted(text, "image/jpeg", others)
    expect(chosen in ("image/jpeg", *others), f"{chosen} was never offered")
    tag = negotiation.entity_tag(data, text)
    expect(not negotiation.is_known([text], tag), "known without being named")
    expect(negotiation.is_known([text + "," + tag], tag), "not known though named")
    return chosen


_ANSWERS: Final = (
    messages.Answer(),
    messages.Answer(header=Header("png", 3, 4, 6, Metadata(b"MM", b"<x>", b"\x1c"), b"profile", 7, True)),
    messages.Answer(header=Header("jpeg", 3, 4, sampling="4:2:0", frames=3, inks=True)),
    messages.Answer(header=Header("jpeg", 3, 4, metadata=Metadata(resolution=Resolution(11_811, 5906.5)))),
    messages.Answer(header=Header("png", 3, 4, metadata=Metadata(texts=(Text(b"Title", b"\xc4", b"de\0", True),)))),
    messages.Answer(decoded=messages.Decoded(bits=16, alpha=True, converted=False)),
    messages.Answer(failure=messages.failure_of(PictureTooLarge(5, 4))),
    messages.Answer(failure=messages.failure_of(MemoryError())),
)


def _make_answer(chance: random.Random) -> bytes:
    told = json.loads(messages.packed(chance.choice(_ANSWERS))[0])
    for _ in range(chance.choice((0, 1, 2))):
        inner = told
        while chance.random() < 0.7 and (deeper := [value for value in inner.values() if isinstance(value, dict)]):
            inner = chance.choice(deeper)
        inner[chance.choice([*inner, "kind"])] = chance.choice((*_ODD, [], {}, True, 1e999, 2**64, "PictureTooLarge"))
    data = json.dumps(told).encode()
    return mutated(data, (), chance) if chance.random() < 0.3 else data


def _answer(data: bytes) -> str:
    """A worker that a hostile file has taken over says what it likes."""
    try:
        answer = messages.parsed(messages.Answer, data, lambda length: bytes(min(length, 1000)))
        if answer.failure is not None:
            error = messages.exception_of(answer.failure)
            if isinstance(error, MemoryError):  # DecodingTooCostly, as the pool tells it
                return "MemoryError"
            problem = problems.details(error)
            expect(problem["status"] < 500, f"{problem}")
    except messages.Disconnected:
        return "Disconnected"
    return "read"


TARGETS: Final = {
    "spec": Target(_make_spec, _spec),
    "header": Target(_make_header, _header),
    "answer": Target(_make_answer, _answer),
}
