"""Where every product lives: the layout of the data folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


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
    """

    root: Path
    profile: str
    survey: str

    def resolved(self) -> Workspace:
        """The same with an absolute path, for processes whose current folder is another."""
        return replace(self, root=self.root.resolve())

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
        return self.home / "mock"

    @property
    def population(self) -> Path:
        """population: folders clusters/ and galaxies/ of shards."""
        return self.home / "population"

    @property
    def split(self) -> Path:
        """split: split.parquet."""
        return self.home / "split"

    @property
    def voxels(self) -> Path:
        """voxelize: one folder of shards a set (train, validation, test, evaluation)."""
        return self.home / "voxels"

    @property
    def model(self) -> Path:
        """train: cnn3d.weights.h5, history.parquet, model.json."""
        return self.home / "model"

    @property
    def posterior(self) -> Path:
        """posterior: predictions.parquet, pairs.parquet, posterior_grid.parquet, joint.parquet."""
        return self.home / "posterior"

    @property
    def oddity(self) -> Path:
        """oddity: what mocks look like (oddity.json, oddity.parquet), and rates.parquet."""
        return self.home / "oddity"

    @property
    def evaluation(self) -> Path:
        """evaluate: calibration.parquet and the data behind the figures."""
        return self.home / "evaluation"

    @property
    def rivals(self) -> Path:
        """rivals: a folder each estimator and seed, predictions.parquet, scores.parquet, costs.parquet."""
        return self.home / "rivals"

    @property
    def study(self) -> Path:
        """study: networks of other simulators and what they say, by size."""
        return self.home / "study"

    @property
    def masses(self) -> Path:
        """infer: masses.parquet, comparison numbers."""
        return self.home / self.survey / "masses"

    @property
    def realism(self) -> Path:
        """realism: realism.parquet, mocks beside the survey, and metrics.json."""
        return self.home / self.survey / "realism"

    @property
    def figures(self) -> Path:
        """figures: PDF, PNG and the tables behind each figure, and figures.json."""
        return self.home / self.survey / "figures"

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
