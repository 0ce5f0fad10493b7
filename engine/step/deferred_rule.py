"""A placeholder for the update rule of a job whose weights are not sharded yet."""

from __future__ import annotations

from epochtop.engine.step.update_rules import RuleState, Tensors, UpdateRule


class DeferredRule(UpdateRule):
    """Carries the optimizer state of a checkpoint until there are shards; cannot take a step."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._state: RuleState = {}

    def __call__(self, gradients: Tensors) -> None:
        raise AssertionError("the weights are not sharded yet")

    def state_dict(self) -> RuleState:
        return self._state

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        self._state = state
