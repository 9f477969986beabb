"""Which versions of a model are served: all, the latest ones, or some by their numbers."""

import re
from collections.abc import Callable, Iterable
from typing import Self

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
Choice = Callable[[Iterable[str]], list[str]]
LATEST = re.compile(r"latest:([1-9][0-9]{0,3})")


class VersionPolicy:
    """A rule for all models, and rules for some by name."""

    def __init__(self, general: Choice, by_name: dict[str, Choice]) -> None:
        self._general = general
        self._by_name = by_name

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads rules separated by spaces: `all`, `latest:N`, or `NAME=` and one of these or versions, as in 1,3.

        Raises:
            ValueError: naming the rule that is none.
        """
        general: Choice = _all
        by_name: dict[str, Choice] = {}
        for rule in text.split():
            name, equals, choice = rule.rpartition("=")
            if not equals:
                general = _parse_choice(rule, choice)
            elif NAME.fullmatch(name):
                by_name[name] = _parse_choice(rule, choice)
            else:
                raise ValueError(f"{rule!r}: {name!r} is no name of a model")
        return cls(general, by_name)

    def choose(self, name: str, versions: Iterable[str]) -> list[str]:
        """Those of a model's versions that are to be served, highest first."""
        return sorted(self._by_name.get(name, self._general)(versions), key=int, reverse=True)


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
        raise ValueError(f"{rule!r} is none of all, latest:N, NAME=all, NAME=latest:N and NAME=VERSION,VERSION")
    return lambda versions: [version for version in versions if version in named]
