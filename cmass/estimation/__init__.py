"""Masses of anyone's clusters with a trained model: `cmass.estimate` and its command."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmass import formats
from cmass.columns import FLAGS, flag_words
from cmass.errors import InputError
from cmass.estimation import intake
from cmass.estimation.centres import FARTHEST_KM_S, FARTHEST_MPC_H, Centres, recentre
from cmass.estimation.edges import find_edges
from cmass.estimation.hints import how_far, mistake
from cmass.estimation.intake import CLUSTER_COLUMNS, GALAXY_COLUMNS, Rows
from cmass.infer import Sample, masses_from_points
from cmass.oddity.depth import Depth, faint_edge
from cmass.pretrained import Bundle, load_bundle
from cmass.select import PhaseSpace, phase_space
from cmass.tables import make_table

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

#: Rows that cannot be used are named one by one up to so many.
_NAMED = 20


def estimate(
    clusters: Any, galaxies: Any, *, columns: Mapping[str, str] | None = None,
    model: Bundle | Path | str | None = None, recentred: bool = False, progress: bool = True,
) -> Any:  # fmt: skip
    """Dynamical masses M200c of clusters from the redshifts of galaxies around them.

    Parameters
    ----------
    clusters : astropy.table.Table or pyarrow.Table
        Columns cluster_id, ra, dec (J2000), z under these or the usual other names; one row a
        cluster. Angles and velocities (c z) are converted where the table has units.
    galaxies : astropy.table.Table or pyarrow.Table
        Columns ra, dec, z; one row a galaxy, in any order. It should hold
        every galaxy of the survey within 4 h⁻¹ Mpc and 2200 km/s of each cluster, not
        members alone, and be as deep as the mocks (SDSS: r < 17.77): of a thinned or cut
        window masses come out too low, and not every such cluster is flagged.
    columns : mapping of str to str, optional
        Our column name to the table's, or to ``name[unit]``, where the guess is wrong;
        ``clusters.ra`` and ``galaxies.ra`` are for one table alone.
    model : Bundle or path, optional
        A bundle, or the folder of one; by default the model that ships.
    recentred : bool
        Find the centre of each cluster in phase space first: the peak of the density of galaxies
        that is uphill from the one given, as in the mocks.
    progress : bool
        Show how far the work is, on standard error.

    Returns
    -------
    astropy.table.Table or pyarrow.Table
        Table `estimates` of the column dictionary, of the kind of `clusters` and with its
        rows in order: `masses`, and a remark in words. Rows that cannot be used (missing or impossible
        values, an identifier that appears twice, fewer than 4 galaxies) have no mass, a `flag` and a
        remark that says why.

    Raises
    ------
    InputError
        A table lacks a column, or a column holds no numbers.

    Examples
    --------
    >>> from astropy.table import Table
    >>> masses = cmass.estimate(Table.read("clusters.fits"), Table.read("galaxies.fits"))
    """
    bundle = _bundle(model)
    tables = (formats.as_arrow(clusters), formats.as_arrow(galaxies))
    made = _estimate(tables, bundle, columns or {}, recentred=recentred, progress=progress)
    if made.hint:
        log.warning("%s", made.hint)
    return made.table if isinstance(clusters, pa.Table) else formats.to_astropy(made.table)


def estimate_files(
    clusters: Path, galaxies: Path, out: Path, *, columns: Mapping[str, str] | None = None,
    model: Bundle | Path | str | None = None, recentred: bool = False, plot: Path | None = None,
) -> pa.Table:  # fmt: skip
    """Read two files, estimate masses and write them; formats by suffix.

    Parameters
    ----------
    clusters, galaxies, out : Path
    columns : mapping, optional
        Our column name to the name in the files; a name that only one of the files has
        is used for that file, and so is one for ``clusters.ra`` or ``galaxies.ra``.
    model : Bundle or path, optional
    recentred : bool
    plot : Path, optional
        Folder that gets a page a cluster, and an index of them.

    Returns
    -------
    pyarrow.Table
        What was written: table `estimates`.

    Raises
    ------
    InputError
        A file cannot be read, or no cluster has a mass; masses were written in the second case.
    """
    formats.format_of(out)
    for path in (clusters, galaxies):
        if path.exists() and out.exists() and path.samefile(out):
            raise InputError(
                "the masses would overwrite their own input", file=out,
                remedy="Choose another file for --out",
            )  # fmt: skip
    if plot is not None and plot.exists() and not plot.is_dir():
        raise InputError("a file is where the pages should go", file=plot)
    try:  # before the work, not after it
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made: {error.strerror}", file=out.parent) from error
    if not os.access(out.parent, os.W_OK):
        raise InputError("the folder cannot be written to", file=out.parent)
    given = dict(columns or {})
    bundle = _bundle(model)
    made = _estimate(
        read_tables(clusters, galaxies, given), bundle, given, recentred=recentred,
        files=(clusters, galaxies),
    )  # fmt: skip
    formats.write(out, made.table)
    log.info("wrote %s", out)
    if plot is not None:
        from cmass.estimation import pages

        pages.write(plot, made.table, made.sample, bundle)
        log.info("wrote %s", plot / "index.html")
    if made.table["log10_m200c"].null_count == made.table.num_rows:
        raise InputError(
            "no cluster has a mass",
            remedy=f"{made.hint}{'. ' if made.hint else ''}Column remark of {out} says why for each",
        )
    if made.hint:
        log.warning("%s", made.hint)
    return made.table


def _bundle(model: Bundle | Path | str | None) -> Bundle:
    return model if isinstance(model, Bundle) else load_bundle(model)


def read_tables(clusters: Path, galaxies: Path, given: Mapping[str, str]) -> tuple[pa.Table, ...]:
    """The two files that users hand in; identifiers keep their leading zeros, whatever they are called."""
    named = intake.given_for("clusters", given).get("cluster_id", "cluster_id")
    text = [named, *intake.ALIASES["cluster_id"]]
    tables = tuple(formats.read(path, text=text) for path in (clusters, galaxies))
    for path, table in zip((clusters, galaxies), tables, strict=True):
        if not table.num_rows:
            raise InputError("the table has no rows", file=path)
    return tables


@dataclass(frozen=True)
class _Made:
    """Masses, what they are of, and what looks wrong with all of them."""

    table: pa.Table
    sample: Sample
    hint: str


def _estimate(
    tables: tuple[pa.Table, ...], bundle: Bundle, given: Mapping[str, str], *, recentred: bool = False,
    progress: bool = True, files: tuple[Path | None, Path | None] = (None, None),
) -> _Made:  # fmt: skip
    clusters, galaxies = read_rows(tables, given, files)
    good = clusters.good
    _tell_bad_clusters(clusters, files[0])
    places = usable_galaxies(galaxies, files[1])
    found = None
    if recentred and good.any():
        found = recentre(
            clusters.ra[good], clusters.dec[good], clusters.z[good], places, bundle.window,
            bundle.cosmology, bundle.centre_kernel,
        )  # fmt: skip
        for name in ("ra", "dec", "z"):
            getattr(clusters, name)[good] = getattr(found, name)
    about = (clusters.ra[good], clusters.dec[good], clusters.z[good])
    space = phase_space(*about, *places, bundle.window, bundle.cosmology)
    missing = np.zeros(good.size)
    missing[good] = find_edges(*about, places, bundle.window, bundle.cosmology)
    sample = sample_of(clusters, good, space)
    sample.flag[missing > 0] |= FLAGS["window_incomplete"].value
    masses = masses_from_points(
        sample, bundle, depth=depth_by_magnitudes(galaxies), progress=progress
    )
    result = _with_remarks(masses, clusters.reasons, _shifts(found, good), missing)
    _summarise(result)
    return _Made(result, sample, _hint(result, clusters, galaxies, bundle))


def depth_by_magnitudes(galaxies: Rows) -> Depth | None:
    """Depth of a survey by the magnitudes of its galaxies; None where they do not tell."""
    return None if galaxies.r_mag is None else faint_edge(galaxies.r_mag[galaxies.good])


def read_rows(
    tables: tuple[pa.Table, ...], given: Mapping[str, str], files: tuple[Path | None, Path | None]
) -> tuple[Rows, Rows]:
    """Columns of both tables as numbers; says which column is what."""
    names = [table.column_names for table in tables]
    for ours, theirs in given.items():
        if not any(theirs in n or theirs.rpartition("[")[0] in n for n in names):
            raise InputError(
                f"neither table has a column {theirs!r} to be used as {ours}", column=theirs,
                remedy=f"{files[0] or 'The table of clusters'} has {', '.join(names[0])}",
            )  # fmt: skip
    chosen = []
    for what, table, needed, file in zip(
        ("clusters", "galaxies"), tables, (CLUSTER_COLUMNS, GALAXY_COLUMNS), files, strict=True
    ):
        chosen.append(intake.choose(table, needed, intake.given_for(what, given), what, file))
        log.info("%s: %s", file or what, intake.told(chosen[-1]))
    clusters = intake.cluster_rows(tables[0], chosen[0], files[0])
    return clusters, intake.rows_of(tables[1], chosen[1], "galaxies", files[1])


def _tell_bad_clusters(clusters: Rows, file: Path | None) -> None:
    """Name clusters that cannot be used; `InputError` if they are all of them."""
    if clusters.reasons and not clusters.good.any():
        raise InputError(
            f"no cluster can be used: {clusters.reasons[0]}", file=file, row=1,
            remedy=intake.rows_hint(clusters, "clusters"),
        )  # fmt: skip
    bad = [row for row, reason in enumerate(clusters.reasons) if reason]
    for row in bad[:_NAMED]:
        log.warning(
            "cluster in row %d (%s) has no mass: %s", row + 1, clusters.cluster_id[row] or "no cluster_id",
            clusters.reasons[row],
        )  # fmt: skip
    if len(bad) > _NAMED:
        log.warning("%d more clusters cannot be used: see column remark", len(bad) - _NAMED)


def usable_galaxies(galaxies: Rows, file: Path | None) -> tuple[Array, Array, Array]:
    """ra, dec and z of the galaxies that can be used."""
    usable = galaxies.good
    if usable.size and not usable.any():
        raise InputError(
            f"no galaxy can be used: {galaxies.reasons[0]}", file=file, row=1,
            remedy=intake.rows_hint(galaxies, "galaxies"),
        )  # fmt: skip
    if not usable.all():
        first = int(np.flatnonzero(~usable)[0])
        log.warning(
            "%d of %d galaxies left out, the first in row %d: %s", int((~usable).sum()), usable.size,
            first + 1, galaxies.reasons[first],
        )  # fmt: skip
    places = np.column_stack([galaxies.ra, galaxies.dec, galaxies.z])[usable]
    ordered = places[np.lexsort(places.T)]
    if repeated := int((ordered[1:] == ordered[:-1]).all(axis=1).sum()):
        log.warning(
            "%d galaxies have the ra, dec and z of another: if rows are repeated, remove them, for "
            "every one counts", repeated,
        )  # fmt: skip
    return places[:, 0], places[:, 1], places[:, 2]


def sample_of(clusters: Rows, good: NDArray[np.bool_], space: PhaseSpace) -> Sample:
    """Galaxies in the windows of the clusters that can be used; the others have none."""
    counts = np.zeros(good.size, np.int64)
    counts[good] = space.counts(int(good.sum()))
    return Sample(
        cluster_id=clusters.cluster_id, ra=clusters.ra, dec=clusters.dec, z=clusters.z,
        flag=np.where(good, 0, FLAGS["bad_input"].value).astype(np.int32),
        points=np.column_stack([space.x_proj, space.y_proj, space.v_los]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )  # fmt: skip


def _shifts(found: Centres | None, good: NDArray[np.bool_]) -> dict[str, Array]:
    """How far each centre moved; missing where none was looked for."""
    sky, speed, lost = (np.full(good.size, np.nan) for _ in range(3))
    if found is not None:
        sky[good], speed[good], lost[good] = found.shift_mpc_h, found.shift_km_s, found.lost
    return {"centre_shift_mpc_h": sky, "centre_shift_km_s": speed, "lost": lost}


def _with_remarks(
    masses: pa.Table, reasons: list[str], shifts: dict[str, Array], missing: Array
) -> pa.Table:
    """Table `estimates`: the masses, shifts of centres, and in words what a flag means for this cluster."""
    lost = shifts.pop("lost") == 1
    remarks = []
    for row, reason in enumerate(reasons):
        flag = masses["flag"][row].as_py()
        words = [reason or flag_words(flag)]
        if missing[row] == 1:
            words.append("no galaxy at any redshift lies in the window")
        elif missing[row]:
            words.append(
                f"at least {100 * missing[row]:.0f} % of the window lies outside the list of galaxies"
            )
        if lost[row]:
            words.append(
                f"centre kept: the nearest peak is beyond {FARTHEST_MPC_H} Mpc/h or {FARTHEST_KM_S:.0f} km/s"
            )
        remarks.append("; ".join(word for word in words if word))
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    return make_table("estimates", {**columns, **shifts, "remark": remarks})


def _summarise(masses: pa.Table) -> None:
    """Say how many clusters have a mass, which flags are set, and what looks wrong with all of them."""
    n = masses.num_rows
    flags = masses["flag"].to_numpy()
    log.info(
        "%d clusters, %d with a mass, %d with a posterior", n, n - masses["log10_m200c"].null_count,
        n - masses["log10_m200c_p50"].null_count,
    )  # fmt: skip
    for one in FLAGS.values():
        if count := int((flags & one.value > 0).sum()):
            log.info("%d flagged %s: %s", count, one.name, flag_words(one.value))
    odd = int((flags & FLAGS["unlike_mocks"].value > 0).sum())
    if 2 * odd > n:
        log.warning(
            "%d of %d clusters are unlike any mock, and so are their masses: the galaxies should be "
            "all of the survey in each window, members or not, to the depth of the mocks", odd, n,
        )  # fmt: skip


def _hint(masses: pa.Table, clusters: Rows, galaxies: Rows, bundle: Bundle) -> str:
    """What looks wrong where most clusters have no mass, or one that is none."""
    flag = masses["flag"].to_numpy()
    few = flag & FLAGS["too_few_galaxies"].value > 0
    odd = few | (flag & (FLAGS["bad_input"].value | FLAGS["unlike_mocks"].value) > 0)
    if 2 * odd.sum() <= odd.size:
        return ""
    # Positions may be wrong, which is what is looked for; a redshift must be one.
    known = np.isfinite(clusters.ra) & np.isfinite(clusters.dec)
    known &= intake.allowed("z", clusters.z)
    about = (clusters.ra[known], clusters.dec[known], clusters.z[known])
    good = galaxies.good
    places = (galaxies.ra[good], galaxies.dec[good], galaxies.z[good])
    names = (_position_names(clusters), _position_names(galaxies))
    if found := mistake(about, places, names, bundle.window, bundle.cosmology):
        return f"{odd.sum()} of {odd.size} clusters have no mass or an odd one: {found}"
    if 2 * few.sum() <= few.size:
        return ""
    return f"{few.sum()} of {few.size} clusters have too few galaxies: {how_far(about, places)}"


def _position_names(rows: Rows) -> tuple[str, str]:
    return rows.names["ra"], rows.names["dec"]
