"""Selection of the versions to serve."""

import pytest

from medserve_server.version_policy import VersionPolicy

VERSIONS = ["1", "2", "9", "10"]


@pytest.mark.parametrize(
    ("text", "name", "chosen"),
    [
        ("", "a", ["10", "9", "2", "1"]),
        ("all", "a", ["10", "9", "2", "1"]),
        ("latest:1", "a", ["10"]),
        ("latest:3", "a", ["10", "9", "2"]),
        ("latest:1 a=2,9", "a", ["9", "2"]),
        ("latest:1 a=2,9", "b", ["10"]),
        ("a=latest:2 latest:1", "a", ["10", "9"]),
        ("latest:1 a=all", "a", ["10", "9", "2", "1"]),
        ("a=7", "a", []),
    ],
)
def test_a_policy_selects_the_highest_versions_first(text: str, name: str, chosen: list[str]) -> None:
    assert VersionPolicy.parse(text).choose(name, VERSIONS) == chosen


@pytest.mark.parametrize(
    "text", ["newest", "latest:0", "latest:", "1,2", "a=", "a=0", "a=1;2", "=all", "a b=1=all", "../x=1"]
)
def test_an_invalid_rule_is_reported(text: str) -> None:
    with pytest.raises(ValueError, match=r"'.*'"):
        VersionPolicy.parse(text)
