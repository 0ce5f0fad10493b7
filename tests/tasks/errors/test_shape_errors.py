"""torch's errors, explained in terms of the model and its rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from epochtop.engine.tasks.errors.shape_errors import explain_shapes

CNN = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
CASES: dict[str, tuple[nn.Module, Tensor, str]] = {
    "features": (nn.Linear(4, 3), torch.rand(2, 13), "the model expects 4 features, but the rows have 13"),
    "features of a later layer": (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 3)),
        torch.rand(2, 4),
        "layer '2' (Linear) expects 9 features, but gets 8 from the layers before it",
    ),
    "channels": (CNN, torch.rand(2, 1, 8, 8), "the model expects 3 channels, but the rows have 1"),
    "flat rows for a convolution": (
        CNN,
        torch.rand(2, 64),
        "the rows have the shape (64,), but a convolution takes (channels, height, width)",
    ),
    "image size": (
        CNN,
        torch.rand(2, 3, 10, 10),
        "layer '3' (Linear) expects 144 features, but gets 256 from the layers before it",
    ),
    "image smaller than the window": (CNN, torch.rand(2, 3, 2, 2), "the images are 2×2, smaller than the layer's window"),
    "bytes": (CNN, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "the rows are uint8, the weights float32; convert them with x.float()"),
    "doubles": (nn.Linear(4, 3), torch.rand(2, 4).double(), "the rows are float64, the weights float32"),
    "codes as floats": (nn.Embedding(4, 3), torch.rand(2, 4), "but an embedding takes whole numbers; convert them with x.long()"),
    "codes out of range": (nn.Embedding(4, 3), torch.tensor([[0, 9]]), "takes codes from 0 to 3, but gets 0 to 9"),
    "batch norm": (nn.BatchNorm1d(4), torch.rand(2, 5), "the model expects 4 features, but the rows have 5"),
    "layer norm": (nn.LayerNorm(4), torch.rand(2, 5), "the model expects rows whose shape ends in (4,), but it ends in (5,)"),
    "recurrent": (nn.LSTM(4, 4), torch.rand(2, 3, 5), "the model expects 4 features, but the rows have 5"),
    "device": (
        nn.Linear(4, 3, device="meta"),
        torch.rand(2, 4),
        "the input is on cpu, the model on meta; move one of them, for example with x.to('meta')",
    ),
    "half of the model elsewhere": (
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3, device="meta")),
        torch.rand(2, 4),
        "the model's weights are on several devices (cpu, meta)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_torchs_errors_are_explained(case: str) -> None:
    model, x, says = CASES[case]
    with pytest.raises((RuntimeError, IndexError, ValueError)) as error:
        model(x)
    message = explain_shapes(error.value, x, model)
    assert message is not None
    assert says in message


# As torch words it where a GPU is concerned, in the versions of the last years.
@pytest.mark.parametrize(
    "words",
    [
        (
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (when "
            "checking argument for argument mat1 in method wrapper_CUDA_addmm)"
        ),
        (
            "Expected all tensors to be on the same device, but got mat1 is on cpu, different from other tensors on "
            "cuda:0 (when checking argument in method wrapper_CUDA_addmm)"
        ),
        (
            "Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same or input should "
            "be a MKLDNN tensor and weight is a dense tensor"
        ),
        "Tensor for argument #1 'self' is on CPU, but expected it to be on GPU (while checking arguments for addmm)",
    ],
)
def test_a_gpus_wording_is_understood(words: str) -> None:
    model = nn.Linear(4, 3, device="meta")
    message = explain_shapes(RuntimeError(words), torch.rand(2, 4), model)
    assert message is not None
    assert message.startswith("the input is on cpu, the model on meta; move")


@pytest.mark.parametrize("error", [RuntimeError("something else"), ValueError(""), KeyError("x")])
def test_unknown_errors_are_not_explained(error: Exception) -> None:
    assert explain_shapes(error, torch.rand(2, 4), nn.Linear(4, 3)) is None


def test_hooks_are_removed_again() -> None:
    model = nn.Linear(4, 3)
    explain_shapes(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), torch.rand(2, 13), model)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
