"""The Iris job as a C loop written for this network alone: the cost of the arithmetic without anything else."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

SOURCE = r"""
#include <math.h>
#define ROWS 120
#define IN 4
#define HIDDEN 10
#define OUT 3
void train(long epochs, const float *x, const long *y, float *w1, float *b1, float *w2, float *b2, float *losses) {
    for (long epoch = 0; epoch < epochs; epoch++) {
        float g1[HIDDEN][IN] = {{0}}, c1[HIDDEN] = {0}, g2[OUT][HIDDEN] = {{0}}, c2[OUT] = {0}, loss = 0;
        for (int row = 0; row < ROWS; row++) {
            float h[HIDDEN], o[OUT], most = -INFINITY, sum = 0, d[HIDDEN] = {0};
            for (int j = 0; j < HIDDEN; j++) {
                float z = b1[j];
                for (int i = 0; i < IN; i++) z += x[row * IN + i] * w1[j * IN + i];
                h[j] = z < 0 ? 0 : z;
            }
            for (int k = 0; k < OUT; k++) {
                o[k] = b2[k];
                for (int j = 0; j < HIDDEN; j++) o[k] += h[j] * w2[k * HIDDEN + j];
                if (o[k] > most) most = o[k];
            }
            for (int k = 0; k < OUT; k++) sum += expf(o[k] - most);
            loss += logf(sum) + most - o[y[row]];
            for (int k = 0; k < OUT; k++) {
                const float g = (expf(o[k] - most) / sum - (k == y[row])) / ROWS;
                c2[k] += g;
                for (int j = 0; j < HIDDEN; j++) { g2[k][j] += g * h[j]; d[j] += g * w2[k * HIDDEN + j]; }
            }
            for (int j = 0; j < HIDDEN; j++) {
                const float g = h[j] > 0 ? d[j] : 0;
                c1[j] += g;
                for (int i = 0; i < IN; i++) g1[j][i] += g * x[row * IN + i];
            }
        }
        for (int j = 0; j < HIDDEN; j++) {
            b1[j] -= 0.01f * c1[j];
            for (int i = 0; i < IN; i++) w1[j * IN + i] -= 0.01f * g1[j][i];
        }
        for (int k = 0; k < OUT; k++) {
            b2[k] -= 0.01f * c2[k];
            for (int j = 0; j < HIDDEN; j++) w2[k * HIDDEN + j] -= 0.01f * g2[k][j];
        }
        losses[epoch] = loss / ROWS;
    }
}
"""


@cache
def _library() -> Any:
    folder = Path(tempfile.mkdtemp())
    (folder / "floor.c").write_text(SOURCE)
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "floor.c", "-o", "floor.so", "-lm"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "floor.so"))
    library.train.argtypes = [ctypes.c_long, *(ctypes.c_void_p,) * 7]
    return library


def train(epochs: int) -> tuple[float, float, float]:
    """Seconds in total, seconds in the loop, last loss."""
    from tests.support.plain_loop import rows

    library, data, chance = _library(), rows("iris"), np.random.default_rng(1)
    x, y = np.ascontiguousarray(data.x.numpy()), np.ascontiguousarray(data.y.numpy())
    start = perf_counter()
    sizes = {(10, 4): 4, (10,): 4, (3, 10): 10, (3,): 10}
    weights = [chance.uniform(-(n**-0.5), n**-0.5, shape).astype(np.float32) for shape, n in sizes.items()]
    losses = np.empty(epochs, np.float32)
    loop_start = perf_counter()
    library.train(epochs, *(array.ctypes.data for array in (x, y, *weights, losses)))
    end_s = perf_counter()
    return end_s - start, end_s - loop_start, float(losses[-1])
