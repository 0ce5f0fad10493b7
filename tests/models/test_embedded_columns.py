"""Categories of many values are embedded as torch.nn.functional.embedding does it, and an unknown one counts for nothing."""

from __future__ import annotations

import torch
from torch.nn import functional

from epochtop.engine.data.dataset import ColumnEncoding, Preparation
from epochtop.engine.models.build import build_model
from epochtop.engine.models.summary import summary_of
from epochtop.engine.protocol.spec import RunSpec

SHOPS = ColumnEncoding(
    kind="category", categories=tuple(f"shop {at}" for at in range(60)), embedding=16, indicator=True
)
TABLE = Preparation(
    kind="table",
    loss="cross_entropy",
    columns=("x", "shop", "y"),
    encodings=(ColumnEncoding(), SHOPS, ColumnEncoding()),
)
ROWS = torch.tensor([[0.5, 1.0, 0.0, -1.0], [0.25, 60.0, 1.0, 2.0], [0.1, 0.0, 0.0, 3.0]])
"""x, the number of the shop (0 for an unknown one), whether it is missing, and y."""


def test_an_mlp_embeds_categories_and_keeps_the_other_inputs() -> None:
    spec = RunSpec(hidden=(8,))
    model = build_model(spec, TABLE, 2).eval()
    tensors = model.state_dict()
    vectors = functional.embedding(ROWS[:, 1].long(), tensors["columns.embeddings.0.weight"])
    x = torch.cat([ROWS[:, [0, 2, 3]], vectors], dim=1)
    assert vectors[2].tolist() == [0] * 16
    hidden = functional.relu(x @ tensors["mlp.0.weight"].T + tensors["mlp.0.bias"])
    torch.testing.assert_close(model(ROWS), hidden @ tensors["mlp.2.weight"].T + tensors["mlp.2.bias"])
    expected = 61 * 16 + (3 + 16) * 8 + 8 + 8 * 2 + 2
    assert sum(weight.numel() for weight in model.parameters()) == expected
    assert summary_of(spec, TABLE, 2, 3).parameters == expected


def test_the_vector_of_the_unknown_category_is_never_trained() -> None:
    model = build_model(RunSpec(hidden=()), TABLE, 2)
    model(ROWS).sum().backward()
    gradient = model.get_parameter("columns.embeddings.0.weight").grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == [1, 60]
