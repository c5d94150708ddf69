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
# # Train for your survey
#
# The model that ships was trained on mocks of the SDSS main sample: all galaxies to r = 17.77, clusters nearer than 250 h⁻¹ Mpc. A survey that is deeper
# shows more galaxies of the same cluster, a shallower one fewer, and the network would take that for mass. cmass flags such surveys; this page shows
# the flag, and trains a model that fits.
#
# With real tables it is one command, and some hours of a processor for the size of the paper:
#
# ```sh
# cmass train --like clusters.csv galaxies.fits --out models/mine --profile standard
# cmass estimate clusters.csv galaxies.fits --model models/mine --out masses.parquet
# ```
#
# Here we take the same steps in Python, **at the size of a page**: a few hundred mocks, coarse grids, a few epochs. Its masses are for looking at, and not
# for science.
#
# ## A shallow survey
#
# The simulator makes us a survey that ends at r = 16.5, with true masses in a table of their own.

# %%
import logging
from pathlib import Path

import numpy as np

from cmass.mock.survey import make_survey
from cmass.params import Params, load_params

logging.disable(logging.WARNING)
base = Params()
shallow = base.model_copy(
    update={
        "ingest": base.ingest.model_copy(
            update={
                "embedded": base.ingest.embedded.model_copy(
                    update={"ra_min_deg": 10.0, "ra_max_deg": 34.0, "dec_min_deg": 0.0, "dec_max_deg": 20.0,
                            "log10_m200c_min": 13.9}
                )
            }
        ),
        "mock": base.mock.model_copy(
            update={"galaxies": base.mock.galaxies.model_copy(update={"flux_limit_mag": 16.5})}
        ),
    }
)  # fmt: skip
survey = make_survey(shallow)
clusters = survey["raw_clusters"].select(["cluster_id", "ra", "dec", "z"])
galaxies = survey["raw_galaxies"].select(["ra", "dec", "z", "r_mag"])
print(
    clusters.num_rows,
    "clusters,",
    galaxies.num_rows,
    "galaxies, faintest r =",
    round(max(galaxies["r_mag"].to_pylist()), 2),
)

# %% [markdown]
# ## The model that ships says no
#
# `cmass estimate` reads the depth off the magnitudes (or, without magnitudes, off the number of galaxies around the clusters) and compares it with that of its mocks.
# There are masses, and each carries a flag: too few galaxies for their depth, so the masses come out too low.

# %%
import cmass
from cmass.columns import FLAGS

wrong = cmass.estimate(clusters, galaxies, progress=False)
flag = FLAGS["depth_outside_training"].value
told = np.mean(wrong["flag"].to_numpy() & flag > 0)
true_of = dict(
    zip(
        *(survey["survey_truth"][c].to_pylist() for c in ("cluster_id", "log10_m200c_true")),
        strict=True,
    )
)
true = np.array([true_of[name] for name in clusters["cluster_id"].to_pylist()])
bias = np.nanmedian(wrong["log10_m200c"].to_numpy() - true)
print(
    f"{100 * told:.0f} % flagged as of another depth; their masses are off by {bias:+.2f} dex (median)"
)
assert told == 1
assert bias < -0.15

# %% [markdown]
# ## What the mocks must be like
#
# `measure` looks at the two tables: how deep, how near and far. `parameters` turns that into the parameters of a run: the flux limit of the mocks, their distances, their
# redshift. Everything else of the simulator stays as it is, and that is the assumption to think about: galaxies in your survey populate haloes as they do in SDSS, and
# its incompleteness is like SDSS's.

# %%
from cmass.estimation import like
from cmass.pretrained import load_bundle

found = like.measure((clusters, galaxies), load_bundle())
print(
    f"limit r = {found.depth.limit_mag:.2f} ± {found.depth.error_mag:.2f} (from {found.depth.how}); z {found.z[0]:.3f} to {found.z[1]:.3f}"
)
assert abs(found.depth.limit_mag - 16.5) < 0.15

smoke = load_params(None, "smoke")
sizes = {
    "mock": smoke.mock.model_copy(
        update={"haloes": smoke.mock.haloes.model_copy(update={"n_windows": 480}), "haloes_per_shard": 60}
    ),
    "population": smoke.population.model_copy(update={"n_windows": 40}),
    "split": smoke.split.model_copy(update={"train": 300, "test": 100, "evaluation": 50}),
    "voxels": smoke.voxels.model_copy(update={"n": 20}),
    "train": smoke.train.model_copy(update={"epochs": 10, "batch_size": 20}),
    "oddity": smoke.oddity.model_copy(update={"n_injected": 20}),
    "workers": 1,
}  # fmt: skip
params = like.parameters(found, smoke.model_copy(update=sizes))
print(
    "mocks to r =",
    params.mock.galaxies.flux_limit_mag,
    "at",
    params.mock.haloes.distance_min_mpc_h,
    "to",
    params.window.distance_max_mpc_h,
    "Mpc/h",
)

# %% [markdown]
# ## Train and calibrate
#
# `train` runs the steps of the pipeline that make a model: mocks, sets, grids, training, posterior (calibrated on mocks that the network has not seen), oddity (what mocks look like), evaluation. What is there is not made
# again, so an interrupted training goes on where it stopped. The folder that it leaves is a model like the one that ships.

# %%
figures = like.train(found, params, Path("models/shallow"))
print(
    {
        name: round(figures[name], 3)
        for name in ("epsilon_mean", "epsilon_scatter", "coverage_error_max")
    }
)
assert figures["epsilon_scatter"] < 0.45
print(sorted(p.name for p in Path("models/shallow").iterdir()))

# %% [markdown]
# ## Masses with it

# %%
import matplotlib.pyplot as plt

right = cmass.estimate(clusters, galaxies, model="models/shallow", progress=False)
assert not np.any(right["flag"].to_numpy() & flag)

figure, axes = plt.subplots(figsize=(5, 4.5))
for table, words in (
    (wrong, "the model that ships (flagged)"),
    (right, "the model for this survey"),
):
    axes.plot(true, table["log10_m200c"].to_numpy(), "o", ms=4, label=words)
axes.plot([13.8, 15], [13.8, 15], color="grey", lw=1)
axes.set(xlabel=r"true $\log_{10} M_{200c}$ ($h^{-1} M_\odot$)", ylabel="point estimate")
axes.legend(fontsize=8)
after = np.nanmedian(right["log10_m200c"].to_numpy() - true)
print(
    f"median offset: {bias:+.2f} dex with the model that ships, {after:+.2f} dex with the survey's own"
)
assert abs(after) < abs(bias)

# %% [markdown]
# ## Before you use it for science
#
# - Train with `--profile standard` (13 200 mocks) or `paper`, not with some hundred. The command says scatter and the largest coverage error on the evaluation set; a good model has a
#   coverage error below 0.05.
# - Look at `depth`. A survey whose magnitudes end softly (incompleteness, several programmes) has no one limit: say yours with `--depth`.
# - Compare mocks and survey: the flag `unlike_mocks` should name about 1 % of your clusters. If it names many, the mocks are not like your survey, and no
#   calibration on mocks helps.
# - Clusters beyond z = 0.25 are refused: luminosity functions and K-corrections of the simulator end there.
