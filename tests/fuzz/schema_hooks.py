"""What schemathesis is to know of the service: bodies that are pictures, and pictures that are nearly so.

Loaded by SCHEMATHESIS_HOOKS; see tests/fuzz/schema.py.
"""

import random

import schemathesis
from hypothesis import strategies as st

from service.codec import FORMATS, media_type
from tests.fuzz import seeds, zips
from tests.fuzz.mutations import mutated


def _files(valid: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Valid files, and changed ones."""
    changed = st.builds(
        lambda data, number: mutated(data, valid, random.Random(number)), st.sampled_from(valid), st.integers(0, 2**32)
    )
    return st.one_of(st.sampled_from(valid), changed)


_PICTURES = {name: _files(seeds.pictures(name)) for name in FORMATS if seeds.pictures(name)}
_ANY = st.one_of(*_PICTURES.values())

# files of a form
schemathesis.openapi.format("binary", st.one_of(_ANY, _ANY, _files(zips.all_zips()), st.binary(max_size=64)))
# raw bodies
for _name, _strategy in _PICTURES.items():
    schemathesis.openapi.media_type(media_type(_name), _strategy)
schemathesis.openapi.media_type("image/*", _ANY)
schemathesis.openapi.media_type("application/zip", _files(zips.all_zips()))
schemathesis.openapi.media_type("application/octet-stream", st.one_of(_ANY, _files(zips.all_zips())))
