"""Make the model that ships of a run's latest release: ``python -m cmass.pretrained [DATA]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cmass.errors import CmassError
from cmass.pretrained import SHIPPED, bundle_of_release


def main() -> int:
    """Copy the network of the latest release in the data folder, with its provenance, here."""
    parser = argparse.ArgumentParser(prog="python -m cmass.pretrained", description=main.__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=Path("data"), help="data folder")
    try:
        bundle_of_release(parser.parse_args().data, SHIPPED)
    except CmassError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for file in sorted(SHIPPED.glob("[!_]*.*")):
        sys.stdout.write(f"{file}  {file.stat().st_size / 1e3:.0f} KB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
