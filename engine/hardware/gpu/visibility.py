"""Which GPUs CUDA shows in this environment, and their numbers. Never imports torch.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables". CUDA_VISIBLE_DEVICES lists numbers or prefixes of
UUIDs. The list ends at the first entry that matches no GPU; a GPU listed twice hides all GPUs. CUDA orders GPUs by speed
unless CUDA_DEVICE_ORDER is PCI_BUS_ID, which is NVML's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epochtop.engine.hardware.facts import Fact

VARIABLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
BY_SPEED = "CUDA orders these GPUs by speed; ask torch for the numbers (--torch)"
HIDDEN = f"hidden by {VARIABLE}"


def cuda_indices(
    uuids: Sequence[str | None], names: Sequence[str | None], environment: Mapping[str, str]
) -> list[Fact[int]]:
    """CUDA's number of each GPU, in NVML's order; `uuids` are `GPU-…` or None."""
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
    """The entries before the first that matches no GPU."""
    entries: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if part.isdecimal() and int(part) < len(uuids):
            entries.append(int(part))
        elif part.startswith("GPU-") and _position(part, uuids) >= 0:
            entries.append(part)
        else:
            break
    return entries


def _position(prefix: str, uuids: Sequence[str | None]) -> int:
    """The index of the only GPU whose UUID starts with `prefix`; -1 if there is none or more than one."""
    matches = [index for index, uuid in enumerate(uuids) if uuid is not None and uuid.startswith(prefix)]
    return matches[0] if len(matches) == 1 else -1


def _orders_agree(names: Sequence[str | None], environment: Mapping[str, str]) -> bool:
    """Whether CUDA's order is NVML's: by CUDA_DEVICE_ORDER, or because all GPUs are of one model."""
    return environment.get(ORDER) == "PCI_BUS_ID" or (len(set(names)) == 1 and names[0] is not None) or len(names) == 1


def _in_cuda_order(names: Sequence[str | None], environment: Mapping[str, str]) -> list[Fact[int]]:
    if _orders_agree(names, environment):
        return [Fact(index) for index in range(len(names))]
    return [Fact(reason=BY_SPEED)] * len(names)
