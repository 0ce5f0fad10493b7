"""TensorBoard event files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from epochtop.formats.records import Restart
from epochtop.formats.scan import find_logs
from epochtop.formats.tensorboard import TensorBoardFollower, recognize
from tests.formats import writers
from tests.formats.writers import TIME, Read, losses, message, scalar_event, single, tensor_event, tensorboard, tfrecord

FILE = "events.out.tfevents.1790000000.host.1.0"


def read(folder: Path, content: bytes) -> Read:
    (folder / FILE).write_bytes(content)
    return Read(TensorBoardFollower(folder))


def test_every_value_has_its_step_and_wall_time(tmp_path: Path) -> None:
    result = read(tmp_path, tensorboard(losses(300)))
    assert result.series == {"train/loss": {step: single(1 / (step + 1)) for step in range(300)}}
    assert result.times["train/loss"] == {step: TIME + step for step in range(300)}
    assert result.follower.damaged == 0


@pytest.mark.parametrize("step", [0, 1, 127, 128, 16_383, 16_384, 2**31, 2**62, -5])
def test_steps_of_any_size(tmp_path: Path, step: int) -> None:
    events = [*losses(3, "other"), scalar_event(step, "x", 0.5)]
    assert read(tmp_path, tensorboard(events)).series["x"] == {step: 0.5}


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 3e38, 1e-45, 0.0, -0.0])
def test_values_that_are_out_of_the_ordinary(tmp_path: Path, value: float) -> None:
    events = [*losses(5), scalar_event(5, "train/loss", value)]
    assert read(tmp_path, tensorboard(events)).series["train/loss"][5] == single(value)


def test_nan_is_a_value(tmp_path: Path) -> None:
    events = [*losses(5), scalar_event(5, "train/loss", float("nan")), scalar_event(6, "train/loss", 1.0)]
    series = read(tmp_path, tensorboard(events)).series["train/loss"]
    assert series[5] != series[5]
    assert series[6] == 1.0


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        pytest.param(message((1, 1), (2, b""), (4, struct.pack("<f", 2.5))), 2.5, id="float in tensor_content"),
        pytest.param(message((1, 1), (2, b""), (5, struct.pack("<f", 2.5))), 2.5, id="packed float_val"),
        pytest.param(message((1, 1), (2, b""), (5, ("f", 2.5))), 2.5, id="unpacked float_val"),
        pytest.param(message((1, 2), (2, b""), (6, struct.pack("<d", 0.1))), 0.1, id="double_val"),
        pytest.param(message((1, 2), (4, struct.pack("<d", 0.1))), 0.1, id="double in tensor_content"),
        pytest.param(message((1, 3), (7, writers.varint(-3))), -3.0, id="int_val"),
        pytest.param(message((1, 9), (4, struct.pack("<q", 1 << 40))), float(1 << 40), id="int64 in tensor_content"),
        pytest.param(message((1, 10), (11, b"\x01")), 1.0, id="bool_val"),
        pytest.param(message((1, 19), (4, struct.pack("<e", 1.5))), 1.5, id="half in tensor_content"),
        pytest.param(message((1, 19), (13, writers.varint(0x3E00))), 1.5, id="half_val"),
        pytest.param(message((1, 14), (4, b"\xc0\x3f")), 1.5, id="bfloat16 in tensor_content"),
    ],
)
def test_tensors_without_dimensions_are_values(tmp_path: Path, tensor: bytes, value: float) -> None:
    events = [tensor_event(step, "loss", tensor) for step in range(1, 4)]
    assert read(tmp_path, tensorboard(events)).series == {"loss": dict.fromkeys((1, 2, 3), value)}


def test_tensors_of_other_plugins_and_shapes_are_not_values(tmp_path: Path) -> None:
    vector = message((1, 1), (2, message((2, message((1, 2))))), (4, struct.pack("<2f", 1, 2)))
    number = message((1, 1), (4, struct.pack("<f", 1)))
    text = message((1, 7), (8, "hello"))
    events = [
        tensor_event(1, "vector", vector),
        tensor_event(1, "histogram", number, "histograms"),
        tensor_event(1, "text", text),
    ]
    assert read(tmp_path, tensorboard([*events, *losses(2)])).series.keys() == {"train/loss"}


def test_one_event_with_several_values(tmp_path: Path) -> None:
    values = [(1, message((1, name), (2, ("f", value)))) for name, value in (("a", 1.0), ("b", 2.0))]
    events = [message((1, TIME), (2, step), (5, message(*values))) for step in (1, 2)]
    assert read(tmp_path, tensorboard(events)).series == {"a": {1: 1.0, 2: 1.0}, "b": {1: 2.0, 2: 2.0}}


def settings_event(**settings: float) -> bytes:
    """What the hparams plugin stores at the start of a session."""
    entries = [(1, message((1, name), (2, message((2, value))))) for name, value in settings.items()]
    plugin = message((1, "hparams"), (2, message((3, message(*entries)))))
    value = message((1, "_hparams_/session_start_info"), (9, message((1, plugin))))
    return message((1, TIME), (5, message((1, value))))


def test_hyperparameters_are_the_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, tensorboard([settings_event(lr=0.1, seed=3.0), *losses(1)])).config == {"lr": 0.1, "seed": 3}


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.1), (0.1, 0.2)])
def test_folders_with_settings_are_part_of_the_run_unless_they_differ(tmp_path: Path, rates: tuple[float, ...]) -> None:
    """`add_hparams` makes one folder per call, below that of the writer, with the results it names at step 0."""
    (tmp_path / FILE).write_bytes(tensorboard(losses(5)))
    for number, rate in enumerate(rates):
        folder = tmp_path / str(number)
        folder.mkdir()
        results = [scalar_event(0, "train/loss", 9.0), scalar_event(0, "best", 0.5)]
        (folder / FILE).write_bytes(tensorboard([settings_event(lr=rate), *results]))
    logs = find_logs(tmp_path).logs
    if len(set(rates)) > 1:
        assert [log.path for log in logs] == [tmp_path, tmp_path / "0", tmp_path / "1"]
        return
    (log,) = logs
    result = Read(log.follow())
    assert result.config == {"lr": 0.1}
    assert result.series == {"train/loss": {step: single(1 / (step + 1)) for step in range(5)}, "best": {0: 0.5}}


# --- restarts and several files --------------------------------------------------------------------------------


def test_a_step_that_goes_back_discards_later_steps_of_its_series(tmp_path: Path) -> None:
    events = [*losses(10), *losses(10, "other"), scalar_event(4, "train/loss", 9.0), scalar_event(5, "train/loss", 8.0)]
    result = read(tmp_path, tensorboard(events))
    assert list(result.series["train/loss"]) == [0, 1, 2, 3, 4, 5]
    assert result.series["train/loss"][4] == 9.0
    assert len(result.series["other"]) == 10
    assert result.restarts == [Restart(4, "train/loss")]


def test_a_session_that_starts_at_a_step_discards_later_steps_of_all_series(tmp_path: Path) -> None:
    start = message((1, TIME), (2, 4), (7, message((1, 1))))
    (tmp_path / FILE).write_bytes(tensorboard([*losses(10), *losses(10, "other")]))
    (tmp_path / FILE.replace("00.host", "99.host")).write_bytes(tensorboard([start, scalar_event(4, "other", 9.0)]))
    result = Read(TensorBoardFollower(tmp_path))
    assert list(result.series["train/loss"]) == [0, 1, 2, 3]
    assert list(result.series["other"]) == [0, 1, 2, 3, 4]


def test_a_file_that_appears_later_continues_the_run(tmp_path: Path) -> None:
    result = read(tmp_path, tensorboard(losses(5)))
    later = tmp_path / FILE.replace("00.host", "99.host")
    later.write_bytes(b"")
    assert result.more().series["train/loss"].keys() == set(range(5))
    later.write_bytes(tensorboard([scalar_event(5, "train/loss", 0.25)]))
    assert result.more().series["train/loss"][5] == 0.25


# --- growing and damaged files ---------------------------------------------------------------------------------


def test_a_file_cut_at_any_byte_continues_without_a_loss(tmp_path: Path) -> None:
    content = tensorboard(losses(4))
    complete = {step: single(1 / (step + 1)) for step in range(4)}
    for cut in range(len(content)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        result = read(folder, content[:cut])
        before = result.series.get("train/loss", {})
        assert before == {step: complete[step] for step in before}
        with open(folder / FILE, "ab") as file:
            file.write(content[cut:])
        assert result.more().series == {"train/loss": complete}, cut
        assert result.values == 4
        assert result.follower.damaged == 0


@pytest.mark.parametrize("place", [4, 8, 14, 30, -2])
def test_a_damaged_record_costs_that_record_only(tmp_path: Path, place: int) -> None:
    records = [tfrecord(event) for event in losses(50)]
    damaged = bytearray(records[20])
    damaged[place] ^= 0x40
    content = tensorboard([]) + b"".join([*records[:20], bytes(damaged), *records[21:]])
    result = read(tmp_path, content)
    values = dict(result.series["train/loss"])
    values.pop(20, None)
    assert values == {step: single(1 / (step + 1)) for step in range(50) if step != 20}


def test_damage_of_known_bytes_is_always_counted(tmp_path: Path) -> None:
    """A flipped bit of the name of the series, of the length or of its checksum never yields a value."""
    records = [tfrecord(event) for event in losses(50)]
    name = records[20].index(b"train/loss")
    for place in (0, 5, 9, name, name + 9):
        damaged = bytearray(records[20])
        damaged[place] ^= 0x01
        folder = tmp_path / str(place)
        folder.mkdir()
        result = read(folder, tensorboard([]) + b"".join([*records[:20], bytes(damaged), *records[21:]]))
        assert result.series.keys() == {"train/loss"}
        assert result.values == 49
        assert result.follower.damaged == 1


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**31])
def test_an_impossible_length_is_damage(tmp_path: Path, length: int) -> None:
    content = tensorboard(losses(3)) + tfrecord(b"x", length) + b"".join(map(tfrecord, losses(2, "after")))
    result = read(tmp_path, content)
    assert result.series.keys() == {"train/loss", "after"}
    assert result.follower.damaged == 1


def test_a_long_record_is_skipped_unread(tmp_path: Path) -> None:
    image = message((1, TIME), (4, b"\0" * (5 << 20)))
    header = tfrecord(image[:0], len(image))[:12]  # its own checksum is never looked at
    content = tensorboard(losses(2)) + header + image + b"\0\0\0\0" + tfrecord(scalar_event(2, "train/loss", 0.5))
    result = read(tmp_path, content)
    assert result.series["train/loss"][2] == 0.5
    assert result.follower.damaged == 0


def test_the_end_of_a_long_file_is_enough_for_its_last_values(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(tensorboard(losses(2_000)))
    result = Read(TensorBoardFollower(tmp_path, last_bytes=4096))
    assert result.series["train/loss"][1_999] == single(1 / 2_000)
    assert 20 < result.values < 200
    assert min(result.times["train/loss"].values()) == TIME


def test_other_files_are_not_recognized(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert recognize(path, tensorboard(losses(1))[:512])
    assert not recognize(path, tfrecord(b"an example of a dataset, not an event")[:512])
    assert not recognize(path, b"step,loss\n0,1\n" * 10)
    assert not recognize(path, b"")
