# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adding an estimator
#
# CNN_3D is one of eight estimators of the mass that cmass fits to the same mocks and judges on the same windows
# ([how they compare](../science.md)). A ninth is one file in `cmass/estimators/`. This page writes a
# small one, puts it through the very evaluation that the others get, and says what to do to keep it.
#
# ## The interface
#
# An estimator is a class with a `name`, and with `fit`, `point`, `posterior`, `save` and `load`. Most estimators are one number a cluster, whose posterior is
# made as the paper makes it: from the joint density of estimate and truth on the test set ([how the posterior works](3_posterior.py)). For these there is `PointEstimator`,
# and five small methods are enough.
#
# What it sees of a cluster is a row of `Windows`: galaxies as (x, y, v), proper h⁻¹ Mpc and km/s, and the redshift. Not the truth, of course, save in `fit`.
#
# ## The idea
#
# The virial theorem without the theorem: heavy clusters have fast galaxies near the centre. Take the galaxies within 0.7 h⁻¹ Mpc and 1500 km/s, and regress log mass on
# the log of their median speed, the log of their number, and the log of the redshift (a flux limit hides galaxies of far clusters).

# %%
from pathlib import Path
from typing import ClassVar

import numpy as np

from cmass.estimators import PointEstimator
from cmass.estimators.windows import Sets, Windows
from cmass.tables import read_json, write_json


class MedianSpeed(PointEstimator):
    """Mass from the median speed and the number of galaxies near the centre, by least squares."""

    name: ClassVar[str] = "median_speed"
    title: ClassVar[str] = "median speed"
    reads: ClassVar[str] = "median |v| and number of galaxies near the centre, redshift"
    seeded: ClassVar[bool] = False  # no randomness: another seed gives the same

    def _design(self, windows: Windows) -> np.ndarray:
        rows = []
        for i in range(len(windows)):
            x, y, v = windows.cloud(i).T
            near = (np.hypot(x, y) < 0.7) & (np.abs(v) < 1500)
            # Without a galaxy near the centre there is no speed: such a cluster gets no mass.
            speed = np.median(np.abs(v[near])) if near.any() else np.nan
            rows.append(
                (1.0, np.log10(speed + 50), np.log10(1 + near.sum()), np.log10(windows.z[i]))
            )
        return np.array(rows)

    def fit_point(self, sets: Sets, work: Path) -> None:
        """Least squares on the training set."""
        design, true = self._design(sets.train), sets.train.log10_m200c_true
        good = np.isfinite(design).all(axis=1)
        self._coefficients = np.linalg.lstsq(design[good], true[good], rcond=None)[0]

    def point(self, windows: Windows) -> np.ndarray:
        """log10 M200c of each cluster."""
        return self._design(windows) @ self._coefficients

    @property
    def n_parameters(self) -> int:
        """Coefficients of the regression."""
        return 4

    def save_point(self, folder: Path) -> None:
        """Write the coefficients."""
        write_json(folder / "median_speed.json", {"coefficients": self._coefficients.tolist()})

    def load_point(self, folder: Path) -> None:
        """Read the coefficients."""
        self._coefficients = np.array(read_json(folder / "median_speed.json")["coefficients"])


# %% [markdown]
# ## Mocks to learn from
#
# In a run the mocks are there (`cmass mock`, `cmass split`). Here we make a small set: the steps themselves, with parameters of a size for a page.

# %%
import logging

from cmass import mock, split
from cmass.params import Params, SplitParams
from cmass.workspace import Workspace

logging.disable(logging.INFO)
base = Params()
haloes = base.mock.haloes.model_copy(update={"n_windows": 720})
params = base.model_copy(
    update={
        "mock": base.mock.model_copy(update={"haloes": haloes, "haloes_per_shard": 360}),
        "split": SplitParams(train=260, test=220, evaluation=200),
        "workers": 1,
    }
)
workspace = Workspace(Path("data"), "standard", "embedded")
for step in (mock, split):
    step.run(workspace, params)

# %% [markdown]
# The sets are divided by halo, so that no estimator is judged on a halo that it has seen. `Material` is what the step `rivals` hands to every estimator: training, validation and
# test set, the windows that judge, and the bins of the posterior.

# %%
from cmass.estimators.windows import mock_windows
from cmass.rivals.units import Material

train, validation, test, evaluation = mock_windows(
    workspace, "train", "validation", "test", "evaluation"
)
edges = np.linspace(13.5, 15.1, 65)
material = Material(Sets(train, validation, test), evaluation, edges)
print([len(w) for w in (train, validation, test, evaluation)])

# %% [markdown]
# ## The same evaluation as the others
#
# `predict` asks a fitted estimator about the evaluation windows and scores each posterior; `score_rows` makes the numbers of the report from that, with errors by bootstrap over haloes. We let two
# established estimators run beside it.

# %%
from cmass.estimators import estimator
from cmass.rivals import members_of_mocks
from cmass.rivals.scores import score_rows
from cmass.rivals.units import predict

members = members_of_mocks(workspace)
n_members = np.array([members[name] for name in evaluation.cluster_id])
results, tables = {}, {}
for kind in (MedianSpeed, estimator("richness"), estimator("dispersion")):
    one = kind(params, params.seed)
    work = Path("work") / kind.name
    work.mkdir(parents=True, exist_ok=True)
    one.fit(material.sets, work)
    one.save(work)
    judge = kind.load(work, params, params.seed)  # what judges is what was saved
    tables[kind.name], _ = predict(judge, 1, material)
    results[kind.name] = {
        row["metric"]: row for row in score_rows(tables[kind.name], n_members, None, params)
    }

print(f"{'':14}{'scatter, dex':>20}{'mean, dex':>18}{'coverage error':>18}{'CRPS, dex':>18}")
for name, rows in results.items():
    cells = [f"{rows[m]['value']:.3f} ± {rows[m]['error']:.3f}" for m in
             ("epsilon_scatter", "epsilon_mean", "coverage_error", "crps")]  # fmt: skip
    print(f"{name:14}{cells[0]:>20}{cells[1]:>18}{cells[2]:>18}{cells[3]:>18}")

scatter = {name: rows["epsilon_scatter"]["value"] for name, rows in results.items()}
assert scatter["median_speed"] < 0.36
assert results["median_speed"]["n_without"]["value"] < 8
assert results["median_speed"]["coverage_error"]["value"] < 0.16

# %% [markdown]
# How to read it. *Scatter* and *mean* are of ε = log10(M_true/M_pred). *Coverage error* is the largest difference between the level of an interval and the part of the truths inside: with 200 windows
# a perfect posterior shows 0.06 or so by chance, so compare with the error. *CRPS* scores the whole posterior, width and place; smaller is better.
# An estimator can have a poor scatter and be perfectly calibrated: it is then honest about knowing little.

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True)
for axes, (name, table) in zip(panels, tables.items(), strict=True):
    true, point = (table[c].to_numpy() for c in ("log10_m200c_true", "log10_m200c"))
    axes.plot(true, point, ".", ms=3)
    axes.plot([13.5, 15.1], [13.5, 15.1], color="grey", lw=1)
    axes.set(title=f"{name}: {scatter[name]:.2f} dex", xlabel=r"true $\log_{10} M_{200c}$")
panels[0].set(ylabel="point estimate", ylim=(13, 15.6))
assert len(panels) == len(tables)

# %% [markdown]
# ## To keep it
#
# 1. Put the class into `cmass/estimators/median_speed.py`. The step finds it by itself: `estimators()` looks through the folder.
# 2. Test it: `tests/estimators/` holds windows of known answer (`toy.py`); test that it finds a mass that you put in, and that `load` gives what `save` wrote, to the bit.
# 3. `cmass study rivals --estimator median_speed --seed 1` fits and judges it beside the others of your last run; `cmass rivals` does from then on, and the report has a row for it.
# 4. Parameters belong into a section below `rivals` in `params.yaml` and `cmass/params.py` (no number buried in a function, as 0.7 and 1500 are here), and
#    packages beyond those of cmass into `extra`: without the package the others are still fitted, and the tables say what is missing.
#
# An estimator with a posterior of its own (a flow, a mixture) derives from `Estimator` and gives `posterior` itself; `cmass/estimators/deepsets.py` is one.

# %%
from cmass.estimators import estimators

print(sorted(estimators()))
assert "median_speed" not in estimators()  # not yet: it lives on this page alone
