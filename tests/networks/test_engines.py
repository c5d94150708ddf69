"""Both engines take the same steps, and both go on from what they saved."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.networks import cnn3d, engines
from cmass.networks.engines import CompiledEngine, KerasEngine
from cmass.networks.streaming import Batch
from cmass.params import Params, TrainParams, VoxelParams
from tests.networks.compiled.test_compiled import grids_of, weights_of

N = 14


def batches(count: int = 4) -> list[Batch]:
    """Batches of six clusters out of one pool, turned and reflected."""
    random = np.random.default_rng(3)
    pool = grids_of(N, 10, 3).astype(np.float16)
    return [
        Batch(
            pool, random.permutation(10)[:6], random.integers(0, 16, 6).astype(np.uint8),
            random.uniform(13.5, 15.3, 6).astype(np.float32),
        )
        for _ in range(count)
    ]  # fmt: skip


def engine_of(kind: str, train: TrainParams) -> engines.Engine:
    model = cnn3d.build(N, train.dense_activation)
    model.set_weights(weights_of(N, 5))
    how = train.model_copy(update={"engine": kind})
    return engines.make(model, Params(voxels=VoxelParams(n=N), train=how))


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_the_engines_take_the_same_steps(activation):
    train = TrainParams(dense_activation=activation, beta_1=0.8, beta_2=0.99)
    slow, fast = engine_of("keras", train), engine_of("compiled", train)
    assert isinstance(slow, KerasEngine)
    assert isinstance(fast, CompiledEngine)
    start = fast.get_weights()
    for rate, batch in zip((1e-3, 5e-4, 2e-4, 1e-4), batches(), strict=True):
        expected, found = slow.step(batch, rate), fast.step(batch, rate)
        assert found == pytest.approx(expected, rel=1e-3)
    # Adam's steps are about the rate for every weight, however small its gradient: what rounding
    # does to the smallest ones is a part of a step, 1.8e-3 in all.
    for a, b, before in zip(fast.get_weights(), slow.get_weights(), start, strict=True):
        assert np.abs(b - before).max() > 5e-4
        assert np.sqrt(np.mean((a - b) ** 2)) < 0.05 * np.sqrt(np.mean((b - before) ** 2))
    last = batches()[-1]
    np.testing.assert_allclose(fast.predict(last), slow.predict(last), atol=2e-3)


@pytest.mark.parametrize("kind", ["keras", "compiled"])
def test_an_engine_goes_on_from_its_state_to_the_bit(kind):
    train, steps = TrainParams(), batches()
    whole, broken = engine_of(kind, train), engine_of(kind, train)
    for batch in steps[:2]:
        whole.step(batch, 1e-3)
        broken.step(batch, 1e-3)
    resumed = engine_of(kind, train)
    resumed.restore(broken.state())
    for batch in steps[2:]:
        assert whole.step(batch, 1e-3) == resumed.step(batch, 1e-3)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_an_accelerator_loops_are_compiled():
    assert not engines.on_accelerator()
    assert isinstance(engine_of("auto", TrainParams()), CompiledEngine)
