"""The loop that trains the rivals: same bits again, also after a break."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.errors import ParameterError
from cmass.params import RivalTrainingParams

pytest.importorskip("tensorflow")

from cmass.estimators import keras_fit

HOW = RivalTrainingParams(epochs=6, patience=6, batch_size=32, learning_rate=1e-2)


def _build():
    import keras
    from keras import layers

    inputs = keras.Input((3,))
    x = layers.Dropout(0.2)(layers.Dense(16, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(1)(x))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 3)).astype(np.float32)
    y = (x @ [[1.0], [-2.0], [0.5]]).astype(np.float32)
    return ([x[:300]], y[:300]), ([x[300:]], y[300:])


def _shake(inputs, random):
    return [x + 0.01 * random.standard_normal(x.shape).astype(np.float32) for x in inputs]


def _fit(data, work, how=HOW, **more):
    work.mkdir(exist_ok=True)
    return keras_fit.fit(_build, *data, how, 7, work, name="toy", augment=_shake, **more)


def test_it_learns_and_returns_the_best_epoch(data, tmp_path):
    model, progress = _fit(data, tmp_path)
    (inputs, targets) = data[1]
    loss = float(np.mean((keras_fit.predict(model, inputs) - targets) ** 2))
    assert loss == pytest.approx(min(progress.val_loss), rel=1e-5)  # float32 sums
    assert loss < 0.25 * targets.var()
    assert progress.epoch == 6 and not progress.out_of_time


def test_a_broken_fit_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    whole, straight = _fit(data, tmp_path / "a")
    save, calls = keras_fit._save, []

    def save_and_break(*arguments):
        save(*arguments)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(keras_fit, "_save", save_and_break)
    with pytest.raises(KeyboardInterrupt):
        _fit(data, tmp_path / "b")
    resumed, progress = _fit(data, tmp_path / "b")
    assert progress.val_loss == straight.val_loss  # dropout drew the same, too
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_augmentation_can_be_switched_off(data, tmp_path):
    _, shaken = _fit(data, tmp_path / "a")
    _, plain = _fit(data, tmp_path / "b", HOW.model_copy(update={"augment": False}))
    assert shaken.loss != plain.loss


def test_patience_ends_it(data, tmp_path):
    # A rate of zero gains nothing after the first epoch.
    how = HOW.model_copy(update={"learning_rate": 0.0, "learning_rate_final": 0.0, "patience": 2})
    _, progress = _fit(data, tmp_path, how)
    assert (progress.epoch, progress.best_epoch) == (3, 1)


def test_the_time_limit_ends_it_and_is_told(data, tmp_path, caplog):
    how = HOW.model_copy(update={"seconds_max": 1e-6})
    with caplog.at_level("WARNING", "cmass"):
        _, progress = _fit(data, tmp_path, how)
    assert progress.epoch == 1 and progress.out_of_time
    assert "seconds_max" in caplog.text


def test_a_prediction_does_not_depend_on_its_company(data, tmp_path):
    model, _ = _fit(data, tmp_path, HOW.model_copy(update={"epochs": 1}))
    x = data[0][0][0]
    together = keras_fit.predict(model, [x], batch_size=64)
    np.testing.assert_array_equal(together[100:107], keras_fit.predict(model, [x[100:107]], 64))
    assert keras_fit.predict(model, [x[:0]], 64).shape == (0, 1)


def test_a_fit_that_diverges_says_so_and_keeps_nothing(data, tmp_path):
    how = HOW.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(ParameterError, match=r"diverged.*lower the learning rate"):
        _fit(data, tmp_path, how)
