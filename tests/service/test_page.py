"""The page's files: what they may load, and that they are in the wheel."""

import re
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from service.routes.page import PAGE

PROJECT = Path(__file__).parents[2]
HTML = (PAGE / "index.html").read_text()


def test_every_file_is_in_the_wheel() -> None:
    built = {file.distribution_path for file in WheelBuilder(str(PROJECT)).recurse_included_files()}
    ours = {f"service/page/{path.name}" for path in PAGE.iterdir()}
    assert "service/page/index.html" in ours
    assert ours <= built


def test_addresses_are_relative_and_ours() -> None:
    addresses = re.findall(r'(?:src|href)="([^"]*)"', HTML)
    assert addresses
    for address in addresses:
        assert re.match(r"(page/|docs$|#)", address), address
        if address.startswith("page/"):
            assert (PAGE.parent / address).is_file()
    for script in PAGE.glob("*.js"):
        for module in re.findall(r'^import .* from "([^"]*)"', script.read_text(), re.MULTILINE):
            assert (PAGE / module).is_file()
        assert "://" not in script.read_text()


def test_nothing_is_inline() -> None:
    assert not re.search(r"<style|\son\w+=|\sstyle=|javascript:", HTML)
    assert not re.search(r"<script(?![^>]*\ssrc=)", HTML)


def test_every_element_that_scripts_ask_for_is_there() -> None:
    identities = re.findall(r'\bid="([^"]*)"', HTML)
    assert len(identities) == len(set(identities))
    asked = set(re.findall(r'\$\("([\w-]+)"\)', "".join(path.read_text() for path in PAGE.glob("*.js"))))
    assert asked <= set(identities)
