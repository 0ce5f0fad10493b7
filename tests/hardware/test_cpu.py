"""Generations, clocks, caches and instructions of processors, and what a machine is good for."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.hardware import Cache, Fact, Roots, cpu_meaning, identify, limits
from epochtop.engine.hardware.cpu.generations import generation
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.cpu.macos import identify_by_sysctl
from epochtop.engine.hardware.environment import container
from tests.support.fakes.machines import GIB, a_machine
from tests.support.fakes.recorded import unpack


@pytest.mark.parametrize(
    ("model", "vendor", "architecture", "expected"),
    [
        ("Intel Core i7-12800HX", "Intel", "Alder Lake", "12th generation Core"),
        ("Intel Core i9-12900KF", "Intel", "Alder Lake", "12th generation Core"),
        ("Intel Core i5-8250U", "Intel", "Kaby Lake", "8th generation Core"),
        ("Intel Core i7-4770K", "Intel", "Haswell", "4th generation Core"),
        ("Intel Core i9-14900K", "Intel", "Raptor Lake", "14th generation Core"),
        ("Intel Core i7-1185G7", "Intel", "Tiger Lake", "11th generation Core"),
        ("Intel Core Ultra 7 155H", "Intel", "Meteor Lake", "1st generation Core Ultra"),
        ("Intel Core Ultra 9 285K", "Intel", "Arrow Lake", "2nd generation Core Ultra"),
        ("Intel Xeon", "Intel", "Sapphire Rapids", "4th generation Xeon Scalable"),
        ("Intel Xeon Platinum 8592+", "Intel", "Emerald Rapids", "5th generation Xeon Scalable"),
        ("Intel Xeon E5-2680 v4", "Intel", "Broadwell", "Xeon E5 v4"),
        ("AMD EPYC 9634", "AMD", "Zen 4", "4th generation EPYC"),
        ("AMD EPYC", "AMD", "Zen 3", "3rd generation EPYC"),
        ("AMD EPYC 9755", "AMD", "Zen 5", "5th generation EPYC"),
        ("AMD Ryzen 5 5600X", "AMD", "Zen 3", "Ryzen 5000 series"),
        ("AMD Ryzen Threadripper PRO 7995WX", "AMD", "Zen 4", "Ryzen 7000 series"),
        ("AMD Ryzen 7 PRO 7840U", "AMD", "Zen 4", "Ryzen 7000 series"),
        ("Arm Neoverse N1", "Arm", "Neoverse N1", "Armv8.2"),
        ("Arm Neoverse V2", "Arm", "Neoverse V2", "Armv9.0"),
        ("Apple M2 Pro", "Apple", None, "2nd generation Apple silicon"),
        ("Somebody's chip", "Somebody", "Something", None),
        ("Intel Pentium Gold G7400", "Intel", "Alder Lake", None),
    ],
)
def test_generations(model: str, vendor: str, architecture: str | None, expected: str | None) -> None:
    assert generation(model, vendor, architecture) == expected


def put(roots: Roots, path: str, text: str) -> None:
    target = roots.sys / "devices/system/cpu" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")


def test_a_laptops_processor(tmp_path: Path) -> None:
    roots = unpack("alder-lake-hybrid", tmp_path)
    put(roots, "cpu0/cpufreq/base_frequency", "2000000")
    put(roots, "cpu16/cpufreq/base_frequency", "1500000")  # an efficiency core
    put(roots, "cpu0/cpufreq/cpuinfo_max_freq", "4800000")
    put(roots, "cpu16/cpufreq/cpuinfo_max_freq", "3400000")
    cpu = identify_cpu(roots)
    assert cpu.generation.value == "12th generation Core"
    assert (cpu.base_clock_mhz.value, cpu.max_clock_mhz.value) == (2000, 4800)
    assert cpu.vector_instructions.value == ("AVX", "AVX2")
    assert cpu.sockets.value == 1


def test_every_cache_is_counted_once(tmp_path: Path) -> None:
    roots = unpack("epyc-masked-cgroup-v2", tmp_path)
    for number in range(4):
        for index, (level, kind, size, shared) in enumerate(
            [("1", "Data", "32K", f"{number // 2 * 2}-{number // 2 * 2 + 1}"), ("3", "Unified", "32M", "0-3")]
        ):
            folder = f"cpu{number}/cache/index{index}"
            put(roots, f"{folder}/level", level)
            put(roots, f"{folder}/type", kind)
            put(roots, f"{folder}/size", size)
            put(roots, f"{folder}/shared_cpu_list", shared)
    assert identify_cpu(roots).caches.value == (Cache(1, "data", 32 << 10, 2), Cache(3, "unified", 32 << 20, 1))


def test_clocks_by_name_and_not_at_all(tmp_path: Path) -> None:
    cpu = identify_cpu(unpack("xeon-docker-cgroup-v1", tmp_path))
    assert cpu.base_clock_mhz.value == 2400  # "@ 2.40GHz"
    assert cpu.max_clock_mhz.reason
    assert cpu.caches.reason
    roots = unpack("epyc-masked-cgroup-v2", tmp_path / "vm")
    text = (roots.proc / "cpuinfo").read_text()
    (roots.proc / "cpuinfo").write_text(text.replace("flags\t\t: ", "flags\t\t: hypervisor "))
    assert identify_cpu(roots).base_clock_mhz.reason == "not visible inside a virtual machine"


def test_the_nominal_clock_of_amds_driver_is_the_base(tmp_path: Path) -> None:
    roots = unpack("wsl-ryzen", tmp_path)
    put(roots, "cpu0/acpi_cppc/nominal_freq", "3700")
    assert identify_cpu(roots).base_clock_mhz.value == 3700


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16 amx_tile amx_bf16",
         ("AVX", "AVX2", "AVX-512", "AVX-512 BF16", "AMX")),
        ("avx avx2", ("AVX",)),  # PyTorch's AVX2 kernels need FMA, too
        ("sse4_2", ()),
    ],
)  # fmt: skip
def test_vector_instructions(tmp_path: Path, flags: str, expected: tuple[str, ...]) -> None:
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    roots.proc.mkdir()
    (roots.proc / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {flags}\n")
    assert identify_cpu(roots).vector_instructions.value == expected


def test_arm_has_its_own_instructions(tmp_path: Path) -> None:
    roots = unpack("aarch64-nameless", tmp_path)
    cpu = identify_cpu(roots)
    assert cpu.vector_instructions.value == ("NEON",)
    assert cpu.generation.value == "Armv8.2"
    text = (roots.proc / "cpuinfo").read_text()
    (roots.proc / "cpuinfo").write_text(text.replace("asimd evtstrm", "asimd sve bf16 evtstrm"))
    assert identify_cpu(roots).vector_instructions.value == ("NEON", "BF16", "SVE")


def test_a_mac() -> None:
    answers = {
        "machdep.cpu.brand_string": "Apple M2 Pro", "hw.physicalcpu": "10", "hw.logicalcpu": "10",
        "hw.optional.neon": "1", "hw.optional.arm.FEAT_BF16": "1", "hw.packages": "1",
        "hw.perflevel0.l1dcachesize": "131072", "hw.l2cachesize": "4194304",
    }  # fmt: skip
    cpu = identify_by_sysctl(lambda name: answers.get(name, ""))
    assert cpu.generation.value == "2nd generation Apple silicon"
    assert cpu.vector_instructions.value == ("NEON", "BF16")
    assert cpu.caches.value == (Cache(1, "data", 131072, 1), Cache(2, "unified", 4194304, 1))
    assert cpu.max_clock_mhz.reason


def test_256_threads_in_two_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    roots.proc.mkdir()
    block = "processor\t: {0}\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC 9745\nstepping\t: 1\nflags\t\t: avx avx2 fma\n"
    (roots.proc / "cpuinfo").write_text("\n".join(block.format(number) for number in range(256)))
    for number in range(256):
        put(roots, f"cpu{number}/topology/physical_package_id", str(number // 64 % 2))
        put(roots, f"cpu{number}/topology/thread_siblings_list", f"{number % 128},{number % 128 + 128}")
    monkeypatch.setattr(limits, "affinity_cpus", lambda: tuple(range(256)))
    machine = identify(roots)
    assert (machine.cpu.sockets.value, machine.cpu.cores.value, machine.cpu.threads) == (2, 128, 256)
    assert (machine.usable_cpus, machine.usable_cpus_reason) == (256, "")
    assert (machine.cpu.microarchitecture.value, machine.cpu.generation.value) == ("Zen 5", "5th generation EPYC")


# --- what it is good for ----------------------------------------------------------------------------------


def test_the_meaning_of_a_processor() -> None:
    machine = a_machine()
    assert cpu_meaning(machine) == (
        "2 CPUs, 24 GiB: good for tables and small networks; CNNs are slow; "
        "it can run a 7 B model in 16 bit (13 GiB) but not train it (100 GiB)"
    )
    one = a_machine(usable_cpus=1, usable_memory_bytes=4 * GIB)
    assert cpu_meaning(one).startswith("1 CPU, 4 GiB: ")
    assert cpu_meaning(one).endswith("a 7 B model does not fit")
    many = a_machine(usable_cpus=168, usable_memory_bytes=188 * GIB)
    assert "many times faster on a GPU" in cpu_meaning(many)


def test_instructions_are_part_of_the_meaning(tmp_path: Path) -> None:
    cpu = identify_cpu(unpack("epyc-masked-cgroup-v2", tmp_path))
    assert cpu_meaning(a_machine(cpu=cpu)).startswith("2 CPUs with AVX2, ")


# --- containers -------------------------------------------------------------------------------------------


def test_containers_are_recognized_by_their_marks(tmp_path: Path) -> None:
    roots = unpack("xeon-docker-cgroup-v1", tmp_path)
    assert container(roots, tmp_path) == "docker"
    assert container(unpack("wsl-ryzen", tmp_path / "wsl"), tmp_path / "wsl") == ""
    (tmp_path / "wsl/run").mkdir()
    (tmp_path / "wsl/run/.containerenv").touch()
    assert container(unpack("wsl-ryzen", tmp_path / "wsl"), tmp_path / "wsl") == "podman"
    (tmp_path / "wsl/.dockerenv").touch()
    assert container(unpack("wsl-ryzen", tmp_path / "wsl"), tmp_path / "wsl") == "docker"
    other = Roots(tmp_path / "k8s/proc", tmp_path / "k8s/sys")
    (other.proc / "self").mkdir(parents=True)
    (other.proc / "self/cgroup").write_text("0::/kubepods.slice/kubepods-pod1.slice/cri-1.scope\n")
    assert container(other, tmp_path / "k8s") == "kubernetes"
    (other.proc / "self/cgroup").write_text("0::/\n")
    (other.proc / "self/mountinfo").write_text("24 1 0:22 / / rw - overlay overlay rw\n")
    assert container(other, tmp_path / "k8s") == "container"


# --- the bus ----------------------------------------------------------------------------------------------


def device(roots: Roots, address: str, vendor: str, kind: str) -> None:
    folder = roots.sys / "bus/pci/devices" / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def identified(roots: Roots, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Why there is no NVIDIA GPU, and whose GPUs there are, on a machine without a driver."""
    from epochtop.engine.hardware import machine as module
    from epochtop.engine.hardware.gpu.watchdog import GpuInventory

    class NoDriver:
        def identify(self, patience_s: float) -> GpuInventory:
            reason = "no NVIDIA driver found"
            return GpuInventory(reason=reason, driver_version=Fact(reason=reason), cuda_version=Fact(reason=reason))

    monkeypatch.setattr(module, "container", lambda roots: container(roots, root))
    machine = identify(roots, watch=NoDriver())  # type: ignore[arg-type]
    return machine.no_gpu_reason, [other.vendor for other in machine.other_gpus]


def test_the_pci_bus_decides_which_remedy_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = unpack("alder-lake-hybrid", tmp_path / "a")
    assert identified(plain, tmp_path / "a", monkeypatch) == ("no NVIDIA driver found", [])
    device(plain, "0000:00:1f.0", "0x8086", "0x060100")  # no display
    device(plain, "0000:04:00.0", "0x1a03", "0x030000")  # a server's management chip
    device(plain, "0000:03:00.0", "0x1002", "0x030000")
    assert identified(plain, tmp_path / "a", monkeypatch) == ("no NVIDIA driver found", ["AMD"])
    device(plain, "0000:01:00.0", "0x10de", "0x030200")
    reason, others = identified(plain, tmp_path / "a", monkeypatch)
    assert reason == "no NVIDIA driver found, but the PCI bus has an NVIDIA GPU: install the driver"
    assert others == ["NVIDIA", "AMD"]
    inside = unpack("xeon-docker-cgroup-v1", tmp_path / "b")
    device(inside, "0000:01:00.0", "0x10de", "0x030200")
    assert "start it with --gpus all" in identified(inside, tmp_path / "b", monkeypatch)[0]
    windows = unpack("wsl-ryzen", tmp_path / "c")
    assert "Windows driver" in identified(windows, tmp_path / "c", monkeypatch)[0]
