"""publish and its contract: drift stops it, a reason lets it pass, the page tells all."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from cmass.contracts import handovers
from cmass.contracts.release import check_release, gather
from cmass.errors import ContractError
from cmass.params import Params
from cmass.publish import run
from cmass.publish.provenance import gather as facts_of
from cmass.publish.release import check_sums, gather_tables, last_release
from cmass.publish.report.contracts import write_contracts
from cmass.tables import make_table, read_json, read_table, write_json, write_table


def params(**drift) -> Params:
    return Params.model_validate({"profile": "smoke", "contracts": {"drift": drift}})


def shift_masses(workspace, by):
    path = workspace.masses / "masses.parquet"
    masses = read_table(path, "masses")
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    columns["log10_m200c"] = pc.add(masses["log10_m200c"], by)
    write_table(path, make_table("masses", columns), "masses")


def quarantine(workspace, n):
    columns = {
        "item": ["raw_clusters"] * n, "row_number": list(range(n)), "key_text": ["<b>GalWCat19</b>"] * n,
        "column_name": ["ra"] * n, "value_text": ["361.0"] * n, "reason": ["ra must be < 360"] * n,
        "source_file": ["galwcls.dat"] * n, "record": ["{}"] * n,
    }  # fmt: skip
    write_table(
        workspace.raw / "quarantine.parquet", make_table("quarantine", columns), "quarantine"
    )


def test_drift_stops_a_release_and_a_reason_lets_it_pass(make_workspace):
    workspace = make_workspace(n_clusters=40)
    run(workspace, params())
    latest = workspace.releases / "latest"
    first = latest.readlink()
    assert read_json(latest / "contracts.json")["drift"]["last"] is None
    receipt = workspace.receipt.read_bytes()

    shift_masses(workspace, 0.3)
    with pytest.raises(
        ContractError, match=f"(?s)drifts from the last one, {first}.*stays in force"
    ) as raised:
        run(workspace, params())
    words = str(raised.value)
    for part in ("median change +0.300 dex, its size 0.3 dex; the limit is 0.05",
                 "contracts.drift.mass_shift_max_dex", f"accept_since: {first}"):  # fmt: skip
        assert part in words
    assert raised.value.exit_code == 7
    # nothing of it is seen, and what is in force is whole
    assert latest.readlink() == first
    assert {p.name for p in workspace.releases.iterdir()} == {".lock", "latest", str(first)}
    assert workspace.receipt.read_bytes() == receipt
    check_sums(latest)
    kept = read_json(handovers.result_file(workspace, "publish"))
    assert {f["verdict"] for f in kept["drift"]["figures"]} == {"within", "beyond"}

    # accepted since another release: no
    reason = "retrained on mocks with deeper galaxies"
    with pytest.raises(ContractError):
        run(workspace, params(accept_since="2020.01.01-00000000", accept_reason=reason))
    run(workspace, params(accept_since=str(first), accept_reason=reason))
    assert latest.readlink() != first
    told = read_json(latest / "contracts.json")["drift"]
    assert (told["last"], told["accept_reason"]) == (str(first), reason)
    assert reason in (latest / "contracts.html").read_text(encoding="utf-8")
    assert "drift from" in (latest / "report.html").read_text(encoding="utf-8")
    assert last_release(workspace) == workspace.releases / latest.readlink()

    # accepted once is not accepted for good
    shift_masses(workspace, 0.3)
    with pytest.raises(ContractError, match="contracts.drift.mass_shift"):
        run(workspace, params(accept_since=str(first), accept_reason=reason))
    shift_masses(workspace, -0.3)
    run(workspace, params())
    assert read_json(workspace.receipt)["version"] == str(latest.readlink())


def checked(workspace, chosen, last=None):
    return check_release(
        workspace, chosen, gather_tables(workspace), facts_of(workspace, chosen), last
    )


def test_a_warning_lets_it_pass(make_workspace, released, params, caplog):
    workspace = make_workspace(n_clusters=40)
    shift_masses(workspace, 0.3)
    warn = Params.model_validate({"profile": "smoke", "contracts": {"drift": {"action": "warn"}}})
    result = checked(workspace, warn, last_release(released))
    assert result["success"] and "drift" not in result["tables"]
    assert "beyond: masses of the 38 clusters in both: median change +0.300 dex" in caplog.text
    with pytest.raises(ContractError, match="drifts from the last one"):
        checked(workspace, params, last_release(released))


def test_a_release_whose_tables_are_broken_is_none(make_workspace, params):
    workspace = make_workspace(n_clusters=12)
    tables = gather_tables(workspace)
    masses = tables["masses"]
    place = masses.column_names.index("z")
    z = masses["z"].to_pylist()
    z[4] = -0.5
    tables["masses"] = masses.set_column(place, masses.schema.field("z"), [z])
    with pytest.raises(ContractError, match=r"table masses, z: .*1 of 12 rows break it: -0.5"):
        check_release(workspace, params, tables, facts_of(workspace, params), None)


def test_the_page_tells_what_was_set_aside_and_not_checked(make_workspace, params, tmp_path):
    workspace = make_workspace(n_clusters=12)
    quarantine(workspace, 53)
    result = checked(workspace, params)
    contracts = gather(workspace, result)
    assert contracts["quarantine"]["n"] == 53 and len(contracts["quarantine"]["rows"]) == 50
    release = {"version": "2026.11.23-0", "survey": "sdss", "profile": "smoke", "created": "now"}
    page = tmp_path / "contracts.html"
    write_contracts(page, "<i>masses</i>", release, contracts)
    text = page.read_text(encoding="utf-8")
    assert "The first 50 of 53." in text and text.count("galwcls.dat") == 50
    assert "&lt;b&gt;GalWCat19" in text and "<b>GalWCat19" not in text and "<i>masses" not in text
    assert "Voxels" in text  # of those that were not checked
    for one in result["tables"]["statistics"]["expectations"]:
        assert one["column"] in text.replace("&#39;", "'")
    assert "fewer than 4 galaxies in the window: no mass" in text
    assert "<script" not in text and "http" not in text.split("</style>")[1]


def test_a_broken_hand_over_is_never_gathered(make_workspace, params):
    workspace = make_workspace(n_clusters=12)
    result = checked(workspace, params)
    bad = handovers.examine("split", workspace, params)
    bad |= {"success": False, "of": {}}
    write_json(handovers.result_file(workspace, "split"), bad)
    with pytest.raises(ContractError, match="what split hands over"):
        gather(workspace, result)
