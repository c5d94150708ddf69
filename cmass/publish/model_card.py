"""model_card.md: what the model is for, how good it is, and where not to use it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cmass.publish import summary


def model_card(tables: dict[str, pa.Table], facts: dict[str, Any]) -> str:
    """Markdown of the model card, from the release's tables and provenance."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish", "."), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    survey = facts["release"]["survey"]
    rows = summary.numbers(tables["calibration"])
    main = [r for r in rows if r.bin in ("all", "cnn3d", "sigma_m", survey)]
    bins = [r for r in rows if r.metric in ("epsilon_mean", "epsilon_scatter") and r.bin != "all"]
    return environment.get_template("model_card.md.jinja2").render(
        release=facts["release"], software=facts["software"],
        parameters=facts["parameters"], model=[leaf for leaf in summary.leaves(facts["model"]) if leaf[0] != "profile"],
        numbers=[r for r in main if not r.metric.startswith("n_flag_")], bins=bins,
        flags=summary.flag_counts(tables["masses"]), counts=summary.mass_counts(tables["masses"]),
    )  # fmt: skip
