"""API keys: what a line may be, and what becomes of a file that changes."""

import hashlib
import logging
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from service import app
from service.edge.house import House
from service.keys import BrokenKeys, KeyRing, find_key, parse_keys
from service.settings import Settings

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def test_a_key_or_its_digest() -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    keys = parse_keys(f"# comment\n\n  ann:{KEY} \nbob:sha256:{digest.upper()}\n")
    found = find_key(keys, KEY)
    assert found is not None
    assert found.name == "ann"
    assert KEY not in repr(keys)
    other = find_key(keys, OTHER)
    assert other is not None
    assert other.name == "bob"
    for wrong in ("", digest, f"sha256:{digest}", KEY + " ", KEY.upper(), "\ud800"):
        assert find_key(keys, wrong) is None


def test_a_name_may_have_several() -> None:
    assert [key.name for key in parse_keys(f"ann:{KEY}\nann:{OTHER}")] == ["ann", "ann"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("# none", "no key"),
        (f"{KEY}", "line 1 has no"),
        (f":{KEY}", "line 1 has no name"),
        (f"a b:{KEY}", "line 1 has no name"),
        ("\nann:short", "line 2 has no key"),
        (f"ann:{KEY} {OTHER}", "line 1 has no key"),
        ("ann:sha256:0123", "line 1 has no key"),
        (f"ann:{KEY}\nbob:{KEY}", "line 2 has a key that another line has"),
    ],
)
def test_what_is_no_key_is_told_by_its_line_alone(text: str, words: str) -> None:
    with pytest.raises(BrokenKeys, match=words) as caught:
        parse_keys(text)
    assert KEY not in str(caught.value)


def test_none_are_needed_until_there_are_some() -> None:
    assert not KeyRing().needed
    assert KeyRing(parse_keys(f"ann:{KEY}")).needed


def test_a_file_that_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    with pytest.raises(BrokenKeys):
        KeyRing((), file)
    file.write_text(f"ann:{KEY}")
    ring = KeyRing((), file)
    ann = ring.find(KEY)
    assert ann is not None
    with caplog.at_level(logging.INFO):
        ring.look_again()
        assert not caplog.records, "nothing changed"
        file.write_text(f"ann:{OTHER}")  # as long, and perhaps in the same tick of the clock
        ring.look_again()
        assert ring.find(KEY) is None
        assert not ring.holds(ann)
        assert ring.find(OTHER) is not None
        for broken in ("", "nonsense", "x" * (2 << 20)):
            file.write_text(broken)
            ring.look_again()
            ring.look_again()
            assert ring.find(OTHER) is not None
        file.unlink()
        ring.look_again()
        ring.look_again()
        assert ring.needed
        assert ring.find(OTHER) is not None
        file.write_text(f"ann:{KEY}")
        ring.look_again()
        assert ring.find(KEY) is not None
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) <= 4, "each once"
    assert KEY not in caplog.text
    assert OTHER not in caplog.text


def test_a_changed_file_is_read_while_all_threads_are_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_KEYS_LOOK_EVERY_S", 0.01)
    file = tmp_path / "keys"
    file.write_text(f"ann:{KEY}\n")
    house = House.of(Settings(api_keys_file=file))

    async def change() -> None:
        threads = anyio.to_thread.current_default_thread_limiter()
        for number in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(number)
        async with anyio.create_task_group() as group:
            group.start_soon(app._watch_keys, house)
            file.write_text(f"bob:{OTHER}\n")
            with anyio.fail_after(10):
                while house.keys.find(OTHER) is None:  # noqa: ASYNC110  nobody tells
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(change)
