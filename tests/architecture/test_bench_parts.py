"""The command line of the benchmarks: parts, and the device of one of them."""

from __future__ import annotations

import pytest

from tests.bench import __main__ as bench


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the parts were called with."""
    calls: list[tuple[object, ...]] = []

    def part(name: str) -> object:
        return lambda *devices: calls.append((name, *devices))

    monkeypatch.setattr(bench, "PARTS", {name: part(name) for name in bench.PARTS})
    monkeypatch.setattr(bench, "machine", lambda: "")
    return calls


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cpu"])
def test_the_iris_part_takes_a_device(device: str, called: list[tuple[object, ...]]) -> None:
    """It was taken for another part, so a GPU could not be measured."""
    assert bench.main(["iris", device]) == 0
    assert called == [("iris", device)]


def test_all_parts_run_by_default(called: list[tuple[object, ...]]) -> None:
    assert bench.main([]) == 0
    assert [name for (name,) in called] == [name for name in bench.PARTS if name != bench.IN_APP]  # type: ignore[misc]


@pytest.mark.parametrize("names", [["nonsense"], ["iris", "cuda", "cpu"], ["loop", "cuda"], ["cuda"]])
def test_other_names_are_refused(names: list[str], called: list[tuple[object, ...]]) -> None:
    assert bench.main(names) == 2
    assert called == []
