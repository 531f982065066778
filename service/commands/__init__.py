"""The `pix2dslr` command, a module a command, and what they share."""
