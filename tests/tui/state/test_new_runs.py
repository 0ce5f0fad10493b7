"""Which runs count as new while no run is open."""

from __future__ import annotations

from epochtop.engine.runs.index import RunSummary, State
from epochtop.tui.state.new_runs import NewRuns

OPENED_AT = 100.0


def run(name: str, state: State = "running", created: float = 50.0) -> RunSummary:
    return RunSummary(id=name, state=state, created=created)


def test_the_newest_run_that_begins_counts_until_it_has_ended() -> None:
    new = NewRuns(OPENED_AT)
    assert new.look([run("old")], is_empty=True) == ""
    assert new.look([run("old"), run("a", created=120), run("done", "finished", 130)], is_empty=True) == "a"
    assert new.look([run("old"), run("a", created=120), run("b", "paused", 121)], is_empty=True) == "b"
    assert new.look([run("old"), run("a", created=120), run("b", "failed", 121)], is_empty=True) == "a"
    assert new.look([run("old"), run("a", "finished", 120)], is_empty=True) == ""


def test_a_run_that_began_before_the_first_list_counts_if_the_app_was_open() -> None:
    assert NewRuns(OPENED_AT).look([run("old"), run("a", created=101)], is_empty=True) == "a"


def test_a_run_that_is_resumed_counts() -> None:
    new = NewRuns(OPENED_AT)
    assert new.look([run("old", "stopped")], is_empty=True) == ""
    assert new.look([run("old")], is_empty=True) == "old"


def test_nothing_counts_that_began_while_a_run_was_open() -> None:
    new = NewRuns(OPENED_AT)
    assert new.look([], is_empty=True) == ""
    assert new.look([run("a", created=120)], is_empty=False) == ""
    assert new.look([run("a", created=120)], is_empty=True) == ""
