"""Version policy: which versions of a model are served (all, the latest N, or specific ones)."""

import re
from collections.abc import Callable, Iterable
from typing import Self

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
Choice = Callable[[Iterable[str]], list[str]]
LATEST = re.compile(r"latest:([1-9][0-9]{0,3})")


class VersionPolicy:
    """A default rule for all models, and rules for individual models."""

    def __init__(self, default: Choice, by_name: dict[str, Choice]) -> None:
        self._default = default
        self._by_name = by_name

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses space-separated rules: `all`, `latest:N`, or `NAME=` followed by one of these or versions such as 1,3.

        Raises:
            ValueError: a rule is invalid; the message names it.
        """
        default: Choice = _all
        by_name: dict[str, Choice] = {}
        for rule in text.split():
            name, equals, choice = rule.rpartition("=")
            if not equals:
                default = _parse_choice(rule, choice)
            elif NAME.fullmatch(name):
                by_name[name] = _parse_choice(rule, choice)
            else:
                raise ValueError(f"{rule!r}: {name!r} is not a valid model name")
        return cls(default, by_name)

    def choose(self, name: str, versions: Iterable[str]) -> list[str]:
        """Returns those of a model's versions that the policy selects, highest first."""
        return sorted(self._by_name.get(name, self._default)(versions), key=int, reverse=True)


def _all(versions: Iterable[str]) -> list[str]:
    return list(versions)


def _parse_choice(rule: str, choice: str) -> Choice:
    if choice == "all":
        return _all
    if match := LATEST.fullmatch(choice):
        count = int(match[1])
        return lambda versions: sorted(versions, key=int, reverse=True)[:count]
    named = choice.split(",")
    if "=" not in rule or not all(VERSION.fullmatch(version) for version in named):
        raise ValueError(
            f"{rule!r} is not a rule, expected all, latest:N, NAME=all, NAME=latest:N or NAME=VERSION,VERSION"
        )
    return lambda versions: [version for version in versions if version in named]
