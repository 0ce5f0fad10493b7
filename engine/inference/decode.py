"""From a model's output to predictions: class names with probabilities, or numbers in the unit of the raw target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from epochtop.engine.inference.trained_model import TrainedModel
from epochtop.engine.protocol.spec import Invalid

PREDICTION = "prediction"
TWO_CLASSES = ("binary_cross_entropy", "binary_cross_entropy_with_logits", "BCEWithLogitsLoss")
CLASSES = ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss")


@dataclass(frozen=True)
class Predictions:
    """The columns that are appended to every row."""

    names: tuple[str, ...]
    """Names of the columns."""
    values: Tensor
    """Numbers, or probabilities of the classes, float64 (rows, columns)."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty for numbers."""

    def cells(self) -> Iterator[list[str]]:
        """The cells of every row. Nine digits reproduce every float32."""
        best = self.values.argmax(1).tolist() if self.classes else []
        for row, numbers in enumerate(self.values.tolist()):
            texts = [f"{number:.9g}" for number in numbers]
            yield [self.classes[best[row]], *texts] if self.classes else texts


def decode(trained: TrainedModel, output: Tensor) -> Predictions:
    """Predictions from the model's `output`, (rows, outputs). Raises Invalid if it is not finite."""
    if not output.isfinite().all():
        row = int((~output.isfinite().all(1)).nonzero()[0])
        raise Invalid("", f"data row {row + 1}: the prediction is not finite; check for values that are far too large")
    values = output.double()
    preparation, outputs = trained.preparation, output.shape[1]
    loss, classes = _loss_and_classes(trained)
    targets = preparation.targets if preparation is not None else ()
    if targets and loss in TWO_CLASSES:
        names = (*(f"{PREDICTION}_{name}" for name in targets), *(f"probability_{name}" for name in targets))
        chances = torch.sigmoid(values)
        return Predictions(names, torch.cat(((values > 0).double(), chances), 1))
    if loss in TWO_CLASSES and outputs == 1:
        return _class_predictions(classes or ("0", "1"), torch.cat((torch.sigmoid(-values), torch.sigmoid(values)), 1))
    if (loss in CLASSES and outputs > 1) or (len(classes) == outputs > 1):
        names = classes if len(classes) == outputs else tuple(map(str, range(outputs)))
        return _class_predictions(names, torch.softmax(values, 1))
    if preparation is not None:
        spreads, centers = preparation.target_spreads, preparation.target_centers
        if targets:
            return Predictions(
                tuple(f"{PREDICTION}_{name}" for name in targets),
                values * values.new_tensor(spreads) + values.new_tensor(centers),
            )
        values = values * preparation.target_spread + preparation.target_center
    columns = (PREDICTION,) if outputs == 1 else tuple(f"{PREDICTION}_{at}" for at in range(1, outputs + 1))
    return Predictions(columns, values)


def _class_predictions(classes: tuple[str, ...], probabilities: Tensor) -> Predictions:
    names = (PREDICTION, *(f"probability_{name}" for name in classes))
    return Predictions(names, probabilities, classes)


def _loss_and_classes(trained: TrainedModel) -> tuple[str, tuple[str, ...]]:
    """Names of the loss and of the classes."""
    if trained.preparation is not None:
        return trained.preparation.loss, trained.preparation.classes
    assert trained.task is not None
    loss = trained.task.loss
    return str(getattr(loss, "__name__", type(loss).__name__)), tuple(trained.task.classes)
