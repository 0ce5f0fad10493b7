"""Which GPUs CUDA shows this environment, and under which numbers.

Rules: CUDA C++ Programming Guide, "CUDA Environment Variables". CUDA_VISIBLE_DEVICES lists numbers or the beginnings of
UUIDs; the list ends before the first entry that names nothing; a device named twice hides all of them. CUDA
numbers by speed unless CUDA_DEVICE_ORDER is PCI_BUS_ID, which is NVML's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epochtop.engine.hardware.facts import Fact

VARIABLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
BY_SPEED = "CUDA numbers these GPUs by speed; torch knows the numbers (--torch)"
HIDDEN = f"hidden by {VARIABLE}"


def cuda_indices(
    uuids: Sequence[str | None], names: Sequence[str | None], environment: Mapping[str, str]
) -> list[Fact[int]]:
    """For each GPU in NVML's order its number in CUDA's; `uuids` as `GPU-…`, None where unknown."""
    text = environment.get(VARIABLE)
    if text is None:
        return _in_cuda_order(names, environment)
    entries = _entries(text, uuids)
    if any(isinstance(entry, int) for entry in entries) and not _orders_agree(names, environment):
        return [Fact(reason=BY_SPEED)] * len(uuids)
    order = [entry if isinstance(entry, int) else _position(entry, uuids) for entry in entries]
    if len(set(order)) != len(order):
        order = []
    return [Fact(order.index(index)) if index in order else Fact(reason=HIDDEN) for index in range(len(uuids))]


def _entries(text: str, uuids: Sequence[str | None]) -> list[int | str]:
    """The entries up to the first that names no GPU."""
    found: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if part.isdecimal() and int(part) < len(uuids):
            found.append(int(part))
        elif part.startswith("GPU-") and _position(part, uuids) >= 0:
            found.append(part)
        else:
            break
    return found


def _position(beginning: str, uuids: Sequence[str | None]) -> int:
    """The only GPU whose UUID begins so; -1 where none or several do."""
    fitting = [index for index, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(beginning)]
    return fitting[0] if len(fitting) == 1 else -1


def _orders_agree(names: Sequence[str | None], environment: Mapping[str, str]) -> bool:
    """Whether CUDA's numbers are NVML's: asked for, or all GPUs equally fast."""
    return environment.get(ORDER) == "PCI_BUS_ID" or (len(set(names)) == 1 and names[0] is not None) or len(names) == 1


def _in_cuda_order(names: Sequence[str | None], environment: Mapping[str, str]) -> list[Fact[int]]:
    if _orders_agree(names, environment):
        return [Fact(index) for index in range(len(names))]
    return [Fact(reason=BY_SPEED)] * len(names)
