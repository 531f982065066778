"""`python -m model_export` is `pix2dslr-export`."""

from model_export.cli import app

app()
