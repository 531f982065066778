"""Colour profiles that no writer's should be like, and that files have all the same."""

import io

import numpy as np
import pytest
from PIL import ImageCms

from service.colour import space_of
from tests import profiles


def test_tables_that_are_read_and_can_not_be_written_again() -> None:
    # found by tests/fuzz: Pillow writes the profile anew whenever it converts to it, which failed only then
    profile = bytearray(profiles.scanner(one_way=False))
    profile[8] = 4  # the version
    profile[profile.rindex(b"mft2") + 31] = 255  # a matrix, which is for XYZ alone
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    ImageCms.buildTransform(ImageCms.createProfile("sRGB"), opened, "RGB", "RGB")
    with pytest.raises(OSError, match="profile size"):
        opened.tobytes()
    space = space_of(bytes(profile))
    assert space is not None
    assert space.reversible
    assert np.isfinite(space.from_srgb(np.zeros((4, 5, 3), np.float32))).all()
