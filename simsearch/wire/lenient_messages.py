"""Lenient messages: request types that read the text of a content as bytes.

A parser refuses the whole message where one string in it is not UTF-8. Read as bytes, one such text
is an error of its own item, and the others are answered.
"""

from __future__ import annotations

from functools import cache
from typing import Final, TypeVar, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from simsearch.v1 import content_pb2

M = TypeVar("M", bound=Message)

_CONTENT: Final = content_pb2.Content.DESCRIPTOR
_POOL: Final = DescriptorPool()


def lenient(kind: type[M]) -> type[M]:
    """The same message type, but for `Content.text`, which is bytes as they came. The wire format
    of both is the same."""
    return cast(type[M], _class_of(kind.DESCRIPTOR))


@cache
def _class_of(message: Descriptor) -> type[Message]:
    _add(message.file)
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(message.full_name))


@cache
def _add(file: FileDescriptor) -> None:
    """To the pool, after all that it imports."""
    for imported in file.dependencies:
        _add(imported)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    if file.name == _CONTENT.file.name:
        message = next(m for m in proto.message_type if m.name == _CONTENT.name)
        text = next(field for field in message.field if field.name == "text")
        text.type = FieldDescriptorProto.TYPE_BYTES
    _POOL.AddSerializedFile(proto.SerializeToString())
