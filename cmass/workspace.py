"""Where every product lives: the layout of the data folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

#: Whose products a workspace shows: those of the latest training, of the model in force, or of the
#: latest training with what it said of the survey before it was judged.
View = Literal["made", "champion", "trial"]
#: Folder of a release's site, in that of the release; no part of what the release promises.
SITE = "site"


@dataclass(frozen=True)
class Workspace:
    """The data folder of one profile and one survey.

    Parameters
    ----------
    root : Path
        The data folder, ``data`` in a clone.
    profile : str
        Products of a profile live in ``<root>/<profile>``.
    survey : str
        ``embedded`` or ``sdss``: products of a survey live in ``<root>/<profile>/<survey>``.
    view : str
        ``made``: models, and the mocks behind them, are those of the latest training.
        ``champion``: they are those of the model that gives the masses, below ``champion/``.
        ``trial``: as made, and masses, realism and figures lie below ``<survey>/trial/``.
    """

    root: Path
    profile: str
    survey: str
    view: View = "made"

    def resolved(self) -> Workspace:
        """The same with an absolute path, for processes whose current folder is another."""
        return replace(self, root=self.root.resolve())

    def seen_as(self, view: View) -> Workspace:
        """The same folder, in another view."""
        return replace(self, view=view)

    @property
    def _models(self) -> Path:
        return self.champion if self.view == "champion" else self.home

    @property
    def _survey(self) -> Path:
        return self.trial if self.view == "trial" else self.home / self.survey

    @property
    def home(self) -> Path:
        """Folder of this profile."""
        return self.root / self.profile

    @property
    def downloads(self) -> Path:
        """Bytes fetched over the network, shared by all profiles."""
        return self.root / "downloads"

    @property
    def boxes(self) -> Path:
        """Simulation files sorted into cells, one folder a set of files, shared by all profiles."""
        return self.root / "boxes"

    @property
    def raw(self) -> Path:
        """ingest: clusters.parquet, galaxies.parquet, footprint.parquet, provenance.json
        (and truth.parquet for the embedded survey, xray.parquet for sdss)."""
        return self.home / self.survey / "raw"

    @property
    def selected(self) -> Path:
        """select: clusters.parquet, galaxies.parquet, rejected.parquet."""
        return self.home / self.survey / "selected"

    @property
    def mock(self) -> Path:
        """mock: folders clusters/ and galaxies/ of shards."""
        return self._models / "mock"

    @property
    def population(self) -> Path:
        """population: folders clusters/ and galaxies/ of shards."""
        return self._models / "population"

    @property
    def split(self) -> Path:
        """split: split.parquet."""
        return self._models / "split"

    @property
    def voxels(self) -> Path:
        """voxelize: one folder of shards a set (train, validation, test, evaluation)."""
        return self.home / "voxels"

    @property
    def model(self) -> Path:
        """train: cnn3d.weights.h5, history.parquet, model.json."""
        return self._models / "model"

    @property
    def posterior(self) -> Path:
        """posterior: predictions.parquet, pairs.parquet, posterior_grid.parquet, joint.parquet."""
        return self._models / "posterior"

    @property
    def oddity(self) -> Path:
        """oddity: what mocks look like (oddity.json, oddity.parquet), and rates.parquet."""
        return self._models / "oddity"

    @property
    def evaluation(self) -> Path:
        """evaluate: calibration.parquet and the data behind the figures."""
        return self._models / "evaluation"

    @property
    def rivals(self) -> Path:
        """rivals: a folder each estimator and seed, predictions.parquet, scores.parquet, costs.parquet."""
        return self._models / "rivals"

    @property
    def study(self) -> Path:
        """study: networks of other simulators and what they say, by size."""
        return self.home / "study"

    def contracts(self, *, per_survey: bool) -> Path:
        """Results of the hand-overs of a survey's steps, or of a training's."""
        return (self.home / self.survey if per_survey else self._models) / "contracts"

    @property
    def masses(self) -> Path:
        """infer: masses.parquet, comparison numbers."""
        return self._survey / "masses"

    @property
    def realism(self) -> Path:
        """realism: realism.parquet, mocks beside the survey, and metrics.json."""
        return self._survey / "realism"

    @property
    def figures(self) -> Path:
        """figures: PDF, PNG and the tables behind each figure, and figures.json."""
        return self._survey / "figures"

    @property
    def trial(self) -> Path:
        """trial: masses/ and realism/ by the latest training; judge: decision.json."""
        return self.home / self.survey / "trial"

    @property
    def decision(self) -> Path:
        """judge: whether the latest training became the champion, gate by gate."""
        return self.trial / "decision.json"

    @property
    def champion(self) -> Path:
        """champion: the model in force with its mocks and evidence, as the registry's alias says."""
        return self.home / "champion"

    @property
    def calibration(self) -> Path:
        """`cmass calibrate`: the design's points, parameters with errors, sensitivities."""
        return self.home / self.survey / "calibration"

    @property
    def receipt(self) -> Path:
        """publish: which release this survey's products became, with checksums."""
        return self.home / self.survey / "release.json"

    @property
    def releases(self) -> Path:
        """publish: one folder a version and the link ``latest``."""
        return self.root / "release"

    @property
    def mlflow(self) -> Path:
        """Tracking store and artifacts of MLflow."""
        return self.root / "mlflow"
