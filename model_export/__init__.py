"""The offline half of pix2dslr: train a pix2pix generator, or load one, and export it to ONNX."""
