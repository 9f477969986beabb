"""Phrases that readers found hard to understand do not reappear in code and documentation.

codespell checks the spelling (`make lint`).
"""

import re
import subprocess
from pathlib import Path

import pytest

from servers.server_process import REPOSITORY

pytestmark = pytest.mark.process

ELSEWHERE = (
    "CHANGELOG.md",
    "models/",
    "proto/grpc_health/",  # copies of upstream's contracts
    "proto/grpc_reflection/",
    "tests/unit/test_prose.py",
)
PHRASES = (
    "said loudly",
    "about the way",
    "by one face",
    "proves itself with",
    "of each line of the log",
    "what one client may have",
    "what every call passes",
    "is no number",
    "can't be had",
    "is told by health",
    "in earnest",
    "found_out",
    "the_own",
    "nobody",
    "under way",
    "of its own",
    "as it stands",
    "beside",
)
BETWEEN_WORDS = r"[\s#/*_]+"
"""White space, also where a comment continues on the next line; underscores in names."""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Each text file in Git by its path."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    paths = [path for path in listing.decode().split("\0") if path and not path.startswith(ELSEWHERE)]
    contents = {path: Path(REPOSITORY, path).read_bytes() for path in paths if Path(REPOSITORY, path).is_file()}
    return {path: data.decode(errors="replace") for path, data in contents.items() if b"\0" not in data}


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_does_not_reappear(phrase: str, texts: dict[str, str]) -> None:
    """Rejects each phrase as whole words, in any context: `beside` ("next to" is clearer), but not `besides`."""
    words = phrase.replace(" ", BETWEEN_WORDS)
    pattern = re.compile(rf"(?<![a-z]){words}(?![a-z])", re.IGNORECASE)
    assert "CONTRIBUTING.md" in texts
    found = []
    for path, text in texts.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path}:{line}")
    assert not found, f"{phrase!r} is hard to understand; use plain words instead: {', '.join(found)}"
