"""What other programs call the samplers and schedules.

Knows names only; `engine.sampling` has the methods. Source: golden/metadata, reference of Fooocus 2.5.5.
"""

from collections.abc import Mapping

DISPLAY: Mapping[str, str] = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "lcm": "LCM",
    "tcd": "TCD",
    "restart": "Restart",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
}
"""Sampler to its name in A1111's texts; the others are written by their own name."""
_MORE = {
    "DPM++ 3M SDE": "dpmpp_3m_sde_gpu",
    "DDPM": "ddpm",
    "DPM++ 2M SDE Heun": "dpmpp_2m_sde_gpu",
}
_SUFFIXES = {" Karras": "karras", " Exponential": "exponential"}
_WITH_KARRAS = {
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
}
"""Samplers that A1111 lists with the suffix."""
SCHEDULES: Mapping[str, str] = {
    "karras": "karras",
    "exponential": "exponential",
    "sgm uniform": "sgm_uniform",
    "simple": "simple",
    "ddim": "ddim_uniform",
    "turbo": "turbo",
    "align your steps": "align_your_steps",
    "normal": "normal",
    "uniform": "normal",
}
"""A1111's names of schedules, in lower case."""


def display_name(sampler: str, scheduler: str, *, every_karras: bool) -> str:
    """Name a sampler as A1111 shows it.

    Args:
        sampler: Our name, which is Fooocus'.
        scheduler: Karras is told by a suffix.
        every_karras: Fooocus' habit of the suffix after any name, also after those that have none elsewhere.
    """
    name = DISPLAY.get(sampler, sampler)
    has_suffix = scheduler == "karras" and (every_karras or sampler in _WITH_KARRAS)
    return f"{name} Karras" if has_suffix else name


def from_display(name: str) -> tuple[str, str | None]:
    """Read a sampler as A1111 shows it.

    Of two samplers with one display name the one is meant that draws its noise on the device, Fooocus' usual one.

    Returns:
        Our name of the sampler, or `name` itself where we have none, and the schedule that its suffix tells.
    """
    scheduler = None
    for suffix, schedule in _SUFFIXES.items():
        if name.endswith(suffix):
            name, scheduler = name.removesuffix(suffix), schedule
    return _BY_DISPLAY.get(name.casefold(), name), scheduler


_BY_DISPLAY = {name.casefold(): sampler for sampler, name in DISPLAY.items()} | {
    name.casefold(): sampler for name, sampler in _MORE.items()
}
