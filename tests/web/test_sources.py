"""The page's scripts: types, and the tables of texts."""

import re
import subprocess
from pathlib import Path

import pytest

from programs import node_program, program
from servers.server_process import REPOSITORY
from waiting import PATIENCE

STATIC = REPOSITORY / "server/medserve_server/web/static"
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if path.parent.name != "strings")
ENTRY = re.compile(r'^  "([\w.]+)":\s*"((?:[^"\\]|\\.)*)",$', re.MULTILINE)


def texts(language: str) -> dict[str, str]:
    source = (STATIC / f"strings/{language}.js").read_text(encoding="utf-8")
    entries = ENTRY.findall(source)
    assert len(entries) == sum(line.startswith('  "') for line in source.splitlines())
    assert len(dict(entries)) == len(entries), "a key occurs twice"
    return dict(entries)


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_both_languages_have_the_same_texts() -> None:
    english, chinese = texts("en"), texts("zh")
    assert list(english) == list(chinese)
    assert {key: placeholders(text) for key, text in english.items()} == {
        key: placeholders(text) for key, text in chinese.items()
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(STATIC)))
def test_every_text_that_a_script_names_exists(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    keys = set(re.findall(r"""["'`]((?:\w+\.)+\w+)["'`]""", source))
    prefixes = {key.partition(".")[0] for key in texts("en")}
    named = {key for key in keys if key.partition(".")[0] in prefixes and not key.endswith((".js", ".json", ".csv"))}
    assert named - texts("en").keys() == set()
    for start in re.findall(r"`((?:\w+\.)+)\$\{", source):  # the rest of the key is a code
        assert any(key.startswith(start) for key in texts("en")), start


def test_every_text_is_used() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    computed = tuple(re.findall(r"`((?:\w+\.)+)\$\{", sources))
    unused = [key for key in texts("en") if f'"{key}"' not in sources and not key.startswith(computed)]
    assert unused == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_script_can_interpret_text_as_html(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style"
    assert re.findall(forbidden, source) == []
    assert re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie", source) == []


def test_types() -> None:
    program("node", "nodejs")
    compiler = node_program(REPOSITORY / "tests/e2e/node", "tsc")
    command = [str(compiler), "--project", str(REPOSITORY / "tests/web/tsconfig.json")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert checked.returncode == 0, checked.stdout
