import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.negotiation import accepted, entity_tag, is_known
from service.routes.enhance import accepted_format

CHROME_IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
CHROME_PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX_IMAGE = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"


@pytest.mark.parametrize(
    ("accept", "own", "format_"),
    [
        # nothing asked for
        ("", "jpeg", None),
        ("*/*", "jpeg", None),
        ("image/*;q=0.8", "jpeg", None),
        (CHROME_IMAGE, "jpeg", None),
        (CHROME_PAGE, "jpeg", None),
        (FIREFOX_IMAGE, "jpeg", None),
        (FIREFOX_IMAGE, "png", None),
        ("nonsense", "jpeg", None),
        ("nonsense, image/png", "jpeg", "png"),
        # by name
        ("image/png", "jpeg", "png"),
        ("IMAGE/PNG", "jpeg", "png"),
        ("image/avif, image/png", "jpeg", "png"),
        ("image/jpeg;q=0.2,image/png;level=1;q=0.3", "webp", "png"),
        ("image/png ; q=0.5 , image/webp ; q=0.9", "jpeg", "webp"),
        # a tie goes to what came
        ("image/jpeg,image/png", "jpeg", None),
        ("image/jpeg,image/png", "png", None),
        ("image/jpeg,image/png", "webp", "jpeg"),
        # the picture's own format is named, and less liked
        ("image/jpeg;q=0.2,image/png;q=0.3", "jpeg", "png"),
        ("image/jpeg;q=0.2, */*", "jpeg", "png"),
        # not acceptable
        ("image/png;q=0", "jpeg", None),
        ("image/jpeg;q=0, image/webp", "jpeg", "webp"),
        ("image/jpeg;q=0, */*", "jpeg", "png"),
        ("image/*;q=0, image/webp;q=0.1", "jpeg", "webp"),
        ("*/*;q=0", "jpeg", None),
        ("text/html", "jpeg", None),
        # weights that are none
        ("image/png;q=x", "jpeg", None),
        ("image/png;q=2", "jpeg", None),
        ("image/png;q=nan", "jpeg", None),
        ("image/png;q=-1", "jpeg", None),
        # a format that can be read and may not be written
        ("*/*", "heic", None),
        ("image/webp", "heic", "webp"),
        ("image/heic, image/jpeg;q=0.5", "heic", None),
    ],
)
def test_accept(accept: str, own: str, format_: str | None) -> None:
    assert accepted_format(accept, own) == format_


@given(st.text(max_size=60) | st.text(alphabet="image/*pngjwebx;q=0.15, ", max_size=60))
def test_any_header_gives_something_that_there_is(accept: str) -> None:
    assert accepted(accept, "image/jpeg", ["image/png"]) in ("image/jpeg", "image/png")


def test_json_unless_a_picture_is_asked_for() -> None:
    def chosen(accept: str) -> str:
        return accepted(accept, "application/json", ["image/png"])

    assert chosen("*/*") == chosen(CHROME_PAGE) == chosen("application/json") == "application/json"
    assert chosen("image/png") == chosen("image/*") == "image/png"
    assert chosen("application/json;q=0.5, image/png") == "image/png"


def test_a_tag_knows_every_part_and_where_it_ends() -> None:
    tags = {
        entity_tag(),
        entity_tag("ab"),
        entity_tag("a", "b"),
        entity_tag("", "ab"),
        entity_tag("ab", ""),
        entity_tag("b", "a"),
    }
    assert len(tags) == 6
    assert entity_tag("a", b"b") == entity_tag(b"a", "b")
    assert entity_tag("a").startswith('"')


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ('"b","c"', False),
        ("a", False),
        ("*", False),
    ],
)
def test_if_none_match(header: str, known: bool) -> None:
    assert is_known([header], '"a"') == known


def test_entries_beyond_a_hundred_do_not_count() -> None:
    assert accepted("image/png," + "a/b," * 98 + "image/webp;q=0.1", "image/jpeg", ["image/png"]) == "image/png"
    assert accepted("a/b," * 100 + "image/png", "image/jpeg", ["image/png"]) == "image/jpeg"
    assert accepted("image/png" + ";a=b" * 4000 + ";q=0", "image/jpeg", ["image/png"]) == "image/png"
