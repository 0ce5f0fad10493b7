"""Intel's designs by family, model and stepping, and QEMU's names of processor models. Never imports torch."""

from __future__ import annotations

import re

Steppings = tuple[tuple[int, str], ...]
"""First stepping and design, in the order of steppings."""


def _models(family: int, table: dict[str, tuple[int, ...]]) -> dict[tuple[int, int], Steppings]:
    return {(family, model): ((0, design),) for design, models in table.items() for model in models}


SHARED_MODEL = (6, 0x8E)
"""Family and model that five designs of mobile processors share."""

INTEL_DESIGNS: dict[tuple[int, int], Steppings] = {
    **_models(6, {
        "Yonah": (0x0E,), "Core (Merom)": (0x0F, 0x16), "Core (Penryn)": (0x17, 0x1D),
        "Nehalem": (0x1A, 0x1E, 0x1F, 0x2E), "Westmere": (0x25, 0x2C, 0x2F),
        "Sandy Bridge": (0x2A, 0x2D), "Ivy Bridge": (0x3A, 0x3E), "Haswell": (0x3C, 0x3F, 0x45, 0x46),
        "Broadwell": (0x3D, 0x47, 0x4F, 0x56), "Skylake": (0x4E, 0x5E), "Cannon Lake": (0x66,),
        "Comet Lake": (0xA5, 0xA6), "Ice Lake": (0x6A, 0x6C, 0x7D, 0x7E, 0x9D), "Tiger Lake": (0x8C, 0x8D),
        "Rocket Lake": (0xA7,), "Lakefield": (0x8A,), "Alder Lake": (0x97, 0x9A), "Alder Lake-N": (0xBE,),
        "Raptor Lake": (0xB7, 0xBA, 0xBF), "Bartlett Lake": (0xD7,), "Meteor Lake": (0xAA, 0xAC),
        "Arrow Lake": (0xB5, 0xC5, 0xC6), "Lunar Lake": (0xBD,), "Panther Lake": (0xCC, 0xE5),
        "Wildcat Lake": (0xD5,), "Sapphire Rapids": (0x8F,), "Emerald Rapids": (0xCF,),
        "Granite Rapids": (0xAD, 0xAE), "Sierra Forest": (0xAF,), "Grand Ridge": (0xB6,),
        "Clearwater Forest": (0xDD,), "Bonnell": (0x1C, 0x26), "Saltwell": (0x27, 0x35, 0x36),
        "Silvermont": (0x37, 0x4A, 0x4D, 0x5A), "Airmont": (0x4C, 0x75), "Goldmont": (0x5C, 0x5F),
        "Goldmont Plus": (0x7A,), "Tremont": (0x86, 0x96, 0x9C), "Knights Landing": (0x57,), "Knights Mill": (0x85,),
    }),
    **_models(15, {"NetBurst": (0x00, 0x01, 0x02, 0x03, 0x04, 0x06)}),
    **_models(18, {"Nova Lake": (0x01, 0x03)}),
    **_models(19, {"Diamond Rapids": (0x01,)}),
    (6, 0x55): ((0, "Skylake"), (5, "Cascade Lake"), (10, "Cooper Lake")),
    SHARED_MODEL: ((0, "Kaby Lake"), (10, "Kaby Lake R or Coffee Lake"), (11, "Whiskey Lake"), (12, "Whiskey Lake or Comet Lake")),
    (6, 0x9E): ((0, "Kaby Lake"), (10, "Coffee Lake")),
}  # fmt: skip
"""Sources: Linux, arch/x86/include/asm/intel-family.h, with its notes on steppings; Intel's specification updates for
the models 0x55, 0x8E and 0x9E. Kaby Lake R shares stepping 10 with Coffee Lake U, Whiskey Lake 12 with Comet Lake U."""

_BY_NUMBER = (
    (re.compile(r"[im]\d-(8\d|10\d)\d\dY\b|\b(4425|6500)Y"), "Amber Lake"),
    (re.compile(r"i\d-8[1-6][35]0U"), "Kaby Lake R"),
    (re.compile(r"i\d-8\d\d[79][UB]?"), "Coffee Lake"),
    (re.compile(r"i\d-8\d65UE?"), "Whiskey Lake"),
    (re.compile(r"i\d-10\d{3}"), "Comet Lake"),
)
"""What the model number tells where designs share a stepping: Intel's product specifications (ark.intel.com)."""


def by_numbers(family: int, model: int, stepping: int, name: str) -> str | None:
    """The design with these numbers; the model's name decides between designs that share all of them."""
    steppings = INTEL_DESIGNS.get((family, model), ())
    design = next((design for first, design in reversed(steppings) if stepping >= first), None)
    if (family, model) == SHARED_MODEL:
        return next((by_name for pattern, by_name in _BY_NUMBER if pattern.search(name)), design)
    return design


_QEMU = {
    "conroe": "Core (Merom)", "penryn": "Core (Penryn)", "nehalem": "Nehalem", "westmere": "Westmere",
    "sandybridge": "Sandy Bridge", "ivybridge": "Ivy Bridge", "haswell": "Haswell", "broadwell": "Broadwell",
    "skylake": "Skylake", "cascadelake": "Cascade Lake", "cooperlake": "Cooper Lake", "icelake": "Ice Lake",
    "sapphirerapids": "Sapphire Rapids", "graniterapids": "Granite Rapids", "sierraforest": "Sierra Forest",
    "clearwaterforest": "Clearwater Forest", "diamondrapids": "Diamond Rapids", "denverton": "Goldmont",
    "snowridge": "Tremont", "knightsmill": "Knights Mill",
}  # fmt: skip
"""QEMU, target/i386/cpu.c: words in brackets in the model names. Its Icelake-Server has the numbers of Snow Ridge."""


def in_qemus_name(name: str) -> str | None:
    """The design in a model name of QEMU's, such as `Intel Xeon Processor (Icelake)`."""
    if name.startswith("Westmere "):
        return "Westmere"
    match = re.search(r"\(([A-Za-z ]+)[^)]*\)\s*$", name)
    if match is None or not name.startswith("Intel"):
        return None
    word = match[1].replace(" ", "").lower()
    return next((design for key, design in _QEMU.items() if word.startswith(key)), None)
