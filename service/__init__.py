"""The online half of pix2dslr: an HTTP service that enhances photos tile by tile."""
