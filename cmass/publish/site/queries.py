"""Sample queries of the console: what people ask first, in the release's own tables and macros."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A question and the SQL that answers it; x and y are columns of its plot, if it has one."""

    name: str
    words: str
    sql: str
    x: str = ""
    y: str = ""


QUERIES = (
    Query(
        "massive", "The most massive clusters nearer than z = 0.05",
        """SELECT cluster_id, z, log10_m200c_p50, sigma_minus, sigma_plus, flag
FROM masses
WHERE z < 0.05
ORDER BY log10_m200c_p50 DESC NULLS LAST
LIMIT 20""",
        "z", "log10_m200c_p50",
    ),
    Query(
        "cone", "Masses within 3 degrees of a position (here the Coma cluster)",
        """SELECT cluster_id, ra, dec, z, log10_m200c_p50, separation_deg
FROM cone(194.95, 27.98, 3)""",
        "separation_deg", "log10_m200c_p50",
    ),
    Query(
        "above", "Clusters above 10^14.5 h⁻¹ M☉ with a probability of 90 %",
        """SELECT cluster_id, z, log10_m200c_p50,
       round(prob_above(cluster_id, 14.5), 3) AS probability
FROM masses
WHERE log10_m200c_p50 > 14.5 AND prob_above(cluster_id, 14.5) > 0.9
ORDER BY probability DESC""",
    ),
    Query(
        "galweight", "Beside GalWeight: clusters that differ by more than two of their errors",
        """SELECT m.cluster_id, m.log10_m200c_p50, c.log10_m200_galweight,
       round((m.log10_m200c_p50 - c.log10_m200_galweight) / sqrt(
           ((m.sigma_minus + m.sigma_plus) / 2) ** 2 + c.log10_m200_galweight_err ** 2
       ), 2) AS pull
FROM masses AS m JOIN clusters AS c USING (cluster_id)
WHERE abs(pull) > 2
ORDER BY abs(pull) DESC""",
        "log10_m200_galweight", "log10_m200c_p50",
    ),
    Query(
        "expected", "How many clusters are above each mass, by the sum of posteriors",
        """SELECT log10_m, sum(prob_above(cluster_id, log10_m)) AS clusters_above,
       sqrt(sum(prob_above(cluster_id, log10_m) * (1 - prob_above(cluster_id, log10_m)))) AS error
FROM masses, (SELECT unnest([13.75, 14.0, 14.25, 14.5, 14.75]) AS log10_m)
GROUP BY log10_m
ORDER BY log10_m""",
        "log10_m", "clusters_above",
    ),
    Query(
        "stack", "Stacked phase space: velocity dispersion by projected radius, most massive clusters",
        """SELECT round(floor(4 * sqrt(x_proj ** 2 + y_proj ** 2)) / 4 + 0.125, 3) AS radius_mpc_h,
       count(*) AS galaxies, round(stddev_samp(v_los)) AS dispersion_km_s
FROM galaxies JOIN (
    SELECT cluster_id FROM masses ORDER BY log10_m200c_p50 DESC NULLS LAST LIMIT 50
) USING (cluster_id)
WHERE abs(v_los) < 1500
GROUP BY radius_mpc_h
ORDER BY radius_mpc_h""",
        "radius_mpc_h", "dispersion_km_s",
    ),
    Query(
        "flags", "How many clusters carry each combination of flags",
        """SELECT flag, count(*) AS clusters, round(median(log10_m200c_p50), 2) AS median_mass
FROM masses
GROUP BY flag
ORDER BY clusters DESC""",
    ),
    Query(
        "columns", "Every column with its unit and what it is",
        """SELECT table_name, column_name, data_type, comment
FROM duckdb_columns()
WHERE NOT internal
ORDER BY table_name, column_index""",
    ),
    Query(
        "calibration", "How good the masses are: the numbers of the report",
        """SELECT metric, bin, value, error, paper_value, unit
FROM calibration
WHERE bin = 'all'
ORDER BY metric""",
    ),
)  # fmt: skip
