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
# # From a table to masses
#
# You have a list of clusters and a redshift survey around them, and want a mass for each cluster with an honest error.
# This page goes the whole way: the two tables, the command, what comes back, how to read the flags, and three ways to get it wrong.
# It needs no network, no training and no data of your own: we let the simulator of cmass make a small patch of sky whose true masses we know.
#
# ## A small survey
#
# `make_survey` draws haloes from the mass function in a footprint, puts galaxies in and around them, and observes them to r = 17.77.
# The catalogue that it returns is what an astronomer would have; the truth is in a table of its own, and we look at it only at the end.

# %%
from cmass.mock.survey import make_survey
from cmass.params import Params

params = Params()
patch = params.ingest.embedded.model_copy(
    update={"ra_min_deg": 10.0, "ra_max_deg": 30.0, "dec_min_deg": 0.0, "dec_max_deg": 15.0,
            "log10_m200c_min": 13.9}
)  # fmt: skip
params = params.model_copy(update={"ingest": params.ingest.model_copy(update={"embedded": patch})})
survey = make_survey(params)
print({name: table.num_rows for name, table in survey.items()})

# %% [markdown]
# ## Two tables
#
# Your files will not have our column names. Let us write the clusters as somebody else would: a CSV file with `Name`, `RAJ2000`, `DEJ2000`, and
# a velocity `cz` in km/s for a redshift. The galaxies go into a FITS table with units. Two rules matter more than names:
#
# - **all galaxies of the survey** within 4 h⁻¹ Mpc and 2200 km/s of each cluster, members or not. The network was trained on
#   whole windows and reads the background as well;
# - **as deep as the mocks**: r < 17.77 for the model that ships.

# %%
import numpy as np
from astropy.table import Table

from cmass import formats

catalogue = formats.to_astropy(survey["raw_clusters"])
clusters = Table(
    {"Name": catalogue["cluster_id"], "RAJ2000": catalogue["ra"], "DEJ2000": catalogue["dec"],
     "cz": np.round(catalogue["cz_km_s"], 1)}
)  # fmt: skip
clusters.write("clusters.csv", overwrite=True)

seen = formats.to_astropy(survey["raw_galaxies"])
galaxies = seen["ra", "dec", "z"]
galaxies.write("galaxies.fits", overwrite=True)
clusters[:4]

# %% [markdown]
# ## One command
#
# In a shell:
#
# ```sh
# cmass estimate clusters.csv galaxies.fits --out masses.ecsv
# ```
#
# It says which column it took for what; `--column ra=MY_RA` corrects a wrong guess. The same from Python, file to file:

# %%
import logging
from pathlib import Path

from cmass.estimation import estimate_files

logging.basicConfig(level=logging.INFO, format="%(message)s")
estimate_files(Path("clusters.csv"), Path("galaxies.fits"), Path("masses.ecsv"))
masses = Table.read("masses.ecsv")
assert len(masses) == len(clusters)

# %% [markdown]
# And table to table, without files: `cmass.estimate(clusters, galaxies)` takes astropy or Arrow tables and returns the same kind.

# %%
import cmass

again = cmass.estimate(clusters, galaxies, progress=False)
assert np.allclose(again["log10_m200c"], masses["log10_m200c"], atol=1e-5)
for row in masses[:6]:
    low, middle, high = (row[f"log10_m200c_{p}"] for p in ("p16", "p50", "p84"))
    print(
        f"{row['cluster_id']}  z {row['z']:.4f}  {row['n_galaxies']:4d} galaxies  "
        f"{middle:.2f} -{middle - low:.2f} +{high - middle:.2f}"
    )

# %% [markdown]
# ## What a row says
#
# - `log10_m200c_p50` with `_p16` and `_p84` is the posterior under a **flat prior** in log mass: median and the central 68 %. The mass is
#   M200c in h⁻¹ M☉, always.
# - `log10_m200c_hmf_…` is the same posterior under the **halo mass function**. Which of the two you want depends on your question;
#   [how the posterior works](3_posterior.py) has the long answer. In short: for one cluster of which you know nothing else, the second.
# - `log10_m200c` is the network's point estimate, which is not a posterior's median. Do not quote it with the posterior's errors.
# - `flag` is a bit mask and `remark` says the same in words. Empty is good.
#
# Every column with unit and range: [Tables and columns](../reference/columns.md#estimates).

# %%
for row in masses:
    if row["remark"]:
        print(row["cluster_id"], row["flag"], row["remark"])

# %% [markdown]
# ## Against the truth
#
# Now the truth, which only a simulation has. Each point is a cluster with its 68 % interval.

# %%
import matplotlib.pyplot as plt

names, masses_true = (
    survey["survey_truth"][c].to_pylist() for c in ("cluster_id", "log10_m200c_true")
)
truth = dict(zip(names, masses_true, strict=True))
true = np.array([truth[name] for name in masses["cluster_id"]])
low, middle, high = (np.array(masses[f"log10_m200c_{p}"]) for p in ("p16", "p50", "p84"))
odd = np.array(masses["flag"]) > 0

figure, axes = plt.subplots(figsize=(5, 4.5))
for chosen, colour, words in ((~odd, "C0", "no flag"), (odd, "C1", "flagged")):
    errors = [(middle - low)[chosen], (high - middle)[chosen]]
    axes.errorbar(true[chosen], middle[chosen], errors, fmt="o", ms=4, color=colour, label=words)
axes.plot([13.7, 15], [13.7, 15], color="grey", lw=1)
axes.set(
    xlabel=r"true $\log_{10} M_{200c}$ ($h^{-1} M_\odot$)", ylabel=r"posterior, median and 68 %"
)
axes.legend()

inside = np.mean((true > low) & (true < high))
print(
    f"{len(true)} clusters: scatter {np.std(middle - true):.2f} dex, {100 * inside:.0f} % inside their 68 % interval"
)
assert np.std(middle - true) < 0.3
assert 0.4 < inside < 0.95

# %% [markdown]
# A score of clusters cannot tell 68 % from 55 or 80 %: the binomial error is 10 %. The proof with thousands is in [the science](../science.md).
#
# ## The whole posterior
#
# `posterior` holds the probability in each bin of the model's grid. Any number that you want follows from it, for example the
# probability that a cluster is heavier than 10^14.3.

# %%
from cmass.pretrained import load_bundle

edges = load_bundle().edges
centres = 0.5 * (edges[1:] + edges[:-1])
posterior = np.array(masses["posterior"].tolist(), float)
assert np.allclose(posterior.sum(axis=1), 1, atol=1e-4)

figure, axes = plt.subplots(figsize=(6, 3.5))
for row in np.argsort(middle)[:: len(middle) // 4][:5]:
    (line,) = axes.plot(centres, posterior[row] / np.diff(edges), label=masses["cluster_id"][row])
    axes.axvline(true[row], color=line.get_color(), ls=":", lw=1)
axes.set(
    xlabel=r"$\log_{10} M_{200c}$ ($h^{-1} M_\odot$)", ylabel="posterior, per dex", ylim=(0, None)
)
axes.legend(fontsize=8, title="dotted: truth")

above = posterior[:, centres > 14.3].sum(axis=1)
print(
    "expected number of clusters above 10^14.3:",
    round(above.sum(), 1),
    " true:",
    int((true > 14.3).sum()),
)

# %% [markdown]
# ## Three ways to get it wrong
#
# **Members only.** A list of members looks cleaner than a whole window, and gives masses that are far too low: without background there is
# nothing to compare with. Most such clusters are flagged as unlike any mock, not all of them.

# %%
one = int(np.argmax(middle))
centre = masses[one]
far = np.hypot(
    (galaxies["ra"] - centre["ra"]) * np.cos(np.radians(centre["dec"])),
    galaxies["dec"] - centre["dec"],
)
speed = 299792.458 * (galaxies["z"] - centre["z"]) / (1 + centre["z"])
members = galaxies[(far < 0.35) & (np.abs(speed) < 1200)]
logging.getLogger("cmass").setLevel(logging.ERROR)
alone = cmass.estimate(clusters[[one]], members, progress=False)
print(
    f"whole window {middle[one]:.2f}, members alone {alone['log10_m200c_p50'][0]:.2f}: {alone['remark'][0]}"
)
assert alone["log10_m200c_p50"][0] < middle[one] - 0.3

# %% [markdown]
# **Broken rows.** A row that cannot be used keeps its place, has no mass, and says why. The others are as before.

# %%
broken = clusters.copy()
broken["cz"][0] = -1.0
broken["DEJ2000"][1] = 123.4
partly = cmass.estimate(broken, galaxies, progress=False)
print(partly["remark"][0], "|", partly["remark"][1])
assert partly["log10_m200c"].mask[:2].all() and np.allclose(
    partly["log10_m200c"][2:], again["log10_m200c"][2:]
)

# %% [markdown]
# **Centres off.** The network was trained on centres as a finder finds them. If yours are X-ray peaks of mergers or positions to an arc minute, let
# `--recentre` (here `recentred=True`) walk to the peak of the galaxies in phase space first. The columns `centre_shift_…` say how far it was.

# %%
shifted = clusters.copy()
shifted["DEJ2000"] += 0.25
off = cmass.estimate(shifted, galaxies, progress=False)
found = cmass.estimate(shifted, galaxies, recentred=True, progress=False)


def mean_change(table):
    """Mean absolute change of the median mass against the right centres, dex; those with a posterior in both."""
    change = np.ma.filled(np.ma.asarray(table["log10_m200c_p50"], float), np.nan) - middle
    return np.nanmean(np.abs(change))


print(
    f"centres 15' off: masses change by {mean_change(off):.2f} dex; recentred: {mean_change(found):.2f} dex"
)
assert mean_change(found) < mean_change(off)

# %% [markdown]
# Where next: [what to do when something goes wrong](../mistakes.md), [every option](../reference/commands.md#cmass-estimate), and, if your survey is deeper or
# shallower than r = 17.77, train a model of your own.
