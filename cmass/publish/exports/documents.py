"""Text beside the tables: data dictionary, citation, licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from cmass.columns import FLAGS
from cmass.publish.database import MACROS
from cmass.publish.exports.votable import sources
from cmass.publish.readme import describe, render
from cmass.tables import write_json

#: What units and words of the dictionary mean where that cannot be guessed.
CONVENTIONS = {
    "h": "H0 / (100 km/s/Mpc); Mpc/h and Msun/h carry h⁻¹, and h is no hour",
    "log10(Msun/h)": "a mass as the logarithm to base 10 of its number of solar masses over h",
    "dex": "a difference of such logarithms",
    "M200c": "mass inside the radius within which the mean density is 200 times the critical density "
             "at the cluster's redshift",
    "missing": "null in Parquet and DuckDB, NaN in FITS and VOTable, blank in the CDS tables",
}  # fmt: skip


def write(
    folder: Path, tables: Mapping[str, pa.Table], facts: Mapping[str, Any], changes: str
) -> None:
    """Write data dictionary, CITATION.cff, LICENSE.md and changes.md of a release."""
    about = {name: describe(name, table) for name, table in tables.items()}
    write_json(folder / "data_dictionary.json", dictionary(about, facts))
    texts = {
        "data_dictionary.md": render(
            "data_dictionary.md.jinja2", tables=about, release=facts["release"], macros=MACROS,
            flags=FLAGS.values(), conventions=CONVENTIONS,
        ),
        "CITATION.cff": citation(facts),
        "LICENSE.md": render(
            "licence.md.jinja2", licence=facts["parameters"]["publish"]["licence"],
            release=facts["release"], sources=sources(facts),
        ),
        "changes.md": changes,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def dictionary(about: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The data dictionary for machines: every table, column, flag and macro of a release."""
    return {
        "release": facts["release"]["version"],
        "conventions": CONVENTIONS,
        "tables": about,
        "flags": [{"value": f.value, "name": f.name, "meaning": f.words} for f in FLAGS.values()],
        "macros": [
            {"name": name, "parameters": parameters, "returns": "table" if is_table else "value",
             "meaning": words}
            for name, (is_table, parameters, words, _) in MACROS.items()
        ],
    }  # fmt: skip


def citation(facts: Mapping[str, Any]) -> str:
    """CITATION.cff of a release: what it is, the method's paper, and its sources."""
    release, registry = facts["release"], facts["registry"]
    model = f", by {registry['name']} version {registry['version']}" if registry else ""
    value = {
        "cff-version": "1.2.0",
        "message": "If you use these masses, cite this release, the method and the sources below.",
        "title": f"{facts['parameters']['publish']['title']}, release {release['version']}",
        "abstract": f"Masses of the galaxy clusters of the survey {release['survey']} with "
                    f"posteriors{model}; profile {release['profile']}.",
        "type": "dataset",
        "version": release["version"],
        "date-released": release["created"][:10],
        "license": facts["parameters"]["publish"]["licence"],
        "authors": [{"name": "the cmass developers"}],
        "keywords": ["galaxy clusters", "masses", "redshift surveys"],
        "references": [_METHOD, *(
            {
                "type": "data", "title": f"{name}: {source.get('producer', source['citation'])}",
                "authors": [{"name": source.get("producer", "see notes")}],
                "notes": source["citation"],
            }
            for name, source in sources(facts).items() if "citation" in source
        )],
    }  # fmt: skip
    if commit := facts["software"].get("git_commit"):
        value["commit"] = commit
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


_METHOD = {
    "type": "article",
    "title": "Simulation-based inference of dynamical galaxy cluster masses with 3D convolutional "
             "neural networks",
    "authors": [
        {"family-names": "Kodi Ramanah", "given-names": "Doogesh"},
        {"family-names": "Wojtak", "given-names": "Radosław"},
        {"family-names": "Arendse", "given-names": "Nikki"},
    ],
    "journal": "Monthly Notices of the Royal Astronomical Society",
    "volume": 501,
    "start": 4080,
    "year": 2021,
    "identifiers": [{"type": "other", "value": "arXiv:2009.03340"}],
}  # fmt: skip
