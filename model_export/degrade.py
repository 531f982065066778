"""Makes a good photo look as a cheap phone camera would have taken it. Pure.

The order is the camera's own: light reaches the sensor through a soft lens and a wrong exposure, each photosite sees
one colour and adds noise, and the phone interpolates the mosaic, renders it to sRGB and compresses it. Noise is thus
added to linear light, where its variance grows with the signal, and what demosaicing and JPEG make of it is in the
picture too.

Sources: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019 (the way back to linear light and
the noise); Wang et al., "Real-ESRGAN", ICCV workshops 2021 (blur and JPEG as random degradations).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """One shot of a cheap camera.

    Attributes:
        exposure: factor on the linear light; below 1 is underexposed.
        gains: factors on linear red, green and blue: the colour cast.
        blur: sigma of the lens's Gaussian, pixels.
        shot_noise, read_noise: variance of the noise in linear light is shot_noise * signal + read_noise.
        contrast: around mid-grey, in sRGB; below 1 is dull.
        jpeg_quality: 1..100.
    """

    exposure: float
    gains: tuple[float, float, float]
    blur: float
    shot_noise: float
    read_noise: float
    contrast: float
    jpeg_quality: int


def random_camera(rng: np.random.Generator) -> Camera:
    """Draw a camera: from nearly good to a bad phone of 2010 in the evening."""
    shot_noise = float(10 ** rng.uniform(-4.0, -2.3))
    return Camera(
        exposure=float(2 ** rng.uniform(-1.2, 0.3)),
        gains=(float(2 ** rng.uniform(-0.2, 0.2)), 1.0, float(2 ** rng.uniform(-0.2, 0.2))),
        blur=float(rng.uniform(0.4, 1.4)),
        shot_noise=shot_noise,
        # Brooks et al. fit log read noise = 2.18 log shot noise + 1.20 to real phones
        read_noise=float(np.exp(2.18 * np.log(shot_noise) + 1.20 + rng.normal(0, 0.26))),
        contrast=float(rng.uniform(0.75, 1.0)),
        jpeg_quality=int(rng.integers(70, 97)),
    )


def degrade(photo: Image, camera: Camera, rng: np.random.Generator) -> Image:
    """Take a photo of a photo.

    Args:
        photo: uint8 (H, W, 3), RGB, sRGB, at least 8x8.
        camera: what takes it.
        rng: where the noise comes from.

    Returns:
        uint8 (H, W, 3), aligned with `photo` to within half a pixel.

    Raises:
        ValueError: the photo is smaller than 8x8.
    """
    height, width = photo.shape[:2]
    if min(height, width) < 8:
        raise ValueError(f"a photo of {width}x{height} is too small for a mosaic")
    even = np.pad(photo, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    light = _to_linear(even) * np.float32(camera.exposure) * np.asarray(camera.gains, np.float32)
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), camera.blur), np.float32)
    mosaic = _mosaic(light)
    sigma = np.sqrt(camera.shot_noise * mosaic + camera.read_noise)
    mosaic = mosaic + rng.standard_normal(mosaic.shape, np.float32) * sigma.astype(np.float32)
    raw = np.rint(np.clip(mosaic, 0, 1) * 65535).astype(np.uint16)
    # OpenCV names a mosaic by its second row: red at (0, 0) is BG
    developed = _to_srgb(np.asarray(cv2.demosaicing(raw, cv2.COLOR_BayerBG2RGB), np.float32) / np.float32(65535))
    dull = np.clip((developed - 0.5) * camera.contrast + 0.5, 0, 1)
    pixels = np.rint(dull * 255).astype(np.uint8)[:height, :width]
    _, compressed = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality]
    )
    return np.asarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR_RGB), np.uint8)


def _to_linear(pixels: Image) -> npt.NDArray[np.float32]:
    x = np.arange(256) / 255  # IEC 61966-2-1
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[pixels]


def _to_srgb(light: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return curve.astype(np.float32)


def _mosaic(light: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Keep one colour of each pixel: RGGB."""
    mosaic = light[..., 1].copy()
    mosaic[::2, ::2] = light[::2, ::2, 0]
    mosaic[1::2, 1::2] = light[1::2, 1::2, 2]
    return mosaic
