"""Rules for every experiment."""

from __future__ import annotations

import pytest

from epochtop.engine.lab.catalog import NAMES, experiments, find
from epochtop.engine.lab.experiment import Experiment, Findings
from epochtop.engine.lab.experiments import measurement_of
from epochtop.engine.protocol.fields import fields
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.architecture.test_imports import HEAVY, SCREEN, loaded

ALL = pytest.mark.parametrize("experiment", experiments(), ids=lambda experiment: experiment.name)


def test_they_are_listed_by_the_names_of_their_files() -> None:
    assert tuple(experiment.name for experiment in experiments()) == NAMES
    assert find("reads").name == "reads"
    with pytest.raises(Invalid, match="there is no experiment"):
        find("rates")


def test_listing_them_imports_nothing_they_measure_with() -> None:
    everything = loaded("from epochtop.engine.lab.catalog import experiments; experiments()")
    assert not everything & (HEAVY | SCREEN)


def test_verdicts_import_nothing_they_measure_with() -> None:
    everything = loaded(
        "from epochtop.engine.lab.catalog import experiments; from epochtop.engine.lab.experiment import Findings\n"
        "for experiment in experiments(): experiment.conclude(Findings([], experiment.fields()))"
    )
    assert not everything & (HEAVY | SCREEN)


@ALL
def test_its_measurement_is_in_its_package(experiment: Experiment) -> None:
    assert callable(measurement_of(experiment.name))


@ALL
def test_its_pictures_show_columns_of_its_rows(experiment: Experiment) -> None:
    columns = {str(kind.__struct_config__.tag): {"kind", *kind.__struct_encode_fields__} for kind in experiment.kinds}
    for picture in experiment.pictures:
        kind = picture.where.get("kind")
        drawn = [columns[kind]] if kind else [names for names in columns.values() if picture.y in names]
        assert drawn
        for names in drawn:
            assert {picture.x, picture.y, *picture.series, *picture.columns} - {""} <= names


@ALL
def test_it_says_what_it_measures_why_and_how_to_read_it(experiment: Experiment) -> None:
    for text in (experiment.title, experiment.measures, experiment.why, experiment.reading):
        assert len(text) > 15
        assert not text.endswith(".")  # they are parts of sentences that others put together


@ALL
def test_its_own_fields_are_declared_and_are_not_fields_of_a_run(experiment: Experiment) -> None:
    own = fields(experiment.fields)
    assert all(field.description for field in own)
    assert not {field.name for field in own} & {field.name for field in fields(RunSpec)}
    assert not {field.name for field in own} & {"quick", "json"}


@ALL
def test_its_pictures_say_what_is_drawn(experiment: Experiment) -> None:
    assert experiment.pictures
    for picture in experiment.pictures:
        assert picture.title
        assert picture.columns if picture.kind == "table" else picture.y
        assert picture.kind != "lines" or picture.x


@ALL
def test_nothing_measured_is_a_verdict_that_claims_nothing(experiment: Experiment) -> None:
    verdict = experiment.conclude(Findings([], experiment.fields(), experiment.job or RunSpec()))
    assert verdict.finding
    assert verdict.next_step
    assert verdict.uncertainty
    assert verdict.setting == {}
