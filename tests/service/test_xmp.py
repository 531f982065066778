"""XMP packets: what they say of what is gone is cut out, the rest stays as it is written, and all stays XML."""

import time
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.xmp import joined, split, upright_xmp

HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
)
TAIL = '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
TIFF, DC = "http://ns.adobe.com/tiff/1.0/", "http://purl.org/dc/elements/1.1/"
CAMERA, CONTAINER = "http://ns.google.com/photos/1.0/camera/", "http://ns.google.com/photos/1.0/container/"


def packet_of(attributes: str = "", content: str = "") -> bytes:
    kept = f'xmlns:dc="{DC}" dc:source="kept é"'
    return f'{HEAD}<rdf:Description rdf:about="" {kept} {attributes}>{content}</rdf:Description>{TAIL}'.encode()


def words(packet: bytes | None) -> str:
    """What a packet says, by an XML parser: names with their addresses, values and texts, but no declarations."""
    assert packet
    root = ET.fromstring(packet)  # noqa: S314  of its own making
    said = [each for node in root.iter() for each in (node.tag, node.text or "", *node.attrib, *node.attrib.values())]
    return " ".join(said)


GONE = {
    "an attribute": (f'xmlns:GCamera="{CAMERA}" GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion = \'gone\'', ""),
    "another prefix, over lines": (f'\n xmlns:q="{CAMERA}"\n q:MicroVideoOffset\n=\n"gone>1"', ""),
    "an element": ("", f'<c:MotionPhoto xmlns:c="{CAMERA}">gone</c:MotionPhoto>'),
    "without a prefix": ("", f'<MotionPhoto xmlns="{CAMERA}">gone</MotionPhoto>'),
    "an empty element": ("", f'<c:MotionPhoto xmlns:c="{CAMERA}" rdf:resource="gone/>"/><dc:format>kept</dc:format>'),
    "a directory": (
        f'xmlns:C="{CONTAINER}" xmlns:I="{CONTAINER}item/"',
        '<C:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item I:A="gone"/></rdf:li></rdf:Seq></C:Directory>',
    ),
    "nested in its own name": (
        f'xmlns:C="{CONTAINER}"',
        "<C:Item><C:Item>gone</C:Item><!-- </C:Item> -->gone</C:Item>",
    ),
    "depth": ('xmlns:D="http://ns.google.com/photos/1.0/depthmap/" D:Format="gone" D:Data="gone"', ""),
    "an image": ('xmlns:D="http://ns.google.com/photos/1.0/image/" D:Data="gone"', ""),
    "dynamic depth": (
        "",
        '<D:Cameras xmlns:D="http://ns.google.com/photos/dd/1.0/device/"><rdf:Seq><rdf:li>gone</rdf:li></rdf:Seq></D:Cameras>',
    ),
    "a gain map": ('xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="gone"', ""),
    "Apple's": ('xmlns:H="http://ns.apple.com/HDRGainMap/1.0/" H:HDRGainMapVersion="gone"', ""),
    "Apple's depth": (
        'xmlns:a="http://ns.apple.com/pixeldatainfo/1.0/" a:AuxiliaryImageType="gone"',
        '<d:Accuracy xmlns:d="http://ns.apple.com/depthData/1.0/">gone</d:Accuracy>',
    ),
    "another maker's": ('xmlns:o="http://ns.oplus.com/photos/1.0/camera/" o:MotionPhotoOwner="gone"', ""),
    "an extension": ('xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="gone"', ""),
    "thumbnails": (
        "",
        '<xmp:Thumbnails xmlns:xmp="http://ns.adobe.com/xap/1.0/"><rdf:Alt><rdf:li>gone</rdf:li></rdf:Alt></xmp:Thumbnails>',
    ),
}


class TestStale:
    @pytest.mark.parametrize("name", GONE)
    def test_goes(self, name: str) -> None:
        packet = packet_of(*GONE[name])
        said = words(upright_xmp(packet))
        assert "gone" not in said
        assert "MotionPhoto" not in said
        assert said.count("kept") == packet.count(b"kept")

    @pytest.mark.parametrize(
        "attributes",
        [
            f'xmlns:GCamera="{CAMERA}" GCamera:BurstID="5"',
            'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular"',
            'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"',
            'xmlns:GCamera="http://example.org/" GCamera:MotionPhoto="1"',
        ],
    )
    def test_what_describes_the_picture_itself_stays(self, attributes: str) -> None:
        packet = packet_of(attributes, "<dc:title>kept</dc:title>")
        assert upright_xmp(packet) == packet

    def test_a_prefix_counts_as_it_is_declared_there(self) -> None:
        content = f'<q:MotionPhoto xmlns:q="{CAMERA}">gone</q:MotionPhoto><q:MotionPhoto>kept</q:MotionPhoto>'
        assert "gone" not in words(upright_xmp(packet_of('xmlns:q="http://example.org/"', content)))
        assert words(upright_xmp(packet_of('xmlns:q="http://example.org/"', content))).count("kept") == 2

    def test_up_to_where_it_is_no_longer_xml(self) -> None:
        result = upright_xmp(packet_of(GONE["an attribute"][0], "<dc:title>&no"))
        assert result
        assert b"MotionPhoto" not in result
        assert b"<dc:title>&no</rdf:Description>" in result

    def test_a_document_type_is_left_alone(self) -> None:
        packet = b'<!DOCTYPE x [<!ENTITY a "<b/>">]>' + packet_of(*GONE["an attribute"])
        assert upright_xmp(packet) == packet

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from(sorted(GONE)), unique=True, max_size=6))
    def test_all_together_stay_xml(self, names: list[str]) -> None:
        content = "".join(GONE[name][1] for name in names if "xmlns" in GONE[name][1])
        attributes = " ".join(GONE[name][0].replace(f'xmlns:q="{CAMERA}"', "") for name in names[:1])
        packet = packet_of(attributes if "q:" not in attributes else "", content)
        assert "gone" not in words(upright_xmp(packet))


class TestOrientation:
    FORMS = (
        (f'xmlns:tiff="{TIFF}" tiff:Orientation="6"', ""),
        (f"xmlns:tiff='{TIFF}' tiff:Orientation = ' 6 '", ""),
        (f'xmlns:t="{TIFF}"', "<t:Orientation>6</t:Orientation>"),
        ("", f'<Orientation xmlns="{TIFF}">\n6\n</Orientation>'),
        (f'xmlns:t="{TIFF}"', "<t:Orientation><rdf:Bag><rdf:li>6</rdf:li></rdf:Bag></t:Orientation>"),
        ('xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:Orientation="6"', ""),
    )  # fmt: skip

    @pytest.mark.parametrize(("attributes", "content"), FORMS)
    def test_is_reset_where_the_picture_was_turned(self, attributes: str, content: str) -> None:
        packet = packet_of(attributes, content)
        assert upright_xmp(packet, turned=True) == packet_of(attributes.replace("6", "1"), content.replace("6", "1"))
        assert upright_xmp(packet, turned=False) == packet

    @pytest.mark.parametrize(
        "packet", [b'<a tiff:Orientation="6"', b"<tiff:Orientation>6</", b"tiff:Orientation = '6'"]
    )
    def test_also_where_readers_go_by_the_name_alone(self, packet: bytes) -> None:
        assert upright_xmp(packet, turned=True) == packet.replace(b"6", b"1")
        assert upright_xmp(packet, turned=False) == packet

    def test_of_another_namespace_stays(self) -> None:
        packet = packet_of('xmlns:t="http://example.org/" t:Orientation="6"')
        assert upright_xmp(packet) == packet


class TestLong:
    def test_is_split_and_joined(self) -> None:
        attributes = f'xmlns:e="http://example.org/" e:note="{"a" * 40_000}"'
        items = "".join(f"<rdf:li>{i} &amp; é</rdf:li>" for i in range(5000))
        packet = packet_of(attributes, f"<dc:title>kept</dc:title><e:list><rdf:Seq>{items}</rdf:Seq></e:list>")
        short, extension = split(packet, 65_502)
        assert short
        assert extension
        assert len(short) <= 65_502
        assert "kept" in words(short)
        assert f"{4999} & é" in words(extension)
        again = upright_xmp(joined(short, extension))
        for each in ("kept é", "a" * 40_000, "4999 & é", "kept"):
            assert each in words(again)
        assert "HasExtendedXMP" not in words(again)

    def test_padding_goes_first(self) -> None:
        packet = packet_of().replace(b"<?xpacket end", b" " * 80_000 + b"<?xpacket end")
        assert split(packet, 65_502) == (packet.replace(b" " * 80_000, b"\n"), None)

    def test_one_that_is_broken_is_left_out(self) -> None:
        assert split(b"no packet" * 10_000, 65_502) == (None, None)

    @pytest.mark.parametrize(
        "unit",
        [b"<a>", b"<a/>", b"</a>", b"<a ", b"<a b='", b'<a xmlns:b="c">', b"<tiff:Orientation>", b"<!-- ", b"&amp;",
         b"<?", b"<rdf:RDF>", b"</rdf:RDF>", b"rdf:about ", b"<![CDATA[", b"tiff:Orientation "],
    )  # fmt: skip
    def test_in_linear_time(self, unit: bytes) -> None:
        start = time.process_time()
        for packet in (unit * (8_000_000 // len(unit)), packet_of(content=(unit * 100_000).decode())):
            upright = upright_xmp(packet)
            split(upright or b"", 65_502)
            joined(packet, packet)
        # a quadratic pass would take hours
        assert time.process_time() - start < 20

    def test_many_attributes_in_linear_time(self) -> None:
        many = " ".join(f'h:a{i}="x"' for i in range(200_000))
        start = time.process_time()
        result = upright_xmp(packet_of(f'xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" {many}'))
        assert time.process_time() - start < 10
        assert "a199999" not in words(result)
