"""Model names without filler, and the vector instructions that PyTorch's kernels use. Never imports torch."""

from __future__ import annotations

import re

ROSETTA = "this Python is built for x86 and runs under Rosetta: install a Python for arm64 (Apple silicon)"
BEHIND_ROSETTA = "an x86 program under Rosetta does not see the processor"


def vector_instructions(flags: set[str]) -> tuple[str, ...]:
    """The vector instructions that PyTorch's kernels use, from the Linux kernel's feature flags."""
    return tuple(dict.fromkeys(name for name, needed in _VECTORS if needed <= flags))


_VECTORS: tuple[tuple[str, set[str]], ...] = (
    ("AVX", {"avx"}),
    ("AVX2", {"avx2", "fma"}),
    ("AVX-512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("AVX-512 VNNI", {"avx512_vnni"}),
    ("AVX-512 BF16", {"avx512_bf16"}),
    ("AMX", {"amx_tile", "amx_bf16"}),
    ("NEON", {"asimd"}),
    ("NEON", {"neon"}),
    ("BF16", {"bf16"}),
    ("SVE", {"sve"}),
    ("SVE2", {"sve2"}),
)
"""Feature flags as in /proc/cpuinfo: Linux, arch/x86/include/asm/cpufeatures.h and arch/arm64/kernel/cpuinfo.c."""


def clean_name(name: str) -> str:
    """A model name without trademarks, clock and filler words: `Intel Core i7-12800HX`."""
    name = re.sub(r"\((R|TM)\)", " ", name, flags=re.IGNORECASE)
    name = re.sub(r"\s@.*|\b[\w-]+-Cores?\b|\bProcessor\b|\bCPU\b|^\d+(st|nd|rd|th) Gen\b", " ", name, flags=re.I)
    name = re.sub(r"\s(w/|with) .*(Radeon|Graphics).*", " ", name)
    return re.sub(r" -(?=\d)", "-", " ".join(name.split()))
