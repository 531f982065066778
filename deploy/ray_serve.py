"""pix2dslr on Ray Serve: `serve run deploy.ray_serve:app`; see docs/bulk.md."""
