"""Whether an ONNX file keeps tensors elsewhere, from its bytes: protobuf's wire format, read without the onnx package.

ONNX Runtime would open whatever file such a tensor names. Field numbers are those of onnx.proto3 (ONNX 1.19, IR 11).
"""

from collections.abc import Iterator, Mapping
from typing import Final

_TENSOR: Final = "tensor"
_PARTS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    "training": {1: "graph", 2: "graph"},
}
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Garbled(Exception):
    """The bytes are no protobuf message."""


def has_external_tensors(data: bytes) -> bool:
    """Whether a model has a tensor whose values lie in another file, or anywhere but in the model.

    Args:
        data: an ONNX file.

    Raises:
        Garbled: it is no protobuf message.
    """
    todo = [("model", memoryview(data))]
    while todo:
        kind, message = todo.pop()
        for number, value in _fields(message):
            if kind == _TENSOR:
                # any entry, and any location but 0, which is the default and may be written out
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                    return True
            elif number in _PARTS[kind] and not isinstance(value, int):
                todo.append((_PARTS[kind][number], value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:  # groups, which ONNX never had
            raise Garbled
        if at + length > len(message):
            raise Garbled
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Garbled
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Garbled
