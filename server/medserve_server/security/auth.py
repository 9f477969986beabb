"""Who may call what: the clients' tokens, and the scope that each method asks for."""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from medserve_server.errors import PermissionDenied, Unauthenticated
from medserve_server.file_reloader import FileReloader

log = logging.getLogger(__name__)

OPEN, INFER, METADATA, ADMIN, PRIORITY = "open", "infer", "metadata", "admin", "priority"
SCOPES = (INFER, METADATA, ADMIN, PRIORITY)

_INFERENCE = "/inference.GRPCInferenceService/"
# A method that is missing here asks for `admin`.
SCOPE_OF_METHOD = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": METADATA,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": METADATA,
    "/medserve.v1.ImageClassification/Classify": INFER,
    "/medserve.v1.ImageClassification/ClassifyStream": INFER,
    "/medserve.v1.PatientRisk/Predict": INFER,
    "/medserve.v1.PatientRisk/PredictStream": INFER,
    "/medserve.v1.ModelCatalog/ListModels": METADATA,
    "/medserve.v1.ModelCatalog/GetManifest": METADATA,
    _INFERENCE + "ModelInfer": INFER,
    _INFERENCE + "ModelStreamInfer": INFER,
    _INFERENCE + "ServerLive": METADATA,
    _INFERENCE + "ServerReady": METADATA,
    _INFERENCE + "ServerMetadata": METADATA,
    _INFERENCE + "ModelReady": METADATA,
    _INFERENCE + "ModelMetadata": METADATA,
    _INFERENCE + "ModelConfig": METADATA,
    _INFERENCE + "ModelStatistics": METADATA,
    _INFERENCE + "RepositoryIndex": METADATA,
    _INFERENCE + "RepositoryModelLoad": ADMIN,
    _INFERENCE + "RepositoryModelUnload": ADMIN,
}

Metadata = Iterable[tuple[str, str | bytes]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token allows."""

    client: str
    scopes: frozenset[str]
    digest: bytes = b""
    """SHA-256 of the token. A fast hash will do: nobody guesses 256 random bits."""

    @property
    def lists_models(self) -> bool:
        """Whether the client may learn which models there are."""
        return METADATA in self.scopes


ANYONE = Grant("", frozenset(SCOPES))
"""What every caller may do where no tokens are configured."""
NOBODY = Grant("", frozenset())
"""What a caller may do without a token where tokens are configured."""
GRANT: ContextVar[Grant] = ContextVar("GRANT", default=NOBODY)
"""What the client whose call this is may do."""


class Tokens:
    """The tokens of a file, read again when it changes.

    Raises:
        SettingsError: the file can't be read, or is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._grants = FileReloader(lambda: read_tokens(path), path)

    def client(self, method: str, metadata: Metadata) -> Grant:
        """The client that makes a call; NOBODY for a method that is open to all.

        Raises:
            Unauthenticated: no token, or not a known one.
            PermissionDenied: the client lacks the method's scope.
        """
        scope = SCOPE_OF_METHOD.get(method, ADMIN)
        if scope == OPEN:
            return NOBODY
        grant = self._find(_bearer(metadata))
        if scope not in grant.scopes:
            raise PermissionDenied(f"client {grant.client} lacks the scope {scope}, which {method} needs")
        return grant

    def _find(self, token: str) -> Grant:
        digest = hashlib.sha256(token.encode()).digest()
        # Every one of them is compared, and each in constant time: how long it takes tells nothing.
        found = [grant for grant in self._grants.current() if hmac.compare_digest(grant.digest, digest)]
        if not found:
            raise Unauthenticated("the token is not known here; it may have been revoked")
        return found[0]


def check_priority(priority: int, grant: Grant) -> None:
    """Refuses a request that would go before those of others where its client may not do that.

    Args:
        priority: Of the request, a number below the default.
        grant: What the client may do.

    Raises:
        PermissionDenied: The client lacks the scope.
    """
    if PRIORITY not in grant.scopes:
        raise PermissionDenied(
            f"parameters[priority] is {priority}: client {grant.client} lacks the scope {PRIORITY}, which going before "
            "other requests needs; leave the parameter out"
        )


def _bearer(metadata: Metadata) -> str:
    """The token of `authorization: Bearer TOKEN` (RFC 6750, section 2.1)."""
    given = [value for key, value in metadata if key == "authorization"]
    if len(given) == 1 and isinstance(given[0], str):
        kind, _, token = given[0].partition(" ")
        if kind.lower() == "bearer" and token:
            return token
    raise Unauthenticated("a token is needed: send it as the metadata `authorization: Bearer TOKEN`")


def read_tokens(path: Path) -> list[Grant]:
    """Reads lines of client, scopes and digest; `#` begins a comment. A client may have several tokens.

    Raises:
        OSError: the file can't be read.
        ValueError: a line is wrong; what it holds is not repeated, since it may be a token.
    """
    grants: list[Grant] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        if len(words) != 3:
            raise ValueError(f"{where}: has {len(words)} words, expected three: NAME SCOPES SHA256")
        name, scopes, digest = words[0], frozenset(words[1].split(",")), words[2].lower()
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}: the name has to be of letters, digits, '.', '_' and '-', at most 64")
        if not scopes <= set(SCOPES):
            raise ValueError(f"{where}: a scope is none of {', '.join(SCOPES)}; a comma, no space, separates them")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{where}: the third word is no SHA-256 of 64 hexadecimal digits")
        grants.append(Grant(name, scopes, bytes.fromhex(digest)))
    if len({grant.digest for grant in grants}) < len(grants):
        raise ValueError(f"{path}: two lines have the same token; each client needs one of its own")
    if not grants:
        log.warning("--tokens %s holds no token: nobody is let in", path)
    return grants


def new_token(name: str, scopes: str) -> tuple[str, str]:
    """Makes a token of 256 random bits; gives it, and its line for the file.

    Raises:
        ValueError: the name or a scope is wrong.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name; use letters, digits, '.', '_' and '-', at most 64")
    if not set(scopes.split(",")) <= set(SCOPES):
        raise ValueError(f"--scopes {scopes}: expected some of {','.join(SCOPES)}")
    token = secrets.token_urlsafe(32)
    return token, f"{name} {scopes} {hashlib.sha256(token.encode()).hexdigest()}"
