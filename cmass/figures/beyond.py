"""Beyond the paper: the figures of the studies that were made (`cmass study`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from cmass.figures.house import Entry, Source, Tables
from cmass.params import Params
from cmass.study import STUDIES, Study, is_current, open_study
from cmass.workspace import Workspace

_TITLES = {
    "learning": "Learning curve", "leak": "What a random split leaks",
    "sensitivity": "Sensitivity to choices and conditions", "ensemble": "Ensembles of networks",
    "sightlines": "The floor set by the sight line", "fibres": "Fibre collisions",
    "priors": "Two priors, two populations",
}  # fmt: skip


def _path(study: Study, product: str) -> Callable[[Workspace], Path]:
    return lambda workspace: study.folder(workspace) / f"{product}.parquet"


def sources() -> dict[str, Source]:
    """The studies' tables as sources of figures, by name."""
    return {
        product: Source(
            product, _path(study, product), f"cmass study {study.name}", partial(is_current, study)
        )
        for study in map(open_study, STUDIES) for product in study.products
    }  # fmt: skip


def _entry(study: Study) -> Entry:
    def draw(tables: Tables, params: Params) -> Figure:
        return study.figure(tables)

    return Entry(
        f"study_{study.name}", _TITLES.get(study.name, study.name.capitalize()), "beyond",
        study.products, draw, f"{study.caption}. Made by `cmass study {study.name}`.", wide=True,
    )  # fmt: skip


FIGURES = tuple(_entry(open_study(name)) for name in STUDIES)
