"""What GPU names are read to say, against a list written card by card."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.hardware import Fact, Gpu, GpuName, gpu_meaning
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
        "NVIDIA PG506-232",
        "NVIDIA CMP 90HX",
        "AMD Instinct MI300X",
        "Graphics Device",
        "",
    ],
)
def test_an_unknown_name_is_not_in_the_table(name: str) -> None:
    assert read_name(name) == GpuName()


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
