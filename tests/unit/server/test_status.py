"""Any error fits into the metadata of a response."""

import math
import re
from urllib.parse import quote

from google.rpc import error_details_pb2, status_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medserve_server.errors import STATUS, FieldViolation, Overloaded, ServingError, listing
from medserve_server.status import MAX_MESSAGE_BYTES, shortened, to_status, to_trailers

LIMIT = 8192
"""Default metadata limit of gRPC's clients: keys, values and 32 bytes per entry (RFC 9113, section 6.5.2)."""
OTHERS = 300
"""Size of a response without a message: :status, content-type, grpc-status."""


def size(status: status_pb2.Status) -> int:
    """Returns the size of the metadata that gRPC sends over HTTP/2."""
    ((key, value),) = to_trailers(status)
    message = quote(status.message.encode(), safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    encoded = 4 * math.ceil(len(value) / 3)
    return OTHERS + len("grpc-message") + len(message) + 32 + len(key) + encoded + 32


def long(characters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda text, times: text * times, characters, st.sampled_from([1, 7, 300, 5000, 100_000]))


def is_shortened(text: str, whole: str) -> bool:
    """Returns whether a text equals another one, or consists of its beginning and end."""
    whole = whole.encode(errors="backslashreplace").decode()
    cuts = [match.span() for match in re.finditer(r"(?= \.\.\. )", text)]
    return text == whole or any(
        0 < at < len(text) - 5 and whole.startswith(text[:at]) and whole.endswith(text[at + 5 :]) for at, _ in cuts
    )


texts = long(st.text(max_size=5)) | long(st.sampled_from(["a", "%", "\u00fc", "\u4e2d", "\U0001f600", "\n", "\ud800"]))
violations = st.builds(FieldViolation, texts, texts)
many = st.builds(lambda few, times: few * times, st.lists(violations, max_size=3), st.sampled_from([1, 20, 1500]))
kinds = st.sampled_from(sorted(STATUS, key=lambda kind: kind.__name__))


@settings(max_examples=300, deadline=None)
@given(kind=kinds, message=texts, given_violations=many)
@example(Overloaded, "%" * 10**6, [FieldViolation("\u4e2d" * 10**5, "\U0001f600" * 10**5)] * 100)
def test_every_error_fits_and_keeps_its_first_violation(
    kind: type[ServingError], message: str, given_violations: list[FieldViolation]
) -> None:
    error = kind.__new__(kind)
    ServingError.__init__(error, message, given_violations, "queue")
    status = to_status(error)
    assert size(status) < LIMIT
    assert status.code == STATUS[kind].value[0]
    bad_request = error_details_pb2.BadRequest()
    found = [detail for detail in status.details if detail.Unpack(bad_request)]
    assert bool(found) == bool(given_violations)
    if given_violations:
        assert is_shortened(bad_request.field_violations[0].field, given_violations[0].field)
        assert is_shortened(bad_request.field_violations[0].description, given_violations[0].description)
    assert any(detail.Unpack(error_details_pb2.ErrorInfo()) for detail in status.details) == (kind is Overloaded)


@settings(deadline=None)
@given(text=texts)
def test_a_long_text_keeps_its_beginning_and_its_end(text: str) -> None:
    assert is_shortened(shortened(text, MAX_MESSAGE_BYTES), text)


def test_a_text_that_fits_is_unchanged() -> None:
    for text in ("", "a" * MAX_MESSAGE_BYTES, "\u00fc" * (MAX_MESSAGE_BYTES // 6)):
        assert shortened(text, MAX_MESSAGE_BYTES) == text
    for text in ("a" * (MAX_MESSAGE_BYTES + 1), "%" * MAX_MESSAGE_BYTES):
        assert shortened(text, MAX_MESSAGE_BYTES) != text


@given(
    names=st.lists(st.text(st.characters(exclude_characters=","), min_size=1, max_size=300), min_size=1, max_size=100)
)
def test_a_long_list_states_how_many_more_there_are(names: list[str]) -> None:
    text = listing(names)
    if text == ", ".join(names):
        return
    head, _, more = text.rpartition(" and ")
    count = int(more.removesuffix(" more"))
    assert head == ", ".join(names[: len(names) - count])
    assert 0 < count < len(names)


def test_a_short_list_is_complete() -> None:
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a, b"
