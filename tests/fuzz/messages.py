"""Random messages of any protobuf type, generated from its descriptor and a dictionary of meaningful strings."""

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

WORDS = [
    "chest-xray",
    "breast-cancer-risk",
    "fetal-head",
    "1",
    "2",
    "image",
    "features",
    "probabilities",
    "survival",
    "UINT8",
    "FP32",
    "BYTES",
    "age",
    "grade",
    "nodes",
    "II",
    "pneumonia",
    "5 years",
    "priority",
    "timeout",
    "sequence_id",
    "../../etc/passwd",
    "%s%n",
    "\x00",
    "é" * 50,
]
text = st.sampled_from(WORDS) | st.text(max_size=20)
payload = st.sampled_from([b"", bytes(784), bytes(32), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]) | st.binary(max_size=64)
small = st.sampled_from([0, 1, 2, 3, 8, 28])


def _whole(low: int, high: int) -> st.SearchStrategy[int]:
    return small | st.sampled_from([low, high]) | st.integers(low, high)


VALUES: dict[int, st.SearchStrategy[object]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: payload,
    FieldDescriptor.TYPE_DOUBLE: small | st.floats(),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 6),
    FieldDescriptor.TYPE_FLOAT: small | st.floats(width=32),
    FieldDescriptor.TYPE_INT32: _whole(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: _whole(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_STRING: text,
    FieldDescriptor.TYPE_UINT32: _whole(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: _whole(0, 2**64 - 1),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 5) -> Message:
    """Returns a message of this type; fields are omitted, set or repeated at random."""
    message: Message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth and draw(st.booleans()):
                _add(draw, message, field, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(VALUES[field.type], max_size=4)))
        elif draw(st.booleans()):
            setattr(message, field.name, draw(VALUES[field.type]))
    return message


def _add(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    inner = field.message_type
    assert inner is not None
    if inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"]
        for key in draw(st.lists(text, max_size=2)):
            if value.type == FieldDescriptor.TYPE_MESSAGE and value.message_type is not None:
                getattr(message, field.name)[key].CopyFrom(draw(messages(value.message_type, depth)))
            else:
                getattr(message, field.name)[key] = draw(VALUES[value.type])
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(messages(inner, depth), max_size=3)))
    else:
        getattr(message, field.name).CopyFrom(draw(messages(inner, depth)))
