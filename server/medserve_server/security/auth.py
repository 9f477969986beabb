"""Token authentication, and the scope that each method requires."""

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
# Methods that are not listed require the scope `admin`.
SCOPE_OF_METHOD = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": METADATA,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": METADATA,
    "/medserve.v1.ImageClassification/Classify": INFER,
    "/medserve.v1.ImageClassification/ClassifyStream": INFER,
    "/medserve.v1.ImageSegmentation/Segment": INFER,
    "/medserve.v1.ImageSegmentation/SegmentStream": INFER,
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
    """The client and scopes of a token."""

    client: str
    scopes: frozenset[str]
    digest: bytes = b""
    """SHA-256 of the token. A fast hash is sufficient, since tokens have 256 random bits."""

    @property
    def lists_models(self) -> bool:
        """Whether the client may learn which models are served."""
        return METADATA in self.scopes


ANYONE = Grant("", frozenset(SCOPES))
"""Grant of every client if no tokens are configured."""
NO_GRANT = Grant("", frozenset())
"""Grant of a client without a token if tokens are configured."""
GRANT: ContextVar[Grant] = ContextVar("GRANT", default=NO_GRANT)
"""Grant of the client of the current call."""


class Tokens:
    """The tokens in a file, which is reloaded when it changes.

    Raises:
        SettingsError: the file cannot be read, or is malformed.
    """

    def __init__(self, path: Path) -> None:
        self._grants = FileReloader(lambda: read_tokens(path), path)

    def client(self, method: str, metadata: Metadata) -> Grant:
        """Authenticates and authorizes a call; returns NO_GRANT for methods that require no token.

        Raises:
            Unauthenticated: the token is missing or unknown.
            PermissionDenied: the client lacks the method's scope.
        """
        scope = SCOPE_OF_METHOD.get(method, ADMIN)
        if scope == OPEN:
            return NO_GRANT
        grant = self._find(_bearer(metadata))
        if scope not in grant.scopes:
            raise PermissionDenied(f"client {grant.client} lacks the scope {scope}, which {method} requires")
        return grant

    def _find(self, token: str) -> Grant:
        digest = hashlib.sha256(token.encode()).digest()
        # All digests are compared, each in constant time, so that the duration reveals nothing.
        found = [grant for grant in self._grants.current() if hmac.compare_digest(grant.digest, digest)]
        if not found:
            raise Unauthenticated("unknown token; it may have been revoked")
        return found[0]


def check_priority(priority: int, grant: Grant) -> None:
    """Refuses a request with a raised priority if its client lacks the scope for it.

    Args:
        priority: Priority of the request, a number below the default.
        grant: Grant of the client.

    Raises:
        PermissionDenied: The client lacks the scope.
    """
    if PRIORITY not in grant.scopes:
        raise PermissionDenied(
            f"parameters[priority] is {priority}: client {grant.client} lacks the scope {PRIORITY}, which is required "
            "for a raised priority; omit the parameter"
        )


def _bearer(metadata: Metadata) -> str:
    """Returns the token of `authorization: Bearer TOKEN` (RFC 6750, section 2.1)."""
    given = [value for key, value in metadata if key == "authorization"]
    if len(given) == 1 and isinstance(given[0], str):
        kind, _, token = given[0].partition(" ")
        if kind.lower() == "bearer" and token:
            return token
    raise Unauthenticated("a token is required; send it as the metadata `authorization: Bearer TOKEN`")


def read_tokens(path: Path) -> list[Grant]:
    """Reads lines with client, scopes and digest; `#` starts a comment. A client may have several tokens.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is malformed; the message does not quote it, since it may contain a token.
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
            raise ValueError(f"{where}: the name must consist of at most 64 letters, digits, '.', '_' and '-'")
        if not scopes <= set(SCOPES):
            raise ValueError(
                f"{where}: a scope is not one of {', '.join(SCOPES)}; separate scopes by commas without spaces"
            )
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{where}: the third word is not a SHA-256 digest of 64 hexadecimal digits")
        grants.append(Grant(name, scopes, bytes.fromhex(digest)))
    if len({grant.digest for grant in grants}) < len(grants):
        raise ValueError(f"{path}: two lines have the same token; each client needs its own token")
    if not grants:
        log.warning("--tokens %s contains no tokens: all calls that require one are refused", path)
    return grants


def new_token(name: str, scopes: str) -> tuple[str, str]:
    """Generates a token with 256 random bits; returns it and its line for the token file.

    Raises:
        ValueError: the name or a scope is invalid.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid name; use at most 64 letters, digits, '.', '_' and '-'")
    if not set(scopes.split(",")) <= set(SCOPES):
        raise ValueError(f"--scopes {scopes}: expected one or more of {','.join(SCOPES)}")
    token = secrets.token_urlsafe(32)
    return token, f"{name} {scopes} {hashlib.sha256(token.encode()).hexdigest()}"
