"""Downloads against a real server on this machine that misbehaves."""

import pytest

from cmass.errors import SourceError
from cmass.ingest.http import DamagedError, Downloader
from cmass.tables import read_json


def whole(path):
    if not path.read_text().endswith("\n"):
        raise DamagedError("cut")


@pytest.fixture
def downloader(tmp_path, network_params):
    waits: list[float] = []
    made = Downloader(tmp_path / "downloads", network_params.ingest.network, sleep=waits.append)
    made.waits = waits
    return made


@pytest.mark.parametrize(
    "fault", ["drop", "500", "429", "html", "truncate", "cut", "empty"]
)  # fmt: skip
def test_a_passing_fault_is_tried_again(archive, downloader, fault):
    archive.fail("/window.ply", fault, fault)
    got = downloader.fetch(archive.url + "/window.ply", {}, whole)
    assert got.path.read_text() == archive.window
    assert len(archive.asked) == 3 and len(downloader.waits) == 2


def test_waits_double(archive, tmp_path, network_params):
    waits: list[float] = []
    settings = network_params.ingest.network.model_copy(update={"backoff_s": 1.5})
    archive.fail("/window.ply", "500", "500", "500")
    Downloader(tmp_path, settings, sleep=waits.append).fetch(
        archive.url + "/window.ply", {}, whole
    )  # fmt: skip
    assert waits == [1.5, 3.0, 6.0]


def test_a_server_that_trickles_meets_the_time_limit(archive, tmp_path, network_params):
    """Every block comes in time, the body does not."""
    archive.window = "x" * 20_000 + "\n"  # 40 blocks with 0.15 s between them
    archive.fail("/window.ply", "slow", "slow")
    settings = network_params.ingest.network.model_copy(update={"timeout_s": 0.5, "attempts": 2})
    with pytest.raises(SourceError, match="not done after"):
        Downloader(tmp_path, settings, sleep=lambda _: None).fetch(
            archive.url + "/window.ply", {}, whole
        )
    assert not list(tmp_path.glob("*.body"))


def test_gives_up_with_the_reason_and_keeps_nothing_broken(archive, downloader):
    archive.fail("/window.ply", *["html"] * 9)
    with pytest.raises(SourceError, match=r"4 tries.*Come back later.*run the same command again"):
        downloader.fetch(archive.url + "/window.ply", {}, whole)
    assert len(archive.asked) == 4
    assert not [p for p in downloader.folder.iterdir() if p.suffix in (".body", ".json", ".tmp")]


def test_a_refusal_is_final(archive, downloader):
    archive.fail("/window.ply", "404")
    with pytest.raises(SourceError, match=r"HTTP 404.*Service unhappy"):
        downloader.fetch(archive.url + "/window.ply", {}, whole)
    assert len(archive.asked) == 1


def test_nobody_listens(downloader, archive):
    with pytest.raises(SourceError, match="gave no usable answer in 4 tries"):
        downloader.fetch("http://127.0.0.1:9/window.ply", {}, whole)
    with pytest.raises(SourceError, match="cannot be asked"):
        downloader.fetch("gopher-no://x", {}, whole)


def test_what_is_intact_is_not_fetched_again(archive, downloader):
    first = downloader.fetch(archive.url + "/window.ply", {"a": "1"}, whole)
    again = downloader.fetch(archive.url + "/window.ply", {"a": "1"}, whole)
    other = downloader.fetch(archive.url + "/window.ply", {"a": "2"}, whole)
    assert first == again and other.path != first.path
    assert len(archive.asked) == 2


@pytest.mark.parametrize("damage", ["body", "note", "lost note", "other url"])
def test_what_is_damaged_is_fetched_again(archive, downloader, damage):
    got = downloader.fetch(archive.url + "/window.ply", {}, whole)
    note = got.path.with_suffix(".json")
    if damage == "body":
        got.path.write_bytes(got.path.read_bytes()[:-7])
    elif damage == "note":
        note.write_text("{")
    elif damage == "lost note":
        note.unlink()
    else:
        note.write_text(note.read_text().replace("window", "widow"))
    again = downloader.fetch(archive.url + "/window.ply", {}, whole)
    assert again.path.read_text() == archive.window
    assert len(archive.asked) == 2
    assert read_json(note)["sha256"] == again.sha256


def test_an_answer_without_end_is_refused(archive, downloader, monkeypatch):
    from cmass.ingest import http

    monkeypatch.setattr(http, "BODY_MAX_BYTES", 100)
    archive.window = "x" * 1000 + "\n"
    with pytest.raises(SourceError, match="no answer is that long"):
        downloader.fetch(archive.url + "/window.ply", {}, whole)
    assert not [p for p in downloader.folder.iterdir() if p.suffix in (".body", ".json", ".tmp")]
