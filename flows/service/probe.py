"""``python -m flows.service.probe URL``: exit code 0 if a GET of it answers 200.

The health check of the containers, which have no curl. With ``tcp://host:port`` it is enough that
somebody listens.
"""

from __future__ import annotations

import socket
import sys
import urllib.request
from urllib.parse import urlparse

_ANSWER_S = 8


def well(url: str) -> str:
    """Empty where the server at `url` answers as it should, else the reason."""
    try:
        if url.startswith("tcp://"):
            place = urlparse(url)
            socket.create_connection((place.hostname, place.port), _ANSWER_S).close()
            return ""
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        return f"{url}: {error}"


if __name__ == "__main__":
    sys.exit(well(sys.argv[1]))
