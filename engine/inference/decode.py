"""A model's output in the words of its data: names of classes with their probabilities, or numbers in the raw unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from epochtop.engine.inference.trained_model import Trained
from epochtop.engine.protocol.spec import Invalid

PREDICTION = "prediction"
TWO_CLASSES = ("binary_cross_entropy", "binary_cross_entropy_with_logits", "BCEWithLogitsLoss")
CLASSES = ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss")


@dataclass(frozen=True)
class Answers:
    """The columns that are added to each row."""

    names: tuple[str, ...]
    values: Tensor
    """float64 (rows, columns): numbers, or the probabilities of the classes."""
    classes: tuple[str, ...] = ()

    def cells(self) -> Iterator[list[str]]:
        """Row by row. Nine digits bring back every float32."""
        best = self.values.argmax(1).tolist() if self.classes else []
        for row, numbers in enumerate(self.values.tolist()):
            texts = [f"{number:.9g}" for number in numbers]
            yield [self.classes[best[row]], *texts] if self.classes else texts


def answers(trained: Trained, output: Tensor) -> Answers:
    """What `output` (rows, outputs) of the model means. Raises Invalid where it is not finite."""
    if not output.isfinite().all():
        row = int((~output.isfinite().all(1)).nonzero()[0])
        raise Invalid("", f"data row {row + 1}: the model's answer is not a finite number; is a value far too large?")
    values = output.double()
    preparation, outputs = trained.preparation, output.shape[1]
    loss, named = _meaning(trained)
    if loss in TWO_CLASSES and outputs == 1:
        return _of_classes(named or ("0", "1"), torch.cat((torch.sigmoid(-values), torch.sigmoid(values)), 1))
    if (loss in CLASSES and outputs > 1) or (len(named) == outputs > 1):
        own = named if len(named) == outputs else tuple(map(str, range(outputs)))
        return _of_classes(own, torch.softmax(values, 1))
    if preparation is not None:
        values = values * preparation.target_spread + preparation.target_center
    numbered = (PREDICTION,) if outputs == 1 else tuple(f"{PREDICTION}_{at}" for at in range(1, outputs + 1))
    return Answers(numbered, values)


def _of_classes(classes: tuple[str, ...], probabilities: Tensor) -> Answers:
    names = (PREDICTION, *(f"probability_{name}" for name in classes))
    return Answers(names, probabilities, classes)


def _meaning(trained: Trained) -> tuple[str, tuple[str, ...]]:
    """Name of the loss, and of the classes."""
    if trained.preparation is not None:
        return trained.preparation.loss, trained.preparation.classes
    assert trained.task is not None
    loss = trained.task.loss
    return str(getattr(loss, "__name__", type(loss).__name__)), tuple(trained.task.classes)
