"""The offline half of pix2dslr: train a pix2pix generator, or load one, and export it to ONNX."""

import service  # noqa: F401  sets ONNX Runtime's telemetry off before anything here imports it
