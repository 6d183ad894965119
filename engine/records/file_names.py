"""How a picture's file is called.

Source: golden/metadata, ``filename``.
"""

import random
import time


def file_name(now: time.struct_time, rng: random.Random, ending: str) -> str:
    """Name a picture as Fooocus does: ``2026-11-21/2026-11-21_02-26-30_4898.png``, a folder a day.

    Args:
        now: Local time.
        rng: Draws the number from 1000 to 9999; a name that is taken calls for another draw.
        ending: Of the file, without the dot: ``png``, ``jpeg`` or ``webp``.
    """
    day, second = time.strftime("%Y-%m-%d", now), time.strftime("%Y-%m-%d_%H-%M-%S", now)
    return f"{day}/{second}_{rng.randint(1000, 9999)}.{ending}"
