"""Write docs/reference/ from the code, and say what lacks words: ``python -m tests.docs``."""

from __future__ import annotations

import sys

from tests.docs.reference import FOLDER, PAGES, mute


def main() -> int:
    """Write every page; 1 where something lacks words."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
    faults = mute()
    sys.stdout.write("".join(f"{line}\n" for line in faults))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
