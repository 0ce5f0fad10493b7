"""The identification of recorded machines, from the files of their kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from epochtop.engine.hardware import (
    Fact,
    Roots,
    Sampler,
    available_memory_bytes,
    identify,
    limits,
    usable_cpus,
    usable_memory_bytes,
)
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.cpu.macos import identify_by_sysctl
from epochtop.engine.hardware.cpu.names import clean_name
from epochtop.engine.hardware.gpu.child import GpuInventory
from epochtop.engine.hardware.gpu.watchdog import GpuWatch
from tests.support.fakes.recorded import unpack

GIB = 1 << 30


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the number of CPUs this process may run on."""

    def allow(count: int) -> None:
        monkeypatch.setattr(limits, "affinity_cpus", lambda: tuple(range(count)))

    return allow


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- limits -----------------------------------------------------------------------------------------------


def test_quota_of_a_parent_group_counts_in_cgroup_v2(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(8)
    assert usable_cpus(unpack("epyc-masked-cgroup-v2", tmp_path)) == 2


def test_quota_of_the_mounted_group_counts_in_cgroup_v1(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(4)
    assert (
        usable_cpus(unpack("xeon-docker-cgroup-v1", tmp_path)) == 1
    )  # 1.5 rounds down: two threads would be throttled


def test_a_group_below_the_mounted_one_counts(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(4)
    roots = unpack("xeon-docker-cgroup-v1", tmp_path)
    rewrite(roots.proc / "self/cgroup", "cpu,cpuacct:/docker/4f1c", "cpu,cpuacct:/docker/4f1c/step")
    group = roots.sys / "fs/cgroup/cpu,cpuacct/step"
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text("300000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (roots.sys / "fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cpus(roots) == 3


def test_a_group_named_from_outside_the_namespace_is_the_mounted_one(
    tmp_path: Path, affinity: Callable[[int], None]
) -> None:
    affinity(4)
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    (roots.proc / "self/cgroup").write_text("0::/not/mounted/here\n")
    (roots.sys / "fs/cgroup/cpu.max").write_text("300000 100000\n")
    assert usable_cpus(roots) == 3
    (roots.proc / "self/cgroup").write_text("0::/../jobs.slice\n")
    assert usable_cpus(roots) == 3


def test_a_quota_below_one_cpu_still_leaves_one(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(8)
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    (roots.sys / "fs/cgroup/jobs.slice/cpu.max").write_text("50000 100000\n")
    assert usable_cpus(roots) == 1


def test_affinity_counts_where_it_is_smaller_than_the_quota(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(1)
    assert usable_cpus(unpack("epyc-masked-cgroup-v2", tmp_path)) == 1


def test_no_limit_means_all_cpus(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(24)
    assert usable_cpus(unpack("alder-lake-hybrid", tmp_path)) == 24


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(3)
    assert usable_cpus(Roots(tmp_path / "proc", tmp_path / "sys")) == 3


def test_memory_limit_of_cgroup_v2_without_the_cache_that_can_be_dropped(tmp_path: Path) -> None:
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    assert usable_memory_bytes(roots) == 8 * GIB
    assert available_memory_bytes(roots) == 6 * GIB


def test_memory_limit_of_cgroup_v1_without_the_cache_that_can_be_dropped(tmp_path: Path) -> None:
    roots = unpack("xeon-docker-cgroup-v1", tmp_path)
    assert usable_memory_bytes(roots) == 4 * GIB
    assert available_memory_bytes(roots) == 3 * GIB


def test_the_unlimited_value_of_cgroup_v1_is_not_a_limit(tmp_path: Path) -> None:
    roots = unpack("xeon-docker-cgroup-v1", tmp_path)
    (roots.sys / "fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (roots.sys / "fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us").write_text("-1\n")
    machine = identify(roots)
    assert (machine.usable_memory_bytes, machine.usable_memory_reason) == (64 * GIB, "")
    assert machine.usable_cpus_reason != "cgroup"


def test_the_host_decides_if_it_has_less_memory_left_than_the_group(tmp_path: Path) -> None:
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    rewrite(roots.proc / "meminfo", "MemAvailable:   31457280", "MemAvailable:   1048576")
    assert available_memory_bytes(roots) == 1 * GIB


# --- processors -------------------------------------------------------------------------------------------


def test_a_masked_epyc_is_identified_by_family_and_model(tmp_path: Path) -> None:
    cpu = identify_cpu(unpack("epyc-masked-cgroup-v2", tmp_path))
    assert (cpu.model.value, cpu.vendor.value) == ("AMD EPYC", "AMD")
    assert cpu.microarchitecture.value == "Zen 4"  # its visible features alone say Zen 3
    assert (cpu.cores.value, cpu.threads) == (4, 8)


def test_an_unknown_model_stays_unknown_and_its_features_are_described(tmp_path: Path) -> None:
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    rewrite(roots.proc / "cpuinfo", "model\t\t: 17", "model\t\t: 250")
    architecture = identify_cpu(roots).microarchitecture
    assert architecture.value is None
    assert architecture.reason.startswith("family 25, model 250: ")
    assert "its features are those of x86-64-v3 (AVX2)" in architecture.reason


def test_an_unknown_vendor_leaves_the_architecture_unknown(tmp_path: Path) -> None:
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    rewrite(roots.proc / "cpuinfo", "AuthenticAMD", "SomeoneElse!")
    cpu = identify_cpu(roots)
    assert cpu.vendor.value == "SomeoneElse!"
    assert cpu.microarchitecture.value is None
    assert cpu.microarchitecture.reason


def test_a_hybrid_processor_has_cores_of_two_kinds(tmp_path: Path) -> None:
    cpu = identify_cpu(unpack("alder-lake-hybrid", tmp_path))
    assert (cpu.model.value, cpu.microarchitecture.value) == ("Intel Core i7-12800HX", "Alder Lake")
    assert (cpu.performance_cores, cpu.efficiency_cores) == (8, 8)
    assert (cpu.cores.value, cpu.threads) == (16, 24)


def test_arm_without_a_model_name_is_identified_by_implementer_and_part(tmp_path: Path) -> None:
    cpu = identify_cpu(unpack("aarch64-nameless", tmp_path))
    assert (cpu.model.value, cpu.vendor.value) == ("Arm Neoverse N1", "Arm")
    assert (cpu.cores.value, cpu.threads) == (4, 4)
    assert cpu.performance_cores is None


def test_an_unknown_arm_part_is_shown_by_number(tmp_path: Path) -> None:
    roots = unpack("aarch64-nameless", tmp_path)
    rewrite(roots.proc / "cpuinfo", "0xd0c", "0xfff")
    cpu = identify_cpu(roots)
    assert cpu.model.value == "Arm part 0xfff"
    assert cpu.microarchitecture.reason == "unknown part 0xfff"


def test_wsl_is_named(tmp_path: Path) -> None:
    machine = identify(unpack("wsl-ryzen", tmp_path))
    assert machine.os == "Linux 5.15.167.4 (WSL)"
    assert machine.cpu.model.value == "AMD Ryzen 5 5600X"


def test_an_empty_cpuinfo_does_not_matter(tmp_path: Path) -> None:
    roots = unpack("wsl-ryzen", tmp_path)
    (roots.proc / "cpuinfo").write_text("")
    assert identify(roots).cpu.threads >= 1


def test_a_mac_is_asked_by_sysctl() -> None:
    answers = {
        "machdep.cpu.brand_string": "Apple M2 Pro",
        "hw.physicalcpu": "10",
        "hw.logicalcpu": "10",
        "hw.nperflevels": "2",
        "hw.perflevel0.physicalcpu": "6",
        "hw.perflevel1.physicalcpu": "4",
    }
    cpu = identify_by_sysctl(lambda name: answers.get(name, ""))
    assert (cpu.model.value, cpu.performance_cores, cpu.efficiency_cores) == ("Apple M2 Pro", 6, 4)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel Xeon E5-2680 v4"),
        ("AMD EPYC 9634 84-Core Processor", "AMD EPYC 9634"),
        ("12th Gen Intel(R) Core(TM) i7-12800HX", "Intel Core i7-12800HX"),
    ],
)
def test_model_names_lose_their_filler(written: str, expected: str) -> None:
    assert clean_name(written) == expected


def test_why_fewer_cpus_are_usable(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(8)
    machine = identify(unpack("epyc-masked-cgroup-v2", tmp_path))
    assert (machine.usable_cpus, machine.usable_cpus_reason, machine.usable_memory_reason) == (2, "cgroup", "cgroup")
    affinity(3)
    machine = identify(unpack("alder-lake-hybrid", tmp_path / "other"))
    assert (machine.usable_cpus, machine.usable_cpus_reason, machine.usable_memory_reason) == (3, "affinity", "")


# --- load -------------------------------------------------------------------------------------------------


def stat(*cpus: tuple[int, int]) -> str:
    """/proc/stat of CPUs with these busy and idle ticks."""
    return "cpu  1 2 3 4\n" + "".join(f"cpu{n} {busy} 0 0 {idle} 0 0 0 0 0 0\n" for n, (busy, idle) in enumerate(cpus))


def test_load_is_unknown_in_the_first_sample_and_then_of_the_time_between(
    tmp_path: Path, affinity: Callable[[int], None]
) -> None:
    affinity(2)
    roots = unpack("alder-lake-hybrid", tmp_path)
    (roots.proc / "stat").write_text(stat((100, 100), (100, 100), (100, 100)))
    sampler = Sampler(roots)
    first = sampler.sample()
    assert (first.cpu_percent.value, first.core_percents) == (None, ())
    assert first.cpu_percent.reason
    (roots.proc / "stat").write_text(stat((200, 100), (150, 150), (900, 100)))
    second = sampler.sample()
    assert [core.percent for core in second.core_percents] == [100, 50]
    assert second.cpu_percent.value == 75  # the third CPU is not ours


def test_load_under_a_quota_is_the_share_of_the_quota(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(8)
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    seconds = iter((10.0, 12.0))
    sampler = Sampler(roots, clock=lambda: next(seconds))
    assert sampler.sample().cpu_percent.value is None
    (roots.sys / "fs/cgroup/jobs.slice/cpu.stat").write_text("usage_usec 8000000\n")
    assert sampler.sample().cpu_percent.value == 75  # 3 of the 2 × 2 CPU seconds


def test_load_under_a_quota_of_cgroup_v1(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(4)
    roots = unpack("xeon-docker-cgroup-v1", tmp_path)
    seconds = iter((0.0, 2.0))
    sampler = Sampler(roots, clock=lambda: next(seconds))
    sampler.sample()
    (roots.sys / "fs/cgroup/cpu,cpuacct/cpuacct.usage").write_text("8500000000\n")
    assert sampler.sample().cpu_percent.value == 50  # 1.5 of 2 × 1.5 CPU seconds


def test_a_cpu_that_goes_offline_drops_out(tmp_path: Path, affinity: Callable[[int], None]) -> None:
    affinity(2)
    roots = unpack("alder-lake-hybrid", tmp_path)
    (roots.proc / "stat").write_text(stat((100, 100), (100, 100)))
    sampler = Sampler(roots)
    sampler.sample()
    (roots.proc / "stat").write_text(stat((110, 190)))
    assert [core.cpu for core in sampler.sample().core_percents] == [0]


def test_used_memory_is_usable_minus_available_memory(tmp_path: Path) -> None:
    sample = Sampler(unpack("epyc-masked-cgroup-v2", tmp_path)).sample()
    assert (sample.memory_used_bytes, sample.memory_usable_bytes) == (2 * GIB, 8 * GIB)


def test_load_without_proc_comes_from_psutil(tmp_path: Path) -> None:
    sampler = Sampler(Roots(tmp_path / "proc", tmp_path / "sys"))
    sample = sampler.sample()
    assert sample.cpu_percent.value is None
    assert 0 < sample.memory_used_bytes < sample.memory_usable_bytes


def test_importing_costs_nothing() -> None:
    code = "import sys, epochtop.engine.hardware; print([m for m in ('psutil','pynvml','torch','textual') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("container", "error", "environment", "advice"),
    [
        ("docker", "Unknown", {}, "restart the container"),
        ("", "Unknown", {}, ""),
        ("", "LibRmVersionMismatch", {"LD_LIBRARY_PATH": "/opt/cuda/lib"}, "LD_LIBRARY_PATH may lead"),
        ("", "LibRmVersionMismatch", {}, ""),
        ("", "DriverNotLoaded", {"LD_LIBRARY_PATH": "/opt/cuda/lib"}, ""),
    ],
)
def test_why_there_is_no_gpu_has_a_remedy_where_one_is_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    container: str,
    error: str,
    environment: dict[str, str],
    advice: str,
) -> None:
    monkeypatch.setattr("epochtop.engine.hardware.machine.container", lambda _: container)
    inventory = GpuInventory(
        reason="the driver's reason", error=error, driver_version=Fact(reason=""), cuda_version=Fact(reason="")
    )
    watch = cast(GpuWatch, SimpleNamespace(identify=lambda patience_s: inventory))
    reason = identify(unpack("alder-lake-hybrid", tmp_path), watch, environment=environment).no_gpu_reason
    assert reason.startswith("the driver's reason")
    assert advice in reason
    assert bool(advice) == (reason != "the driver's reason")
