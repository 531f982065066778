"""Enhance a file by a running service: python examples/enhance.py photo.jpg enhanced.jpg --server http://localhost:8000.

Needs examples/client on PYTHONPATH, httpx and pydantic; nothing else of this repository.
"""

import argparse
import sys
from pathlib import Path

from pix2dslr_client import Client, EnhanceOptions, Problem


def main() -> int:
    """Return the exit code: 0, or 1 where the service refused."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--server", default="http://localhost:8000")
    parser.add_argument("--strength", type=float, default=1.0)
    arguments = parser.parse_args()
    with Client(arguments.server) as client:
        try:
            done = client.enhance(arguments.source.read_bytes(), EnhanceOptions(strength=arguments.strength))
        except Problem as problem:
            print(problem, file=sys.stderr)
            return 1
    arguments.target.write_bytes(done.data)
    print(f"{arguments.target}: {done.tiles} tiles by {done.camera} on {done.device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
