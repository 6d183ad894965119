"""Lets Python programs that were written for fal.ai talk to a studio on this machine instead.

A program runs unchanged:

    FAL_LOCAL_URL=http://127.0.0.1:7860 python local_fal.py program.py

or takes in one line: ``import local_fal; local_fal.point_to("http://127.0.0.1:7860")``. Stands alone: copy it anywhere.
"""

import os
import runpy
import sys
from pathlib import Path

DEFAULT = "http://127.0.0.1:7860"
USAGE = "expected: python local_fal.py program.py [argument ...]\n"


def point_to(studio: str = DEFAULT) -> None:
    """Send everything that ``fal_client`` asks from now on to a studio.

    The client insists on a key; where none is set, one is that an open studio takes.

    Args:
        studio: Address of the studio, ``http://`` or ``https://``.
    """
    import fal_client.client as client

    base = studio.rstrip("/")
    client.RUN_URL_FORMAT = f"{base}/"
    client.QUEUE_URL_FORMAT = f"{base}/queue/"
    client.REST_URL = f"{base}/rest"
    client.CDN_URL = f"{base}/cdn"
    os.environ.setdefault("FAL_KEY", "local:studio")


def main() -> None:
    """Run the program that is named, with its own arguments."""
    if len(sys.argv) < 2:
        sys.exit(USAGE)
    point_to(os.environ.get("FAL_LOCAL_URL", DEFAULT))
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(program).resolve().parent)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
