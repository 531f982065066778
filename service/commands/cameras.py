"""`pix2dslr cameras`: which generators there are."""

from typing import Annotated, Final

import typer
from rich.table import Table

from service.catalogue import Catalogue
from service.commands.common import console_for_tables, examples, fail, read_settings
from service.generator import DeviceUnavailable
from service.model_files import ModelUnusable
from service.schemas import Camera, Cameras

EXAMPLES: Final = examples(
    ("pix2dslr cameras", "a table"),
    ("pix2dslr cameras --json", "for a program, as GET /cameras answers"),
)


def cameras(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the generators: whose photos they are for, how good they are, what they were trained on."""
    settings = read_settings()
    try:
        catalogue = Catalogue(settings.models, settings.camera, settings.device, 1, verified=settings.verify_models)
    except (ModelUnusable, DeviceUnavailable) as error:
        fail(str(error))
    answer = Cameras(cameras=[Camera.of(catalogue, name) for name in catalogue.cameras])
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
        return
    table = Table("camera", "architecture", box=None, header_style="bold", pad_edge=False)
    for heading in ("PSNR dB", "SSIM", "overlap", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("device")
    table.add_column("trained on", overflow="fold")
    for camera in answer.cameras:
        table.add_row(
            camera.name + (" (default)" if camera.default else ""),
            camera.architecture,
            "" if camera.psnr is None else f"{camera.psnr:.2f}",
            "" if camera.ssim is None else f"{camera.ssim:.4f}",
            str(camera.overlap),
            f"{camera.bytes / 1e6:.1f}",
            camera.device,
            camera.trained_on,
        )
    console_for_tables().print(table)
