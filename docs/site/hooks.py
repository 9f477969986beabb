"""Adds to the site what does not stand in docs/: generated references, and pages of other folders of the checkout."""

import json
import posixpath
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import grpc_reference, rest_reference

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACTS = ("medserve/v1", "inference", "grpc_health/v1")
PACKAGES = ["medserve.v1", "inference", "grpc.health.v1"]
OPENAPI = "server/medserve_server/rest/openapi.json"
OTHER_PAGES = ("CHANGELOG.md", "benchmarks/*.md", "benchmarks/*.png", "deploy/README.md", "models/*/*/card.md")
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s:]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    document = json.loads((REPOSITORY / OPENAPI).read_text("utf-8"))
    files.append(File.generated(config, "grpc-reference.md", content=grpc_reference(compiled(), PACKAGES)))
    files.append(File.generated(config, "rest-reference.md", content=rest_reference(document)))
    for pattern in OTHER_PAGES:
        for path in sorted(REPOSITORY.glob(pattern)):
            name = path.relative_to(REPOSITORY).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that hold in the checkout into those that hold in the site."""
    generated = page.file.generated_by is not None
    folder = posixpath.dirname(page.file.src_uri if generated else f"docs/{page.file.src_uri}")

    def in_site(link: re.Match[str]) -> str:
        image, text, (target, hash_sign, anchor) = link[1], link[2], link[3].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        if not target or (generated and not (REPOSITORY / path).exists()):
            return link[0]
        if not (REPOSITORY / path).exists():
            message = f"{page.file.src_uri}: no file {path} for the link {link[0]}"
            raise PluginError(message)
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return text  # code: the site does not show it
        return (
            f"{image}[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{hash_sign}{anchor})"
        )

    return _LINK.sub(in_site, markdown)


def compiled() -> FileDescriptorSet:
    """The contracts with their comments."""
    proto = REPOSITORY / "proto"
    google = Path(str(distribution("googleapis-common-protos").locate_file("")))
    paths = [str(path) for folder in CONTRACTS for path in sorted((proto / folder).glob("*.proto"))]
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    with tempfile.NamedTemporaryFile() as output:
        subprocess.run(
            [*protoc, f"-I{proto}", f"-I{google}", "--include_source_info", f"-o{output.name}", *paths], check=True
        )
        return FileDescriptorSet.FromString(Path(output.name).read_bytes())
