"""Routes of the web page: static files, compressed once at startup, with the security headers of a page."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable

from medserve_server.http.asgi import Scope
from medserve_server.http.pages import Page, Response

Headers = tuple[tuple[str, str], ...]

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Content types of the files by the ending of their names; other files are not served."""
NAMES = {"index.html": "", "status.html": "status", "docs.html": "docs"}
"""Paths of the HTML files; all other files are served by their names."""

# Scripts, styles and images come from the same origin; blob: and data: are images that the page itself has created.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Headers = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
CACHE_HEADERS: Headers = (
    ("Cache-Control", "no-cache"),  # caches ask with If-None-Match, so that a new version of the server is seen at once
    ("Vary", "Accept-Encoding"),
)
OFF = "the web page is off, because the server listens on an address other than loopback; enable it with --web"


@dataclass(frozen=True)
class _Variant:
    """A file as it is sent: with or without compression."""

    body: bytes
    headers: Headers
    tag: str


def web_pages(enabled: bool) -> dict[str, Page]:
    """Returns the pages by path; if they are not enabled, each responds with 404 and names the flag `--web`."""
    found = _found(files("medserve_server.web").joinpath("static"))
    if not enabled:
        return {path: _off for path, _ in found}
    return {path: partial(_serve, _variants(file)) for path, file in found}


def _found(folder: Traversable, prefix: str = "/") -> Iterator[tuple[str, Traversable]]:
    """Yields path and file of everything in the folder that is served."""
    for item in folder.iterdir():
        if item.is_dir():
            yield from _found(item, f"{prefix}{item.name}/")
        elif item.name.rpartition(".")[2] in CONTENT_TYPES:
            yield prefix + NAMES.get(item.name, item.name), item


def _variants(file: Traversable) -> Mapping[str, _Variant]:
    """Returns what is sent for a file, by Content-Encoding."""
    plain = file.read_bytes()
    content_type = ("Content-Type", CONTENT_TYPES[file.name.rpartition(".")[2]])
    packed = gzip.compress(plain, 9, mtime=0)
    return {
        "": _variant(plain, (content_type,)),
        "gzip": _variant(packed, (content_type, ("Content-Encoding", "gzip"))),
    }


def _variant(body: bytes, headers: Headers) -> _Variant:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return _Variant(body, (*headers, *SECURITY_HEADERS, *CACHE_HEADERS, ("ETag", tag)), tag)


async def _serve(variants: Mapping[str, _Variant], scope: Scope) -> Response:
    headers = dict(scope["headers"])
    variant = variants["gzip" if _accepts_gzip(headers.get(b"accept-encoding", b"").decode("latin-1")) else ""]
    if _matches(headers.get(b"if-none-match", b"").decode("latin-1"), variant.tag):
        return Response(304, b"", variant.headers)
    return Response(200, variant.body, variant.headers)


async def _off(_: Scope) -> Response:
    return Response.line(404, OFF)


def _accepts_gzip(accepted: str) -> bool:
    """Returns whether Accept-Encoding allows gzip (RFC 9110, section 12.5.3)."""
    allowed = {}
    for part in accepted.lower().split(","):
        name, _, quality = part.replace(" ", "").partition(";q=")
        allowed[name] = not quality or quality.strip("0.") != ""
    return allowed.get("gzip", allowed.get("*", False))


def _matches(tags: str, tag: str) -> bool:
    """Returns whether If-None-Match names this entity tag (RFC 9110, section 13.1.2)."""
    given = {part.strip().removeprefix("W/") for part in tags.split(",")}
    return tag in given or "*" in given
