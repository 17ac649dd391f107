"""Random numbers: Philox by its published vectors, and distributions by their moments."""

from __future__ import annotations

import deepseek as ds
import numpy as np
import numpy.typing as npt
import pytest
from running import TARGETS, compile_for


def draw(
    op: str, seed: int, offset: int, shape: list[int], dtype: str, target: str
) -> npt.NDArray[np.float64]:
    g = ds.Graph()
    scalars = [g.placeholder("seed", [], "int64"), g.placeholder("offset", [], "int64")]
    g.output("y", g.op(op, scalars, {"shape": shape, "dtype": dtype}))
    return compile_for(g, target).run({"seed": np.int64(seed), "offset": np.int64(offset)})["y"]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x32-10, from the paper."""
    mask = 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & mask, (a >> 32) ^ counter[3] ^ key[1], a & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return counter


def test_published_vector() -> None:
    # Random123's kat_vectors: philox4x32 10 with counter and key of zeros.
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("target", TARGETS)
def test_bits(target: str) -> None:
    seed, offset = 0x0123456789ABCDEF, 5
    got = draw("random_bits", seed, offset, [3, 7], "int64", target).reshape(-1)
    want = [philox([i, 0, offset, 0], [seed & 0xFFFFFFFF, seed >> 32])[0] for i in range(21)]
    assert got.tolist() == want


@pytest.mark.parametrize("target", TARGETS)
def test_distributions(target: str) -> None:
    uniform = draw("random_uniform", 1, 0, [100, 1000], "float32", target).astype("float64")
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.002
    normal = draw("random_normal", 2, 0, [100, 1000], "float32", target).astype("float64")
    assert abs(normal.mean()) < 0.015
    assert abs(normal.var() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.15


def test_offsets_differ() -> None:
    first = draw("random_bits", 1, 0, [64], "int64", "interpreter")
    second = draw("random_bits", 1, 1, [64], "int64", "interpreter")
    assert not np.intersect1d(first, second).size
