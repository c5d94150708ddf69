"""Estimators of the mass: one file each, one interface, same mocks, same real clusters.

An estimator learns from the training mocks and gives a posterior on any grid of log mass.
Adding one is adding a file to this folder: a module that holds a subclass of `Estimator`
(or of `PointEstimator`, which makes posteriors of point estimates as the paper does).
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cmass.errors import ParameterError
from cmass.estimators.windows import Sets, Windows
from cmass.params import Params
from cmass.posterior import JointDensity
from cmass.tables import atomic_path
from cmass.workspace import Workspace

Array = NDArray[np.float64]


class Estimator(ABC):
    """From galaxies to a posterior of the mass.

    Parameters
    ----------
    params : Params
    seed : int
        Of first weights and batches; an estimator without randomness ignores it.

    Attributes
    ----------
    name : str
        Its name in tables and on the command line.
    title : str
        Its name on figures.
    reads : str
        What it reads of the galaxies, for the report.
    seeded : bool
        Whether another seed gives another result.
    extra : str
        Package that it needs beside cmass's own; empty for none.
    taken_over : bool
        Of a fitted estimator: `fit` took over what the run had trained before.
    out_of_time : bool
        Of a fitted estimator: its time limit ended the training, which another machine may carry
        farther.
    seconds_in_epochs : float
        Of a fitted estimator that resumes: time in epochs, those before a break among them.
    sections : tuple of str
        Parameters that it reads beside those that all estimators may read.
    sources : tuple of str
        Code that its result depends on beside its own module and what all estimators share,
        relative to ``cmass/``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]
    seeded: ClassVar[bool] = True
    extra: ClassVar[str] = ""
    sections: ClassVar[tuple[str, ...]] = ()
    sources: ClassVar[tuple[str, ...]] = ()
    taken_over: bool = False
    out_of_time: bool = False
    seconds_in_epochs: float = 0.0

    def __init__(self, params: Params, seed: int) -> None:
        self.params, self.seed = params, seed

    @abstractmethod
    def fit(self, sets: Sets, work: Path) -> None:
        """Learn from the training set, stop by the validation set, calibrate on the test set.

        Parameters
        ----------
        sets : Sets
        work : Path
            Folder for what lets a broken fit go on; the caller removes it afterwards.
        """

    @abstractmethod
    def posterior(self, windows: Windows, edges: Array) -> Array:
        """Posterior probability per mass bin under the mocks' flat prior.

        Parameters
        ----------
        windows : Windows
        edges : ndarray, shape (n_bins + 1,)
            Ascending edges of the bins in log10 M200c, h⁻¹ M☉.

        Returns
        -------
        ndarray, shape (n, n_bins)
            Rows sum to one, or are NaN where the estimator has no mass for the cluster.
        """

    @abstractmethod
    def point(self, windows: Windows) -> Array:
        """Point estimate of log10 M200c (h⁻¹ M☉), shape (n,); NaN where there is none."""

    def point_and_posterior(self, windows: Windows, edges: Array) -> tuple[Array, Array]:
        """`point` and `posterior`; an estimator that can makes both of one look."""
        return self.point(windows), self.posterior(windows, edges)

    @classmethod
    def products(cls, workspace: Workspace) -> tuple[Path, ...]:
        """Products of the run that `fit` takes over, beside the windows."""
        return ()

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Numbers that were fitted to the training set."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` needs; the same fit gives the same bytes."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, params: Params, seed: int) -> Self:
        """The fitted estimator that `save` wrote."""


class PointEstimator(Estimator):
    """An estimator of one number, whose posterior is a slice of the test set's joint density.

    A subclass gives `fit_point`, `point`, `n_parameters`, `save_point` and `load_point`.
    """

    _density: JointDensity

    @abstractmethod
    def fit_point(self, sets: Sets, work: Path) -> None:
        """Learn the point estimate; the test set is not for it."""

    @abstractmethod
    def save_point(self, folder: Path) -> None:
        """Write what `load_point` needs."""

    @abstractmethod
    def load_point(self, folder: Path) -> None:
        """Read what `save_point` wrote."""

    def fit(self, sets: Sets, work: Path) -> None:
        """Learn the point estimate, then the joint density of estimate and truth."""
        self.fit_point(sets, work)
        predicted = self.point(sets.test)
        # In the order in which they are saved: sums over pairs then have the same last bits.
        order = np.argsort(predicted, kind="stable")[: np.isfinite(predicted).sum()]
        self._set_density(predicted[order], sets.test.log10_m200c_true[order])

    def _set_density(self, predicted: Array, true: Array) -> None:
        self._density = JointDensity(predicted, true, self.params.posterior.plain_bandwidth)

    def posterior(self, windows: Windows, edges: Array) -> Array:
        """Slices of the joint density at the point estimates."""
        return self.point_and_posterior(windows, edges)[1]

    def point_and_posterior(self, windows: Windows, edges: Array) -> tuple[Array, Array]:
        """Point estimates and the slices of the joint density at them."""
        point = self.point(windows)
        return point, self._density.posterior(point, edges)

    def save(self, folder: Path) -> None:
        """Write the point estimator and the pairs of the test set."""
        self.save_point(folder)
        predicted, true = self._density.pairs
        with atomic_path(folder / "pairs.npy") as path, open(path, "wb") as stream:
            np.save(stream, np.column_stack([predicted, true]))

    @classmethod
    def load(cls, folder: Path, params: Params, seed: int) -> Self:
        """The fitted estimator that `save` wrote."""
        one = cls(params, seed)
        one.load_point(folder)
        one._set_density(*np.load(folder / "pairs.npy").T)
        return one


def estimators() -> dict[str, type[Estimator]]:
    """Every estimator of this folder by name."""
    found: dict[str, type[Estimator]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Estimator) and "name" in vars(value):
                found[value.name] = value
    return found


def estimator(name: str) -> type[Estimator]:
    """The estimator called `name`.

    Raises
    ------
    ParameterError
        There is none of that name; the message lists those there are.
    """
    known = estimators()
    if name not in known:
        raise ParameterError(f"no estimator {name!r}; there are {', '.join(sorted(known))}")
    return known[name]
