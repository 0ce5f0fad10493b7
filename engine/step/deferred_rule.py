"""The update rule of a job whose weights are not sharded yet."""

from __future__ import annotations

from epochtop.engine.step.update_rules import RuleState, Tensors, UpdateRule


class DeferredRule(UpdateRule):
    """Stands for the update until there are shards: carries what a checkpoint has of it, and no memory of its own."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._memory: RuleState = {}

    def __call__(self, gradients: Tensors) -> None:
        raise AssertionError("the weights are not sharded yet")

    def state_dict(self) -> RuleState:
        return self._memory

    def load_state_dict(self, memory: RuleState, steps: int) -> None:
        self._memory = memory
