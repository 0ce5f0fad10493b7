"""What GPU names are read to say, against a list written card by card."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.hardware import Fact, Gpu, GpuName, MigDevice, gpu_meaning
from epochtop.engine.hardware.gpu.names import read_name

LINES = (Path(__file__).parents[1] / "fixtures" / "gpu_names.txt").read_text().splitlines()
CARDS = [line.split("|") for line in LINES if not line.startswith("#")]
GIB = 1 << 30


def test_the_list_is_long_and_names_nothing_twice() -> None:
    names = [card[0] for card in CARDS]
    assert len(names) >= 120
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[0])
def test_a_product_name(card: list[str]) -> None:
    name, generation, architecture, tier, suffix, market = card
    read = read_name(name)
    assert (read.generation, read.architecture, read.tier, read.market) == (generation, architecture, tier, market)
    assert set(read.suffix) == set(filter(None, suffix.split(",")))


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 6090",
        "NVIDIA GeForce RTX 50900",
        "NVIDIA GeForce RTX 4095 X",
        "NVIDIA H300",
        "NVIDIA A1000 Something",
        "NVIDIA L400",
        "NVIDIA CMP 95HX",
        "NVIDIA P107-100",
        "NVIDIA RTX 6000E",
        "NVIDIA L20Y",
        "NVIDIA L2000",
        "GRID K3",
        "NVIDIA PG999-100",
        "NVIDIA A40-8X",
        "NVIDIA A41-8Q",
        "NVIDIA H100XZ-80C",
        "NVIDIA RTXA7000-24Q",
        "NVIDIA A40-0Q",
        "GeForce GTX 670M",
        "GeForce GT 730",
        "AMD Instinct MI300X",
        "Graphics Device",
        "",
    ],
)
def test_an_unknown_name_is_not_in_the_table(name: str) -> None:
    assert read_name(name) == GpuName()


FIXTURES = Path(__file__).parents[1] / "fixtures"
CHIPS = [line.split("|") for line in (FIXTURES / "gpu_chips.txt").read_text().splitlines() if not line.startswith("#")]
VGPUS = [line.split("|") for line in (FIXTURES / "vgpu_names.txt").read_text().splitlines() if not line.startswith("#")]
ARCHITECTURES = {
    "GF": "Fermi", "GK": "Kepler", "GM": "Maxwell", "GP": "Pascal", "GV": "Volta", "TU": "Turing", "GA": "Ampere",
    "AD": "Ada Lovelace", "GH": "Hopper", "GB": "Blackwell",
}  # fmt: skip


def test_every_real_board_is_right_or_unknown() -> None:
    assert len(CHIPS) > 400
    wrong, known = [], 0
    for name, chips in CHIPS:
        read = read_name(f"NVIDIA {name}")
        known += read.is_known
        lacks_tensor_cores = "GTX 16" in name or all(chip.startswith(("TU116", "TU117")) for chip in chips.split(","))
        if read.is_known and read.architecture != ARCHITECTURES[chips[:2]]:
            wrong.append((name, chips, read.architecture))
        elif read.architecture == "Turing" and (read.has_tensor_cores is False) != lacks_tensor_cores:
            wrong.append((name, chips, read.has_tensor_cores))
    assert wrong == []
    assert known > 350


def test_every_vgpu_of_the_drivers_list_follows_the_rule() -> None:
    names = [
        (f"{board}-{profile}", profile, architecture)
        for board, architecture, profiles in VGPUS
        for profile in profiles.split()
    ]
    assert len(names) > 1000
    for name, profile, architecture in names:
        read = read_name(name)
        assert (read.architecture, read.suffix) == (architecture, ("vGPU",)), name
        series = next((letter for letter in "ABCQ" if letter in profile), None)
        assert read.vgpu_series == series, name
        assert read.has_cuda == (series not in ("A", "B") and (architecture != "Maxwell" or profile == "8Q")), name


@pytest.mark.parametrize("series", ["Q", "C", "A", "B", "B4", "CME", ""])
@pytest.mark.parametrize("slices", ["", "-1", "-7"])
@pytest.mark.parametrize("board", ["NVIDIA L40S", "GRID T4", "NVIDIA H100XM", "NVIDIA RTX Pro 4500 Blackwell DC"])
def test_generated_vgpus(board: str, slices: str, series: str) -> None:
    read = read_name(f"{board}{slices}-12{series}")
    assert "vGPU" in read.suffix
    assert read.is_known
    assert read_name(f"{board}{slices}-12{series} MIG 1g.12gb").suffix == ("vGPU", "MIG")
    assert read_name(f"{board}{slices}-12{series}X") == GpuName()  # the rule ends where the name does


@pytest.mark.parametrize("name", ["NVIDIA P106-100", "NVIDIA P104-100", "NVIDIA A100-PG509-200", "NVIDIA PG509-210",
    "NVIDIA H20-3e", "Tesla V100-SXM2-16GB", "Tesla P100-PCIE-16GB", "NVIDIA A100-SXM4-40GB", "GRID K520", "GRID K2",
    "NVIDIA CMP 100-210", "NVIDIA DRIVE-PG199-PROD"])  # fmt: skip
def test_cards_with_a_hyphen_are_not_vgpus(name: str) -> None:
    read = read_name(name)
    assert read.is_known
    assert "vGPU" not in read.suffix


@pytest.mark.parametrize(
    ("name", "architecture", "tier", "market"),
    [
        ("NVIDIA L20X", "Hopper", None, "data center"),
        ("NVIDIA L20", "Ada Lovelace", "upper middle", "data center"),
        ("NVIDIA L40G", "Ada Lovelace", "high end", "data center"),
        ("NVIDIA RTX 6000D", "Blackwell", "high end", "data center"),
        ("NVIDIA RTX 2000E Ada Generation", "Ada Lovelace", "mainstream", "workstation"),
        ("NVIDIA RTX PRO 4500 Blackwell Server Edition", "Blackwell", "upper middle", "data center"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "Blackwell", "high end", "data center"),
        ("NVIDIA PG506-232", "Ampere", None, "data center"),
        ("NVIDIA CMP 50HX", "Turing", None, "mining"),
        ("NVIDIA P104-101", "Pascal", None, "mining"),
        ("Tesla T40 24GB", "Turing", "high end", "data center"),
        ("GeForce GTX TITAN Z", "Kepler", "flagship", "consumer"),
        ("Quadro M520", "Maxwell", "entry", "workstation"),
        ("GeForce 930MX", "Maxwell", "entry", "consumer"),
        ("GeForce GTX 690", "Kepler", "flagship", "consumer"),
        ("GeForce GTX 780M", "Kepler", "high end", "consumer"),
    ],
)
def test_cards_that_were_missing(name: str, architecture: str, tier: str | None, market: str) -> None:
    read = read_name(name)
    assert (read.architecture, read.tier, read.market) == (architecture, tier, market)


@pytest.mark.parametrize("name", ["NVIDIA T600", "NVIDIA T1200 Laptop GPU", "Quadro T1000 with Max-Q Design",
    "NVIDIA GeForce MX550", "NVIDIA GeForce GTX 1630", "NVIDIA T400E", "NVIDIA T500", "NVIDIA GeForce GTX 1650 Ti",
    "NVIDIA T550 Laptop GPU", "NVIDIA GeForce GTX 1660 SUPER"])  # fmt: skip
def test_turing_without_tensor_cores(name: str) -> None:
    assert "no tensor cores" in gpu_meaning(a_card(name, 4, compute_capability=Fact("7.5")))


def test_a_vgpu_without_cuda_is_good_for_no_job() -> None:
    assert "no job runs on it" in gpu_meaning(a_card("NVIDIA A16-2B", 2))
    assert "no job runs on it" in gpu_meaning(a_card("GRID M10-8A", 8))
    assert "no job runs on it" in gpu_meaning(a_card("GRID M60-4Q", 4))
    assert "trains CNNs" in gpu_meaning(a_card("GRID M60-8Q", 8))
    assert "trains CNNs" in gpu_meaning(a_card("NVIDIA A40-24Q", 24))


def test_a_gpu_with_mig_is_judged_by_its_largest_instance() -> None:
    parts = tuple(
        MigDevice(name=Fact(""), uuid=Fact(""), memory_bytes=Fact(gib * GIB), multiprocessors=Fact(1))
        for gib in (5, 10)
    )
    meaning = gpu_meaning(a_card("NVIDIA A100-SXM4-80GB", 80, mig=True, mig_devices=Fact(parts)))
    assert "10 GiB in the largest MIG instance: " in meaning
    assert "a 7 B model does not fit" in meaning
    assert "no job runs on it" in gpu_meaning(a_card("NVIDIA A100-SXM4-80GB", 80, mig=True, mig_devices=Fact(())))


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GH200 480GB", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 3090", "NVIDIA Unheard Of", "NVIDIA GB200",
     "NVIDIA GB300", "NVIDIA L40S", "Tesla T4", "NVIDIA A100-SXM4-40GB", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
     "NVIDIA H200 NVL", "Quadro P2000"],
)  # fmt: skip
def test_a_card_of_unknown_memory_is_not_given_the_systems(name: str) -> None:
    meaning = gpu_meaning(a_card(name, None), system_memory_bytes=119 * GIB)
    assert "its memory size is unknown" in meaning
    assert "119" not in meaning


@pytest.mark.parametrize("name", ["Orin (nvgpu)", "Xavier", "NVIDIA Thor", "NVIDIA Tegra X1", "Jetson AGX Orin",
    "NVIDIA Jetson AGX Thor", "Jetson TX2", "NVIDIA Tegra X2", "NVIDIA GB10", "Jetson Nano"])  # fmt: skip
def test_chips_that_share_the_systems_memory(name: str) -> None:
    assert "61 GiB shared with the system" in gpu_meaning(a_card(name, None), system_memory_bytes=61 * GIB)


def a_card(name: str, gib: float | None, **facts: object) -> Gpu:
    memory = Fact(int(gib * GIB)) if gib is not None else Fact[int](reason="shares the system's memory")
    defaults: dict[str, object] = {
        "reading": read_name(name),
        "name": Fact(name),
        "uuid": Fact("GPU-0"),
        "memory_bytes": memory,
    }
    return Gpu(index=0, **(defaults | facts))  # type: ignore[arg-type]


def test_the_meaning_of_a_laptops_card() -> None:
    meaning = gpu_meaning(a_card("NVIDIA GeForce RTX 4070 Laptop GPU", 7.996, compute_capability=Fact("8.9")))
    assert meaning == (
        "RTX 4070 Laptop: 40th generation (Ada), upper middle, 8 GiB: "
        "trains CNNs and small transformers; a 7 B model does not fit"
    )


def test_jobs_that_fit_into_memory_are_computed() -> None:
    # 6,738,415,616 parameters: 2 bytes each to run, 4 + 4 + 8 each to train with Adam in float32
    assert "it can run a 7 B model in 16 bit (13 GiB) but not train it (100 GiB)" in gpu_meaning(
        a_card("NVIDIA A10", 22)
    )
    assert "it can train a 7 B model (100 GiB" in gpu_meaning(a_card("NVIDIA H200", 139.8))
    assert "a 7 B model does not fit" in gpu_meaning(a_card("NVIDIA GeForce RTX 3060", 12))
    assert "trains CNNs; a 7 B" in gpu_meaning(a_card("NVIDIA GeForce MX450", 2))  # GPT-2 needs 3.7 GiB with room


def test_data_center_cards_name_their_market() -> None:
    assert gpu_meaning(a_card("NVIDIA H200", 139.8)).startswith(
        "H200: Hopper generation, flagship, data center, 140 GiB: "
    )


def test_cards_without_tensor_cores_are_described_so() -> None:
    assert "no tensor cores" in gpu_meaning(a_card("NVIDIA GeForce GTX 1660", 6, compute_capability=Fact("7.5")))
    assert "no tensor cores" in gpu_meaning(a_card("NVIDIA GeForce GTX 1080", 8, compute_capability=Fact("6.1")))
    assert "no tensor" not in gpu_meaning(a_card("NVIDIA GeForce RTX 2060", 6, compute_capability=Fact("7.5")))


def test_an_unknown_card_keeps_the_facts_from_the_driver() -> None:
    card = a_card("NVIDIA H300", 200, architecture=Fact("Rubin"), compute_capability=Fact("13.0"))
    assert gpu_meaning(card).startswith("H300: Rubin, name not in the table, 200 GiB: ")
    card = a_card("NVIDIA H300", 200, architecture=Fact(reason="too old"), compute_capability=Fact("13.0"))
    assert "compute capability 13.0, name not in the table" in gpu_meaning(card)


def test_a_card_that_shares_memory_is_judged_by_the_systems() -> None:
    meaning = gpu_meaning(a_card("NVIDIA GB10", None), system_memory_bytes=119 * GIB)
    assert "119 GiB shared with the system" in meaning
    assert "can train a 7 B model" in meaning
    assert "its memory size is unknown" in gpu_meaning(a_card("NVIDIA GB10", None))
