"""Make the model that ships of a run's latest release: ``python -m cmass.pretrained [DATA]``."""

from __future__ import annotations

import sys
from pathlib import Path

from cmass.pretrained import SHIPPED, bundle_of_release


def main(data: str = "data") -> None:
    """Copy the network of the latest release in the data folder, with its provenance, here."""
    bundle_of_release(Path(data), SHIPPED)
    for file in sorted(SHIPPED.glob("[!_]*.*")):
        sys.stdout.write(f"{file}  {file.stat().st_size / 1e3:.0f} KB\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
