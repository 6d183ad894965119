"""The weight patcher: LoRAs and their relatives, Fooocus' inpaint patch, merged into the weights and taken out exactly."""

from engine.models.patches.files import FileReport
from engine.models.patches.keys import Compat
from engine.models.patches.patcher import CACHE_BYTES, Patch, Report, WeightPatcher

__all__ = ["CACHE_BYTES", "Compat", "FileReport", "Patch", "Report", "WeightPatcher"]
