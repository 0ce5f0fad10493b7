"""The setting that a verdict offers, without values that the job already has or cannot use."""

from __future__ import annotations

from collections.abc import Mapping

from epochtop.engine.device.select import choose_device
from epochtop.engine.protocol.fields import with_setting
from epochtop.engine.protocol.spec import Invalid, RunSpec


def changing(setting: Mapping[str, str], spec: RunSpec) -> dict[str, str]:
    """The fields of `setting` that change the job of `spec`; none if the changed job would be invalid."""
    try:
        changed = with_setting(spec, setting)
        same_device = choose_device(changed.device) == choose_device(spec.device)
    except Invalid:
        return {}
    return {
        name: value
        for name, value in setting.items()
        if getattr(changed, name) != getattr(spec, name) and not (name == "device" and same_device)
    }
