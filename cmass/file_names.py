"""File names of clusters, whose identifiers come from users' files and may hold anything."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

#: What is safe in a file name and in a link, everywhere.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_LENGTH_MAX = 80
#: How made-up names end; an identifier that ends so is no name, lest it be that of another.
_MADE_UP = re.compile(r".*-[0-9a-f]{10}")
#: Names that Windows keeps for itself, with any suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def file_names(cluster_ids: Sequence[str]) -> dict[str, str]:
    """Names of files, without a suffix, of clusters: one each, whatever the identifiers hold.

    An identifier that is safe is its own name. Any other keeps what of it is safe, and a part of its
    digest tells it from others; so do identifiers that differ in case alone, because some disks do
    not tell those apart.
    """
    folded = Counter(one.casefold() for one in cluster_ids)
    return {one: _name(one, alone=folded[one.casefold()] == 1) for one in cluster_ids}


def _name(cluster_id: str, *, alone: bool) -> str:
    kept_for_others = _RESERVED.fullmatch(cluster_id) or _MADE_UP.fullmatch(cluster_id.casefold())
    safe = _SAFE.fullmatch(cluster_id) and not kept_for_others
    if safe and alone and len(cluster_id) <= _LENGTH_MAX and not cluster_id.endswith("."):
        return cluster_id
    kept = re.sub(r"[^A-Za-z0-9]+", "-", cluster_id)[:40].strip("-")
    digest = hashlib.sha256(cluster_id.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{kept or 'cluster'}-{digest}"
