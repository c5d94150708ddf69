"""contracts.html: every hand-over, what was set aside, and the drift from the last release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmass.contracts import drift
from cmass.publish.summary import number_text

#: Verdicts of `cmass.contracts.drift`, in words.
_VERDICTS = {
    drift.WITHIN: "within",
    drift.EXPLAINED: "explained by parameters",
    drift.ACCEPTED: "accepted",
    drift.BEYOND: "beyond, only a warning",
}


def write_contracts(
    path: Path, title: str, release: dict[str, Any], contracts: dict[str, Any]
) -> None:
    """Write the page of a release's contracts.

    Parameters
    ----------
    path : Path
        The HTML file.
    title : str
        Title of the report.
    release : dict
        Facts of the release: version, survey, profile, created.
    contracts : dict
        As `cmass.contracts.release.gather` gives them.
    """
    import jinja2

    from cmass.figures.style import DARK, PALETTE

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish.report", "."), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    text = environment.get_template("contracts.html.jinja2").render(
        title=title,
        release=release,
        tiles=_tiles(contracts),
        handovers=[_handover(one) for one in contracts["handovers"]],
        unchecked=contracts["unchecked"],
        drift=_drift(contracts["drift"]),
        quarantine=contracts["quarantine"],
        palette=PALETTE,
        dark=DARK,
    )
    path.write_text(text, encoding="utf-8")


def contract_words(contracts: dict[str, Any]) -> dict[str, Any]:
    """What the report says of contracts: counts, and one sentence on the drift."""
    return {
        "expectations": sum(_expectations(one) for one in contracts["handovers"]),
        "handovers": len(contracts["handovers"]),
        "quarantined": contracts["quarantine"]["n"],
        "drift": _drift_words(contracts["drift"]),
    }


def _expectations(result: dict[str, Any]) -> int:
    return sum(len(table["expectations"]) for table in result["tables"].values())


def _drift_words(compared: dict[str, Any]) -> str:
    if compared["last"] is None:
        return "There is no earlier release of this survey and profile to drift from."
    far = [f for f in compared["figures"] if f["verdict"] != drift.WITHIN]
    if not far:
        return f"Nothing drifts from {compared['last']}."
    kinds = {_VERDICTS[f["verdict"]] for f in far}
    return (
        f"{len(far)} of {len(compared['figures'])} figures drift from {compared['last']}: "
        f"{', '.join(sorted(kinds))}."
    )


def _tiles(contracts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Headline numbers: label, number, remark."""
    words = contract_words(contracts)
    accounts = [a for one in contracts["handovers"] for a in one["accounts"]]
    compared = contracts["drift"]
    far = sum(f["verdict"] != drift.WITHIN for f in compared["figures"])
    tiles = [
        ("Expectations that hold", str(words["expectations"]), f"at {words['handovers']} hand-overs"),
        ("Accounts that balance", f"{sum(a['balanced'] for a in accounts)}", f"of {len(accounts)}"),
        ("Source rows in quarantine", str(words["quarantined"]), ""),
        (
            "Figures that drift", str(far) if compared["last"] else "–",
            f"of {len(compared['figures'])}" if compared["last"] else "no earlier release",
        ),
    ]  # fmt: skip
    return tiles


def _handover(result: dict[str, Any]) -> dict[str, Any]:
    """One hand-over as the page shows it."""
    tables = [
        {
            "name": name, "rows": table["rows"], "n": len(table["expectations"]),
            "expectations": [_expectation(row) for row in table["expectations"]],
        }
        for name, table in result["tables"].items()
    ]  # fmt: skip
    products = [t for t in tables if t["name"] not in ("accounts", "statistics", "drift")]
    statistics = result["tables"].get("statistics", {"expectations": []})["expectations"]
    return {
        "step": result["step"], "title": result["title"], "n": _expectations(result),
        "success": result["success"], "tables": tables,
        "products": ", ".join(f"{t['name']} {t['rows']}" for t in products),
        "accounts": result["accounts"],
        "statistics": [
            _expectation(row) for row in statistics
            if row["expectation"] == "expect_column_values_to_be_between"
        ],
    }  # fmt: skip


def _expectation(row: dict[str, Any]) -> dict[str, Any]:
    limits = row["limits"]
    low, high = limits.get("min_value"), limits.get("max_value")
    words = ""
    if low is not None or high is not None:
        ends = [
            "" if low is None else f"{'>' if limits.get('strict_min') else '≥'} {_number(low)}",
            "" if high is None else f"{'<' if limits.get('strict_max') else '≤'} {_number(high)}",
        ]
        words = " and ".join(e for e in ends if e)
        if low == high:
            words = f"= {_number(low)}"
    elif "type_" in limits:
        words = str(limits["type_"])
    return {
        "column": row["column"], "expectation": row["expectation"].removeprefix("expect_").replace("_", " "),
        "limits": words, "success": row["success"], "found": row["found"],
    }  # fmt: skip


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _drift(compared: dict[str, Any]) -> dict[str, Any]:
    """The comparison with the last release as the page shows it."""
    rows = [
        {
            "words": f["words"], "value": f"{number_text(f['value'])} {f['unit']}".strip(),
            "limit": f"{number_text(f['limit'])} {f['unit']}".strip(),
            "parameter": f["parameter"], "verdict": _VERDICTS[f["verdict"]],
            "ok": f["verdict"] == drift.WITHIN,
        }
        for f in compared["figures"]
    ]  # fmt: skip
    causes = [(name, names) for name, names in compared["causes"].items() if names]
    return {
        "last": compared["last"], "rows": rows, "causes": causes,
        "reason": compared.get("accept_reason"),
    }  # fmt: skip
