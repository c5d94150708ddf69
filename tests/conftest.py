"""Fixtures that several tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run in small (see tests/tiny.py): workspace and parameters. Read only."""
    pytest.importorskip("tensorflow")
    from tests.tiny import finished_run

    return finished_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run, tmp_path_factory):
    """Folder of the bundle of the finished run. Read only."""
    from cmass.pretrained import make_bundle

    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(*tiny_run, folder, commit="0123abc")
    return folder
