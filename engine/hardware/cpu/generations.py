"""The generation of a processor within its product line, as its vendor counts. Never imports torch.

The model number decides where it counts the generation; the design only names what has no number (virtual machines).
Sources: Intel, "Intel Processor Names, Numbers and Generation List" and the Xeon naming pages; AMD's EPYC and Ryzen
product pages; the technical reference manuals of Arm's cores.
"""

from __future__ import annotations

import re

_CORE = {
    "Nehalem": "1st", "Westmere": "1st", "Sandy Bridge": "2nd", "Ivy Bridge": "3rd", "Haswell": "4th",
    "Broadwell": "5th", "Skylake": "6th", "Kaby Lake": "7th", "Kaby Lake R": "8th", "Whiskey Lake": "8th",
    "Coffee Lake": "8th or 9th", "Comet Lake": "10th", "Ice Lake": "10th", "Tiger Lake": "11th", "Rocket Lake": "11th",
    "Alder Lake": "12th",
}  # fmt: skip
_XEON_SCALABLE = {
    "Skylake": "1st", "Cascade Lake": "2nd", "Cooper Lake": "3rd", "Ice Lake": "3rd", "Sapphire Rapids": "4th",
    "Emerald Rapids": "5th",
}  # fmt: skip
_XEON_6 = {"Granite Rapids": "Xeon 6 (performance cores)", "Sierra Forest": "Xeon 6 (efficiency cores)"}
_XEON_NUMBERS = (
    (r"Xeon (?:Platinum|Gold|Silver|Bronze) \d([1-5])\d\d", "{th} generation Xeon Scalable"),
    (r"Xeon 6\d{3}P", _XEON_6["Granite Rapids"]),
    (r"Xeon 6\d{3}E", _XEON_6["Sierra Forest"]),
    (r"Xeon E([357]) ?-? ?\d{4}\w* v(\d)", "Xeon E{} v{}"),
    (r"Xeon E([357]) ?-? ?\w?\d{4}", "Xeon E{}"),
    (r"Xeon D-(\d\d)\d\d", "Xeon D-{}00"),
    (r"Xeon [Ww][3579]?-\d{4}", "Xeon W"),
    (r"Xeon E-\d{4}", "Xeon E"),
    (r"Xeon Phi", "Xeon Phi"),
    (r"Xeon [EXLW]?([357]\d)\d\d\b", "Xeon {}00"),
)
"""Patterns of Xeon names and the families that they name; the second digit of a Scalable is its generation."""
_CORE_NUMBERS = (
    (r"\bCore Ultra\b.*?\b(\d)\d\d", "{th} generation Core Ultra"),
    (r"\bCore [3579] (\d)\d\d", "Core series {}"),
    (r"\b[im][3579]-(1[0-4](?=\d\d)|[2-9](?=\d{3}))\d{2,3}(?:G\d|[A-Z]{0,2})\b", "{th} generation Core"),
    (r"\b(?:m[357]|i[57])-(\d|10)Y\d\d\b|\bM-(\d)Y\d\d", "{th} generation Core"),
    (r"\bi[357] (?:[A-Z]{1,2} ?)?\d{3}\b", "1st generation Core"),
)
_HIGH_END_BEFORE = {
    "Sandy Bridge": "2nd", "Ivy Bridge": "3rd", "Haswell": "4th", "Broadwell": "5th", "Skylake": "6th",
    "Cascade Lake": "-",
}  # fmt: skip
"""Designs whose high-end desktop processors (i7-3960X, i9-7900X) have a later generation's number: their generation is not
known, because the number and the design disagree."""
_RYZEN_NUMBERS = (
    (r"\bRyzen Ai Max\+? (\d)\d\d\b", "Ryzen AI Max {}00 series"),
    (r"\bRyzen Ai\b.*?\b(\d)\d\d\b", "Ryzen AI {}00 series"),
    (r"\bRyzen Embedded ([A-Z])(\d)\d{3}", "Ryzen Embedded {}{}000 series"),
    (r"\bRyzen (Z\d)\b", "Ryzen {} series"),
    (r"\bRyzen (?:\w+ )*?(\d)\d{3}", "Ryzen {}000 series"),
    (r"\bRyzen [3579] (\d)\d\d\b", "Ryzen {}00 series"),
)
_EPYC = {"Zen": "1st", "Zen 2": "2nd", "Zen 3": "3rd", "Zen 4": "4th", "Zen 5": "5th", "Zen 6": "6th"}
_ARM = {
    "Neoverse N1": "Armv8.2", "Neoverse V1": "Armv8.4", "Neoverse N2": "Armv9.0", "Neoverse V2": "Armv9.0",
    "Neoverse N3": "Armv9.2", "Neoverse V3": "Armv9.2", "Neoverse V3AE": "Armv9.2", "Neoverse E1": "Armv8.2",
    "Cortex-A53": "Armv8.0", "Cortex-A57": "Armv8.0", "Cortex-A72": "Armv8.0", "Cortex-A73": "Armv8.0",
    "Cortex-A55": "Armv8.2", "Cortex-A75": "Armv8.2", "Cortex-A76": "Armv8.2", "Cortex-A77": "Armv8.2",
    "Cortex-A78": "Armv8.2", "Cortex-A78AE": "Armv8.2", "Cortex-X1": "Armv8.2", "Cortex-A510": "Armv9.0",
    "Cortex-A710": "Armv9.0", "Cortex-A715": "Armv9.0", "Cortex-X2": "Armv9.0", "Cortex-X3": "Armv9.0",
    "Cortex-A520": "Armv9.2", "Cortex-A720": "Armv9.2", "Cortex-A725": "Armv9.2", "Cortex-X4": "Armv9.2",
    "Cortex-X925": "Armv9.2", "A64FX": "Armv8.2 with SVE", "Ampere-1": "Armv8.6",
    "Neoverse N2 (Azure Cobalt 100)": "Armv9.0",
}  # fmt: skip
_POWER = {"POWER7": "Power ISA 2.06", "POWER8": "Power ISA 2.07", "POWER9": "Power ISA 3.0", "POWER10": "Power ISA 3.1"}


def generation(model: str, vendor: str | None, architecture: str | None) -> str | None:
    """The generation of a processor within its product line; None if unknown."""
    if vendor == "Intel":
        return _xeon(model, architecture or "") if "xeon" in model.lower() else _intel(model, architecture or "")
    if vendor in ("AMD", "Hygon"):
        return _amd(model, architecture or "")
    if vendor == "Apple" and (match := re.search(r"\bM(\d+)\b", f"{model} {architecture}")):
        return f"{_ordinal(int(match[1]))} generation Apple silicon"
    if vendor == "IBM":
        return _POWER.get((architecture or "").rstrip("+E"))
    lines = {_ARM.get(part) for part in (architecture or "").split(" + ")}
    return lines.pop() if len(lines) == 1 else None


def _xeon(model: str, architecture: str) -> str | None:
    if text := _by_number(_XEON_NUMBERS, model):
        return text
    if re.search(r"\d", model):  # a number of another line
        return None
    if architecture in _XEON_SCALABLE:
        return f"{_XEON_SCALABLE[architecture]} generation Xeon Scalable"
    return _XEON_6.get(architecture)


def _intel(model: str, architecture: str) -> str | None:
    text = _by_number(_CORE_NUMBERS, model)
    if text and architecture in _HIGH_END_BEFORE and not text.startswith(_HIGH_END_BEFORE[architecture]):
        return None
    is_unnumbered = re.fullmatch(r"(?:Intel )?Core(?: \(.*\))?", model) is not None
    return text or (f"{_CORE[architecture]} generation Core" if is_unnumbered and architecture in _CORE else None)


def _amd(model: str, architecture: str) -> str | None:
    if re.search(r"\bEPYC 4\d\d\dP?X?\b", model):
        return {"Zen 4": "EPYC 4004", "Zen 5": "EPYC 4005"}.get(architecture)
    if "EPYC" in model:
        is_embedded = re.search(r"\bEPYC (?:Embedded )?3\d\d\d\b|\bEmbedded\b", model)
        return f"{_EPYC[architecture]} generation EPYC" if architecture in _EPYC and not is_embedded else None
    return _by_number(_RYZEN_NUMBERS, model.title().replace("Pro ", ""))


def _by_number(table: tuple[tuple[str, str], ...], model: str) -> str | None:
    """The text of the first pattern in the model's name: `{}` is its first group, `{th}` the same as an ordinal."""
    for pattern, text in table:
        if match := re.search(pattern, model, re.IGNORECASE):
            parts = [part for part in match.groups() if part]
            return text.format(*parts, th=_ordinal(int(parts[0])) if parts and parts[0].isdigit() else "")
    return None


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
