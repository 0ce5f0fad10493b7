"""Tables of processors: vendors, micro-architectures by family and model, generations. Never imports torch."""

from __future__ import annotations

import re

VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon", "CentaurHauls": "Zhaoxin"}

AMD_MODELS = (
    (0x17, "Zen", ((0x00, 0x2F), (0x50, 0x5F))),
    (0x17, "Zen 2", ((0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF))),
    (0x18, "Zen", ((0x00, 0xFF),)),  # Hygon
    (0x19, "Zen 3", ((0x00, 0x0F), (0x20, 0x5F))),
    (0x19, "Zen 4", ((0x10, 0x1F), (0x60, 0xAF))),
    (0x1A, "Zen 5", ((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F))),
    (0x1A, "Zen 6", ((0x50, 0x5F), (0x80, 0xAF), (0xC0, 0xCF))),
)
"""Family, name, ranges of models: as in Linux, arch/x86/kernel/cpu/amd.c."""

INTEL_MODELS = {
    "Sandy Bridge": (0x2A, 0x2D),
    "Ivy Bridge": (0x3A, 0x3E),
    "Haswell": (0x3C, 0x3F, 0x45, 0x46),
    "Broadwell": (0x3D, 0x47, 0x4F, 0x56),
    "Skylake": (0x4E, 0x5E),
    "Kaby Lake": (0x8E, 0x9E),
    "Comet Lake": (0xA5, 0xA6),
    "Ice Lake": (0x6A, 0x6C, 0x7D, 0x7E),
    "Tiger Lake": (0x8C, 0x8D),
    "Rocket Lake": (0xA7,),
    "Alder Lake": (0x97, 0x9A),
    "Alder Lake-N": (0xBE,),
    "Raptor Lake": (0xB7, 0xBA, 0xBF),
    "Meteor Lake": (0xAA, 0xAC),
    "Lunar Lake": (0xBD,),
    "Arrow Lake": (0xB5, 0xC5, 0xC6),
    "Panther Lake": (0xCC,),
    "Knights Landing": (0x57,),
    "Sapphire Rapids": (0x8F,),
    "Emerald Rapids": (0xCF,),
    "Granite Rapids": (0xAD, 0xAE),
    "Sierra Forest": (0xAF,),
}
"""Models of family 6, as in Linux, arch/x86/include/asm/intel-family.h. The stepping identifies Skylake-X."""

SPELLED = {"sapphirerapids": "Sapphire Rapids", "cascadelake": "Cascade Lake", "alderlake": "Alder Lake"}

_CORE = {
    "Sandy Bridge": "2nd", "Ivy Bridge": "3rd", "Haswell": "4th", "Broadwell": "5th", "Skylake": "6th",
    "Kaby Lake": "7th to 9th", "Comet Lake": "10th", "Ice Lake": "10th", "Tiger Lake": "11th", "Rocket Lake": "11th",
    "Alder Lake": "12th", "Raptor Lake": "13th or 14th",
}  # fmt: skip
_CORE_ULTRA = {"Meteor Lake": "1st", "Lunar Lake": "2nd", "Arrow Lake": "2nd", "Panther Lake": "3rd"}
_XEON = {
    "Sandy Bridge": "Xeon E5", "Ivy Bridge": "Xeon E5 v2", "Haswell": "Xeon E5 v3", "Broadwell": "Xeon E5 v4",
    "Skylake": "1st generation Xeon Scalable", "Cascade Lake": "2nd generation Xeon Scalable",
    "Cooper Lake": "3rd generation Xeon Scalable", "Ice Lake": "3rd generation Xeon Scalable",
    "Sapphire Rapids": "4th generation Xeon Scalable", "Emerald Rapids": "5th generation Xeon Scalable",
    "Granite Rapids": "Xeon 6 (performance cores)", "Sierra Forest": "Xeon 6 (efficiency cores)",
}  # fmt: skip
_EPYC = {
    "Zen": "1st generation EPYC", "Zen 2": "2nd generation EPYC", "Zen 3": "3rd generation EPYC",
    "Zen 4": "4th generation EPYC", "Zen 5": "5th generation EPYC", "Zen 6": "6th generation EPYC",
}  # fmt: skip
_ARM = {
    "Neoverse N1": "Armv8.2", "Neoverse V1": "Armv8.4", "Neoverse N2": "Armv9.0", "Neoverse V2": "Armv9.0",
    "Neoverse N3": "Armv9.2", "Neoverse V3": "Armv9.2", "Cortex A72": "Armv8.0", "A64FX": "Armv8.2 with SVE",
}  # fmt: skip
"""Sources: Intel's "Intel processor names, numbers and generation list" and ark pages; AMD's EPYC and Ryzen product
pages; the technical reference manuals of Arm's cores."""


def generation(model: str, vendor: str | None, architecture: str | None) -> str | None:
    """The generation of a processor within its product line, as its vendor counts; None if unknown."""
    if vendor == "Intel":
        return _intel(model, architecture or "")
    if vendor in ("AMD", "Hygon"):
        return _amd(model, architecture or "")
    if vendor == "Apple" and (match := re.search(r"\bM(\d+)\b", model)):
        return f"{_ordinal(int(match[1]))} generation Apple silicon"
    return _ARM.get(architecture or "")


def _intel(model: str, architecture: str) -> str | None:
    if "Xeon" in model or "Core" not in model:
        return _XEON.get(architecture)
    if "Ultra" in model:
        return f"{_CORE_ULTRA[architecture]} generation Core Ultra" if architecture in _CORE_ULTRA else None
    if match := re.search(
        r"\bi[3579]-(1[0-4]|[2-9])\d{2,3}", model
    ):  # the model number is more precise than the design
        return f"{_ordinal(int(match[1]))} generation Core"
    return f"{_CORE[architecture]} generation Core" if architecture in _CORE else None


def _amd(model: str, architecture: str) -> str | None:
    if "EPYC" in model:
        return _EPYC.get(architecture)
    if match := re.search(r"\bRyzen (?:\w+ )*?(?:Threadripper )?(?:PRO )?(\d)\d{3}", model):
        return f"Ryzen {match[1]}000 series"
    if match := re.search(r"\bRyzen AI\b.*?\b(\d)\d{2}\b", model):
        return f"Ryzen AI {match[1]}00 series"
    return None


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def vector_instructions(flags: set[str]) -> tuple[str, ...]:
    """The vector instructions that PyTorch's kernels use, from the Linux kernel's feature flags."""
    return tuple(name for name, needed in _VECTORS if needed <= flags)


_VECTORS: tuple[tuple[str, set[str]], ...] = (
    ("AVX", {"avx"}),
    ("AVX2", {"avx2", "fma"}),
    ("AVX-512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("AVX-512 VNNI", {"avx512_vnni"}),
    ("AVX-512 BF16", {"avx512_bf16"}),
    ("AMX", {"amx_tile", "amx_bf16"}),
    ("NEON", {"asimd"}),
    ("BF16", {"bf16"}),
    ("SVE", {"sve"}),
    ("SVE2", {"sve2"}),
)
"""Feature flags as in /proc/cpuinfo: Linux, arch/x86/include/asm/cpufeatures.h and arch/arm64/kernel/cpuinfo.c."""


def clean_name(name: str) -> str:
    """A model name without trademarks, clock and filler words: `Intel Core i7-12800HX`."""
    name = re.sub(r"\((R|TM|r|tm)\)", " ", name)
    name = re.sub(r"\s@.*|\b\d+-Core\b|\bProcessor\b|\bCPU\b|^\d+th Gen\b", " ", name)
    return " ".join(name.split())
