"""What the mocks look like, and how odd a window is beside them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.columns import FLAGS
from cmass.errors import InputError
from cmass.estimators.windows import Windows
from cmass.oddity.peaks import second_peaks
from cmass.oddity.space import Space, summaries
from cmass.params import OddityParams, Params, WindowParams
from cmass.tables import make_table, read_json, read_table, to_numpy, write_json, write_table

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Files of what the step learned; a bundle carries them.
SETTINGS, REFERENCE = "oddity.json", "oddity.parquet"


def chance(value: ArrayLike, mocks: Array) -> Array:
    """Part of the mocks that lie at least as far out, and never zero; NaN stays NaN.

    (1 + number of mocks ≥ value)/(1 + number of mocks): for a value that is drawn as those
    of the mocks are, at or below p in p of the cases.
    """
    value, ordered = np.asarray(value, float), np.sort(mocks[np.isfinite(mocks)])
    beyond = ordered.size - np.searchsorted(ordered, value, side="left")
    return np.where(np.isfinite(value), (1 + beyond) / (1 + ordered.size), np.nan)


@dataclass(frozen=True)
class Found:
    """What `Oddity.judge` says of n windows; NaN where it cannot.

    Attributes
    ----------
    distance, distance_p : ndarray, shape (n,)
        Distance from the mocks, and part of the mocks at least as far out.
    second_peak, second_peak_p : ndarray, shape (n,)
        Height of the second peak, and part of mocks without a second cluster that reach it.
    flag : ndarray of int32, shape (n,)
        Flags `unlike_mocks` and `two_clusters`.
    """

    distance: Array
    distance_p: Array
    second_peak: Array
    second_peak_p: Array
    flag: NDArray[np.int32]


@dataclass(frozen=True)
class Oddity:
    """What the mocks look like.

    Attributes
    ----------
    space : Space
    distances : ndarray, shape (n_test,)
        Distances of the test set.
    peaks : ndarray, shape (n_clean,)
        Heights of the second peak in windows of the test set without a second cluster.
    how : OddityParams
    window : WindowParams
    """

    space: Space
    distances: Array
    peaks: Array
    how: OddityParams
    window: WindowParams

    def summaries(self, points: Array, offsets: NDArray[np.int64], z: ArrayLike) -> Array:
        """`cmass.oddity.space.summaries` in the window of the mocks."""
        return summaries(
            points, offsets, z, self.window.half_width_mpc_h, self.window.v_max_km_s
        )  # fmt: skip

    def second_peak(self, points: Array, offsets: NDArray[np.int64]) -> Array:
        """Height of the second peak of each window, shape (n,)."""
        return _second_peak(points, offsets, self.how)

    def judge(
        self, features: Array, points: Array, offsets: NDArray[np.int64], z: ArrayLike
    ) -> Found:  # fmt: skip
        """How odd windows are.

        Parameters
        ----------
        features : ndarray, shape (n, n_features)
            Outputs of the network's first dense layer; rows of NaN are not judged.
        points : ndarray, shape (n_points, 3)
            x, y (proper Mpc/h) and v (km/s), one cluster after the other.
        offsets : ndarray, shape (n + 1,)
        z : array_like, shape (n,)
        """
        known = np.isfinite(features).all(axis=1)
        distance, peak = (np.full(known.size, np.nan) for _ in range(2))
        if known.any():
            plain = self.summaries(points, offsets, z)
            distance[known] = self.space.distance(features[known], plain[known])
            peak[known] = self.second_peak(points, offsets)[known]
        # In the precision of the reference: a window of the test set is as far as itself.
        distance, peak = (x.astype(np.float32).astype(float) for x in (distance, peak))
        odd, second = chance(distance, self.distances), chance(peak, self.peaks)
        flag = np.where(odd <= self.how.false_alarm, FLAGS["unlike_mocks"].value, 0)
        flag |= np.where(second <= self.how.false_alarm, FLAGS["two_clusters"].value, 0)
        return Found(distance, odd, peak, second, flag.astype(np.int32))

    def save(self, folder: Path) -> None:
        """Write `SETTINGS` and `REFERENCE` to a folder; sorted numbers make a small file."""
        n = {"train": len(self.space.reference), "test": self.distances.size,
             "peaks": self.peaks.size}  # fmt: skip
        nothing: list[Any] = [None]
        table = make_table(
            "oddity_reference",
            {
                "part": [name for name, k in n.items() for _ in range(k)],
                "place": [*self.space.reference.tolist(), *[[]] * (n["test"] + n["peaks"])],
                "outlier_distance": nothing * n["train"]
                + [*np.sort(self.distances)]
                + nothing * n["peaks"],
                "second_peak": nothing * (n["train"] + n["test"]) + [*np.sort(self.peaks)],
            },
        )
        write_table(folder / REFERENCE, table, "oddity_reference", small=True)
        write_json(
            folder / SETTINGS,
            {"space": self.space.as_json(), "how": self.how.model_dump(mode="json"),
             "window": self.window.model_dump(mode="json")},
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Oddity | None:
        """What `save` wrote to a folder; None where there is nothing.

        Raises
        ------
        InputError
            One of the two files is damaged.
        """
        if not (folder / SETTINGS).exists():
            return None
        values = read_json(folder / SETTINGS)
        table = read_table(folder / REFERENCE, "oddity_reference")
        part = np.array(table["part"].to_pylist())
        places = [p for p in table["place"].to_pylist() if p]
        distance, peak = (
            x.astype(float) for x in to_numpy(table, "outlier_distance", "second_peak")
        )
        try:
            return cls(
                Space.from_json(values["space"], np.array(places, np.float32)),
                distance[part == "test"], peak[part == "peaks"],
                OddityParams.model_validate(values["how"]),
                WindowParams.model_validate(values["window"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not a description of mocks: {error}", file=folder / SETTINGS,
                remedy="Run `cmass oddity` again, or copy the model again",
            ) from error  # fmt: skip


def _second_peak(points: Array, offsets: NDArray[np.int64], how: OddityParams) -> Array:
    height, _, _ = second_peaks(
        points, offsets, radius_mpc_h=how.peak_radius_mpc_h,
        velocity_km_s=how.peak_velocity_km_s, separation=how.peak_separation,
    )  # fmt: skip
    return height


def fit(
    train: Windows, train_features: Array, test: Windows, test_features: Array,
    test_mass_ratio: Array, params: Params,
) -> Oddity:  # fmt: skip
    """Learn what training mocks look like, and calibrate on the test set.

    Parameters
    ----------
    train, test : Windows
    train_features, test_features : ndarray, shape (n, n_features)
        Outputs of the network's first dense layer.
    test_mass_ratio : ndarray, shape (n,)
        Mass of the most massive neighbour in the window over the cluster's; NaN for none.
    params : Params
    """
    how, window = params.oddity, params.window

    def plain(windows: Windows) -> Array:
        return summaries(
            windows.points, windows.offsets, windows.z, window.half_width_mpc_h, window.v_max_km_s
        )

    space = Space.fit(
        train_features, plain(train), how.n_components, how.n_neighbours, how.n_reference
    )
    # As a reader of the files will have them.
    distances = space.distance(test_features, plain(test)).astype(np.float32).astype(float)
    alone = ~(test_mass_ratio > how.neighbour_mass_ratio)
    if not alone.any():
        raise InputError(
            "no window of the test set is without a second cluster", column="second_peak",
            remedy="Raise oddity.neighbour_mass_ratio or the size of the test set",
        )  # fmt: skip
    peaks = _second_peak(test.points, test.offsets, how)[alone].astype(np.float32).astype(float)
    for flag, values in (("unlike_mocks", distances), ("two_clusters", peaks)):
        least = 1 / (1 + int(np.isfinite(values).sum()))
        if least > how.false_alarm:
            log.warning(
                "oddity: flag %s is never set: %.0f test windows cannot show a rate of false alarms "
                "below %.3f (oddity.false_alarm: %g)", flag, 1 / least - 1, least, how.false_alarm,
            )  # fmt: skip
    return Oddity(space, distances, peaks, how, window)
