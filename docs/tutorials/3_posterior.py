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
# # How the posterior works
#
# The network gives one number a cluster, d̃. A number is no measurement: it needs an error, and networks are known for errors that
# are too small. cmass gets its posteriors from counting instead. This page rebuilds them step by step, with the data of
# the model that ships, and tries to break them.
#
# ## The pairs
#
# After training, the network was shown some 20 000 mock windows that it had never seen, the *test set*. The pairs (d̃, true mass) are part of the package.

# %%
import matplotlib.pyplot as plt
import numpy as np

from cmass.pretrained import SHIPPED, load_bundle
from cmass.recalibration import Posteriors, pairs_of
from cmass.tables import read_table

model = load_bundle()
pairs = pairs_of(read_table(SHIPPED / "pairs.parquet", "test_pairs"))
estimate, true = pairs.predicted, pairs.true
print(
    f"{estimate.size} pairs; true masses {true.min():.2f} to {true.max():.2f}, estimates {estimate.min():.2f} to {estimate.max():.2f}"
)
assert estimate.size > 15000

# %% [markdown]
# The test set is flat in log mass **by design**: the same number of windows per dex from 10^13.5 to 10^15.1. That is the prior, and it
# will matter.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
left.hexbin(estimate, true, gridsize=60, bins="log", cmap="Blues")
left.plot([13.5, 15.1], [13.5, 15.1], color="C1", lw=1)
left.axvline(14.5, color="C3", ls="--")
left.set(xlabel="estimate d̃", ylabel=r"true $\log_{10} M_{200c}$", title="the pairs")
right.hist(true, 32, color="C0")
right.set(xlabel=r"true $\log_{10} M_{200c}$", title="the prior: flat, with edges")
assert np.histogram(true, 16)[0].std() / np.histogram(true, 16)[0].mean() < 0.1

# %% [markdown]
# ## The slice
#
# What is the mass of a cluster whose estimate is 14.5? Look at the mocks whose estimate was about 14.5, and histogram their true masses.
# That is the posterior $P(M \mid \tilde d)$, by the definition of conditional probability,
#
# $$P(M \mid \tilde d) = \frac{P(\tilde d, M)}{\int P(\tilde d, M')\,\mathrm{d}M'},$$
#
# with the joint density estimated by counting. A histogram of a narrow strip is noisy, so the pairs are smoothed by a bivariate Gaussian kernel
# ($H = h^2 \Sigma$, the paper's h = 0.20) and the strip becomes a line. `JointDensity` integrates that slice exactly: a
# slice of a sum of Gaussians is a sum of Gaussians.

# %%
from scipy.stats import gaussian_kde

from cmass.posterior import JointDensity, quantiles

query = 14.5
edges = model.edges
centres, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
density = JointDensity(estimate, true, bandwidth=0.20)
slice_ = density.posterior([query], edges)[0]

strip = true[np.abs(estimate - query) < 0.02]
kernel = gaussian_kde(np.stack([estimate, true]), 0.20)(
    np.stack([np.full_like(centres, query), centres])
)
kernel /= (kernel * width).sum()

figure, axes = plt.subplots(figsize=(6, 3.8))
axes.hist(
    strip, 30, density=True, color="lightgrey", label=f"{strip.size} mocks with d̃ within 0.02"
)
axes.plot(centres, slice_ / width, label="slice of the joint density")
axes.plot(centres, kernel, "k:", label="the same by scipy")
axes.set(xlabel=r"$\log_{10} M_{200c}$", ylabel="per dex")
axes.legend(fontsize=8)
print("largest difference to scipy:", f"{np.abs(slice_ / width - kernel).max():.1e} per dex")
assert np.abs(slice_ / width - kernel).max() < 0.02

# %% [markdown]
# Two things to see. The slice is a little wider than the histogram: smoothing adds its own width in quadrature, and a kernel that is too wide gives
# posteriors that are too wide. And it is not a Gaussian: the errors `sigma_minus` and `sigma_plus` differ.
#
# ## Is it right? Coverage
#
# A posterior is *calibrated* if, over many clusters, the truth lies inside the central x % interval in x % of the cases. Equivalently: the posterior
# probability below the truth, u, is uniform between 0 and 1. We may not judge on the pairs that made the density, so we take one half for it and the other to judge.

# %%
from cmass.evaluate.calibration import coverage_error, coverage_levels, interval_coverage
from cmass.posterior import cumulative_at

random = np.random.default_rng(1)
half = random.permutation(estimate.size)[: estimate.size // 2]
first, second = np.zeros(estimate.size, bool), np.ones(estimate.size, bool)
first[half], second[half] = True, False


def transforms(bandwidth):
    """Posterior probability below the truth, of the second half by the density of the first."""
    joint = JointDensity(estimate[first], true[first], bandwidth)
    return cumulative_at(joint.posterior(estimate[second], edges), edges, true[second])


level = coverage_levels(39)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
left.plot([0, 1], [0, 1], color="grey", lw=1)
errors = {}
for bandwidth in (0.05, 0.20, 0.60):
    u = transforms(bandwidth)
    u = u[np.isfinite(u)]
    errors[bandwidth] = coverage_error(u)
    left.plot(
        level,
        interval_coverage(u, level),
        label=f"bandwidth {bandwidth}: off by {errors[bandwidth]:.3f}",
    )
    right.hist(u, 20, histtype="step", density=True)
left.set(xlabel="level of the interval", ylabel="part of the truths inside")
left.legend(fontsize=8)
right.set(xlabel="posterior probability below the truth", ylim=(0, None))
right.axhline(1, color="grey", lw=1)
print({name: round(float(error), 3) for name, error in errors.items()})
assert errors[0.20] < 0.03 < errors[0.60]

# %% [markdown]
# Too wide a kernel covers too often (the histogram bulges in the middle: the truth is never in the tails). The value that ships was chosen by
# cross-validated log score (`posterior.bandwidth: auto`).
#
# Calibrated on average is not calibrated everywhere. Rich and poor clusters with the same d̃ differ, so the posteriors of cmass know the number of galaxies and the
# redshift too (`posterior.recalibration`); `model.posterior(d, n_galaxies, z)` is that, and the plain slice above is the paper's.

# %%
poor, rich = (
    model.posterior(np.array([14.2]), np.array([n]), np.array([0.06]))[0] for n in (80.0, 300.0)
)
p16, p50, p84 = quantiles(np.stack([poor, rich]), edges, [0.16, 0.5, 0.84]).T
for name, a, b, c in zip(("80 galaxies", "300 galaxies"), p16, p50, p84, strict=True):
    print(f"d̃ = 14.2, {name}: {b:.2f} -{b - a:.2f} +{c - b:.2f}")
assert np.allclose([poor.sum(), rich.sum()], 1)

# %% [markdown]
# ## The prior
#
# The slice answers: *what is the mass of a cluster drawn from a population that is flat in log mass?* The sky is not flat: there are some ten times more clusters of 10^14 than
# of 10^14.6. Of the clusters with d̃ = 14.5 on the sky, more are light ones scattered up than heavy ones scattered down. That is Eddington bias, and
# Bayes' theorem says what to do: multiply by the ratio of the priors.

# %%
from cmass.posterior import reweight

flat, by_mass_function = model.priors
sky = reweight(slice_[None], flat, by_mass_function)[0]
(a, b) = quantiles(np.stack([slice_, sky]), edges, [0.5])[:, 0]

figure, axes = plt.subplots(figsize=(6, 3.8))
axes.plot(centres, slice_ / width, label=f"flat prior: median {a:.2f}")
axes.plot(centres, sky / width, label=f"halo mass function: median {b:.2f}")
axes.plot(
    centres,
    by_mass_function / width / 10,
    color="grey",
    lw=1,
    label="the mass function, not to scale",
)
axes.set(xlabel=r"$\log_{10} M_{200c}$", ylabel="per dex", ylim=(0, 4))
axes.legend(fontsize=8)
assert -0.3 < b - a < -0.02

# %% [markdown]
# Which one is right? Each for its own population. Let the second half of the pairs stand for a sky by giving each window the weight that the mass function
# gives its mass, and look at the coverage again.

# %%
weights = np.interp(true[second], centres, by_mass_function / flat)
joint = Posteriors(pairs.take(first), model.posteriors.recalibration)
under_flat = joint.posterior(estimate[second], pairs.n_galaxies[second], pairs.z[second], edges)
under_sky = reweight(under_flat, flat, by_mass_function)
results = {}
figure, axes = plt.subplots(figsize=(5, 4.2))
axes.plot([0, 1], [0, 1], color="grey", lw=1)
for name, posterior in (("flat prior", under_flat), ("mass-function prior", under_sky)):
    u = cumulative_at(posterior, edges, true[second])
    good = np.isfinite(u)
    depth = 2 * np.abs(u[good] - 0.5)
    coverage = np.array([np.average(depth <= x, weights=weights[good]) for x in level])
    results[name] = np.abs(coverage - level).max()
    axes.plot(level, coverage, label=f"{name}: off by {results[name]:.3f}")
axes.set(
    xlabel="level of the interval",
    ylabel="part of the truths inside",
    title="a population like the sky's",
)
axes.legend(fontsize=8)
print({name: round(float(error), 3) for name, error in results.items()})
assert results["mass-function prior"] < results["flat prior"]

# %% [markdown]
# Use the flat-prior posterior to *combine with your own prior* (it is proportional to the likelihood), to stack, or to compare with other methods. Use the mass-function
# posterior for a cluster of which you know no more. A catalogue with a selection has a prior in between: reweight with yours,
# `reweight(posterior, flat, yours)`.
#
# ## Where it ends
#
# An estimate outside the range of the test set has no neighbours to count. It is flagged and gets no posterior; it is never clipped to the edge. And near the edges
# the prior ends, not the data: such clusters carry `posterior_at_edge`.

# %%
lowest, highest = model.density.calibrated_range
outside = model.posterior(np.array([highest + 0.2]), np.array([200.0]), np.array([0.05]))
print(f"calibrated from {lowest:.2f} to {highest:.2f}; beyond:", outside[0][:3])
assert np.isnan(outside).all()

# %% [markdown]
# All of this rests on the mocks: the posterior is what follows *if the sky is like them*. [The mocks](../mocks.md) and [realism](../realism.md) say how far that holds, and
# the flag `unlike_mocks` names clusters for which it does not.
