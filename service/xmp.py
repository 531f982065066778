"""XMP: an XML packet (ISO 16684-1), of which parts are cut out and the rest stays as it is written."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final
from xml.parsers import expat

from service.copies import pieces_of

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_ORIENTED: Final = ("http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/")
_BY_NAME: Final = re.compile(rb"""(tiff:Orientation(?:\s*+=\s*+["']|\s*+>)\s*+)[1-8]""")
"""An orientation as readers find it that look for the usual name alone, also in what is no XML."""
_LARGEST: Final = 1 << 24
"""Bytes of a packet that is kept."""
_MOST_ELEMENTS: Final = 100_000
"""Of a packet; as many take a quarter of a second, and what comes behind them is left as it is."""
_MOST_ATTRIBUTES: Final = 250_000
"""Of a packet that is looked at: all those of an element are read before anything can stop it."""
_LONGEST_ADDRESS: Final = 256
"""Characters of a namespace's address that is compared with those that are known: each element is."""
_STALE: Final = re.compile(
    r"""
    http://ns\.adobe\.com/hdr-gain-map/1\.0/.*
    | http://ns\.adobe\.com/xap/1\.0/[ ]Thumbnails
    | http://ns\.adobe\.com/xmp/note/[ ]HasExtendedXMP
    | http://ns\.google\.com/photos/1\.0/(?:container|depthmap|image|audio)/.*
    | http://ns\.google\.com/photos/dd/1\.0/.*
    | http://ns\.\w+\.com/photos/1\.0/camera/[ ]
      (?:V?MotionPhoto|MicroVideo|OLivePhoto|LivePhoto|Video|Depth|Portrait|XMPMeta).*
    | http://ns\.apple\.com/(?:HDRGainMap|pixeldatainfo|depthData|(?:portraitEffects|semanticSegmentation)Matte)/.*
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""An address and a name that speak of another picture, a film or a packet in the file, which no longer is there."""
_TAG: Final = re.compile(rb"<(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>")
_ATTRIBUTE: Final = re.compile(rb"(?<!\s)\s++([^\s=<>\"']++)\s*+=\s*+(\"[^\"]*+\"|'[^']*+')")
_ABOUT: Final = re.compile(rb"rdf:about\s*+=\s*+(?:\"[^\"<]{0,200}\"|'[^'<]{0,200}')")
_NOTE_LENGTH: Final = 400
"""Bytes that a packet needs at most to name its extension."""

Wanted = Callable[[str, str, bool], bool]
"""Whether an element or attribute is looked for: its namespace's address, its name, whether it is a property."""


class _Stop(Exception):
    """There is more than any writer makes, or a document type, whose entities would shift places."""


class _Search:
    """Where parts of a packet lie, up to where it is no longer XML.

    Attributes:
        found: start and end of the elements and attributes that are wanted.
        orientations: places of the digit that an orientation is.
        addresses: of each prefix, None where it stands for several.
    """

    def __init__(self, packet: bytes, wanted: Wanted) -> None:
        self.found: list[tuple[int, int]] = []
        self.orientations: list[int] = []
        self.addresses: dict[str, str | None] = {}
        self._wanted = wanted
        self._start = max(packet.find(b"<"), 0)  # a byte order mark may come before
        self._packet = packet
        self._addresses: dict[str, list[str]] = {}  # of a prefix, the innermost last
        self._declared: list[Sequence[str]] = []  # prefixes, by open element
        self._description = 0  # depth of the one that is open, whose children are properties
        self._cut: tuple[int, int, int] | None = None  # depth, start, end of the tag
        self._oriented = 0  # depth of an orientation's element
        self._elements = 0
        # the packet's bytes are its characters: all of UTF-8 beyond ASCII lies in values, which stay as they are
        self._parser = expat.ParserCreate("iso-8859-1")
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._doctype
        try:
            if packet.count(b"=") <= _MOST_ATTRIBUTES:
                for piece in pieces_of(memoryview(packet)[self._start :]):  # other threads may run between two
                    self._parser.Parse(piece)
                self._parser.Parse(b"", True)
        except (expat.ExpatError, _Stop):
            pass

    def _count(self) -> None:
        self._elements += 1
        if self._elements > _MOST_ELEMENTS:
            raise _Stop

    def _place(self) -> int:
        return self._start + self._parser.CurrentByteIndex

    def _name(self, name: str, *, attribute: bool = False) -> tuple[str, str]:
        """A name's namespace and the name in it."""
        prefix, colon, local = name.rpartition(":")
        addresses = self._addresses.get(prefix)
        return addresses[-1] if addresses and (colon or not attribute) else "", local

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._count()
        declared = [key for key in attributes if key.startswith("xmlns")] if attributes else ()
        self._declared.append(declared)
        for key in declared:
            prefix, address = key[6:], attributes[key]
            self._addresses.setdefault(prefix, []).append(address if len(address) <= _LONGEST_ADDRESS else "")
            if self.addresses.setdefault(prefix, address) != address:
                self.addresses[prefix] = None
        if self._cut:
            return
        depth, place = len(self._declared), self._place()
        namespace, local = self._name(name)
        is_property = self._description == depth - 1 > 0
        if namespace and self._wanted(namespace, local, is_property) and (tag := _TAG.match(self._packet, place)):
            self._cut = depth, place, tag.end()
            return
        if local == "Description" and namespace == _RDF and not self._description:
            self._description = depth
        if local == "Orientation" and namespace in _ORIENTED:
            self._oriented = self._oriented or depth
            self._parser.CharacterDataHandler = self._text  # a line of text is a call, and a packet may have millions
        if len(attributes) > len(declared):
            self._look_at(attributes, place, is_properties=self._description == depth)

    def _look_at(self, attributes: dict[str, str], place: int, *, is_properties: bool) -> None:
        """Look for attributes of the element that begins there."""
        names = {key.encode("iso-8859-1"): self._name(key, attribute=True) for key in attributes if ":" in key}
        wanted = {key for key, name in names.items() if name[0] and self._wanted(*name, is_properties)}
        turns = {key for key, (address, local) in names.items() if local == "Orientation" and address in _ORIENTED}
        tag = _TAG.match(self._packet, place) if wanted or turns else None
        if tag is None:
            return
        for each in _ATTRIBUTE.finditer(self._packet, place, tag.end()):
            if each[1] in wanted:
                self.found.append(each.span())
            elif each[1] in turns:
                self._add_orientation(each.start(2) + 1, each[2][1:-1])

    def _add_orientation(self, place: int, value: bytes) -> None:
        digit = value.strip()
        if len(digit) == 1 and digit in b"12345678":
            self.orientations.append(place + value.index(digit))

    def _text(self, text: str) -> None:
        self._count()
        if not self._cut:
            self._add_orientation(self._place(), text.encode("iso-8859-1"))

    def _end(self, _: str) -> None:
        depth = len(self._declared)
        if self._cut and self._cut[0] == depth:
            start, end = self._cut[1:]
            if self._packet[end - 2 : end] != b"/>":
                end = self._packet.index(b">", self._place()) + 1
            self.found.append((start, end))
            self._cut = None
        if self._description == depth:
            self._description = 0
        if self._oriented == depth:
            self._oriented = 0
            self._parser.CharacterDataHandler = None
        for key in self._declared.pop():
            self._addresses[key[6:]].pop()

    def _doctype(self, *_: object) -> None:
        raise _Stop


def upright_xmp(xmp: bytes | None, *, turned: bool = True) -> bytes | None:
    """Take out of a packet what describes pictures and films that are not written again.

    Args:
        xmp: the packet.
        turned: whether the picture was turned upright, which resets the orientation that the packet names. By that of
            the packet alone none is turned, since browsers and libvips don't.
    """
    if not xmp or len(xmp) > _LARGEST:
        return None
    packet = xmp.rstrip(b"\0")
    search = _Search(packet, lambda address, local, _: _STALE.fullmatch(f"{address} {local}") is not None)
    if turned:
        changed = bytearray(packet)
        for place in search.orientations:
            changed[place : place + 1] = b"1"
        packet = _BY_NAME.sub(rb"\g<1>1", changed)
    return _without(packet, search.found)


def joined(packet: bytes, extension: bytes) -> bytes:
    """Put what an extension describes into its packet, as it is where the extension is written in another way."""
    start = extension.find(b">", extension.find(b"<rdf:RDF")) + 1
    end, place = extension.rfind(b"</rdf:RDF"), packet.rfind(b"</rdf:RDF")
    if not 0 < start < end or place < 0 or extension.count(b"xmlns:", 0, start) > 2:
        return packet
    if len(packet) + len(extension) > _LARGEST:
        return packet
    return packet[:place] + extension[start:end] + packet[place:]


def split(packet: bytes, most: int) -> tuple[bytes | None, bytes | None]:
    """Return a packet in at most `most` bytes, and an extension of it with the largest properties where it is longer.

    They go where they can't be moved, since the packet is broken or calls two namespaces the same; None is a packet
    that is longer even so.
    """
    if len(packet) > most and (end := packet.rfind(b"<?xpacket end")) >= 0:  # there may be padding before
        packet = packet[:end].rstrip() + b"\n" + packet[end:]
    if len(packet) <= most:
        return packet, None
    search = _Search(packet, lambda address, _, is_property: is_property and address != _RDF)
    excess, moved = len(packet) + _NOTE_LENGTH - most, list[tuple[int, int]]()
    for start, end in sorted(search.found, key=lambda each: each[0] - each[1]):
        if excess <= 0:
            break
        moved.append((start, end))
        excess -= end - start
    if excess > 0:
        return None, None
    moved.sort()
    rest, about = _without(packet, moved), _ABOUT.search(packet)
    place = rest.rfind(b"</rdf:RDF")
    if place < 0 or None in search.addresses.values() or search.addresses.get("rdf") != _RDF:
        return rest, None
    parts = [packet[start:end] for start, end in moved]
    declared = b"".join(
        b' xmlns:%s="%s"' % (prefix.encode("iso-8859-1"), (address or "").encode("iso-8859-1"))
        for prefix, address in search.addresses.items()
        if prefix not in ("", "rdf") and '"' not in (address or "")
    )
    description = b"<rdf:Description " + (about[0] if about else b'rdf:about=""')
    extension = b"".join(
        (
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s">' % _RDF.encode(),
            description + declared,
            *(part for part in parts if not part.startswith(b"<")),
            b">",
            *(part for part in parts if part.startswith(b"<")),
            b"</rdf:Description></rdf:RDF></x:xmpmeta>",
        )
    )
    note = description + b' xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>' % guid(
        extension
    )
    return rest[:place] + note + rest[place:], extension


def guid(extension: bytes) -> bytes:
    """Return what a packet calls its extension."""
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()


def _without(packet: bytes, parts: list[tuple[int, int]]) -> bytes:
    ends = [0, *(end for _, end in parts)]
    starts = [*(start for start, _ in parts), len(packet)]
    return b"".join(packet[end:start] for end, start in zip(ends, starts, strict=True))
