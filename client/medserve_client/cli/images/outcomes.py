"""Sends image files in requests of limited size; the files that fail do not fail the others."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from medserve_client.cli import terminal
from medserve_client.cli.resend import ItemSender
from medserve_client.errors import InferenceError

# Keeps requests below 4 MiB, gRPC's default message limit; a larger file is sent alone.
_CHUNK_BYTES = 3 * 1024 * 1024
# Maximum size of a serialized protobuf message, less some room for the rest of the request.
_MAX_BYTES = 2**31 - 2**20

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class FileState:
    """A file at the time it was read: size in bytes and modification time in nanoseconds, if known."""

    name: str
    size: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_Result]):
    """The outcome for a file: its result and request ID, or an error."""

    file: FileState
    result: _Result | None = None
    request_id: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """A file's content, or why it cannot be read."""

    file: FileState
    content: bytes = b""
    error: str = ""


def outcomes(
    files: Iterable[str],
    unreadable: Mapping[str, str],
    send: Callable[[list[bytes]], Sequence[tuple[_Result, str]]],
    count: int,
) -> Iterator[list[Outcome[_Result]]]:
    """Reads and sends files, and yields the outcomes of each request. Errors are also printed on standard error.

    Args:
        files: paths; "-" is standard input.
        unreadable: files known to be unreadable, with the reason.
        send: sends the contents of files and returns the result of each with its request ID.
        count: maximum number of files in a request.
    """
    sender = ItemSender(send)
    for chunk in _chunks((_read(file, unreadable) for file in files), count):
        made = list(_outcomes(sender, chunk))
        for outcome in made:
            if outcome.error:
                terminal.print_error(f"{outcome.file.name}: {outcome.error}")
        yield made


def _read(name: str, unreadable: Mapping[str, str]) -> _ImageFile:
    if name in unreadable:
        return _ImageFile(FileState(name), error=f"cannot be read: {unreadable[name]}")
    try:
        if name == "-":
            content = terminal.read_file(name)
            return _ImageFile(FileState(name, len(content)), content)
        found = Path(name).stat()
        state = FileState(name, found.st_size, found.st_mtime_ns)
        if found.st_size > _MAX_BYTES:
            return _ImageFile(state, error=f"has {found.st_size} bytes; the maximum is {_MAX_BYTES}")
        return _ImageFile(state, terminal.read_file(name))
    except OSError as error:
        return _ImageFile(FileState(name), error=f"cannot be read: {error.strerror}")


def _chunks(images: Iterable[_ImageFile], count: int) -> Iterator[list[_ImageFile]]:
    chunk: list[_ImageFile] = []
    size = 0
    for image in images:
        if chunk and (size + len(image.content) > _CHUNK_BYTES or len(chunk) == count):
            yield chunk
            chunk, size = [], 0
        chunk.append(image)
        size += len(image.content)
    if chunk:
        yield chunk


def _outcomes(sender: ItemSender[bytes, tuple[_Result, str]], chunk: list[_ImageFile]) -> Iterator[Outcome[_Result]]:
    answers = iter(sender.outcomes([image.content for image in chunk if not image.error]))
    for image in chunk:
        answer = None if image.error else next(answers)
        if isinstance(answer, list):
            yield Outcome(image.file, error="; ".join(violation.description for violation in answer))
        elif isinstance(answer, InferenceError):
            yield Outcome(image.file, error=answer.message or answer.code.name)
        elif answer is None:
            yield Outcome(image.file, error=image.error)
        else:
            yield Outcome(image.file, *answer)
