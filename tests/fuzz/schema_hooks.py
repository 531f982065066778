"""What schemathesis is to know of the service: bodies that are pictures, and pictures that are nearly so.

Loaded by SCHEMATHESIS_HOOKS; see tests/fuzz/schema.py.
"""

import random
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import negative_data_rejection

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

# other spellings of true and false, which pydantic takes and a form's checkbox may send
_SPELLINGS = {"0", "1", "0.0", "1.0", "on", "off", "t", "f", "y", "n", "yes", "no", "true", "false"}


@schemathesis.check
def invalid_is_refused(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Schemathesis's negative_data_rejection, but for what breaks the schema and is taken on purpose."""
    if isinstance(case.body, dict) and str(case.body.get("align")).lower() in _SPELLINGS:
        return
    negative_data_rejection(ctx, response, case)
