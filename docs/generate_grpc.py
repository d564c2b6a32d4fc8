"""Writes docs/reference/grpc.md from the protos: services, messages and enums with their comments.

`python docs/generate_grpc.py > docs/reference/grpc.md`; a test holds the page against this.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = sorted((ROOT / "proto/simsearch/v1").glob("*.proto"))
# Numbers of fields in descriptor.proto, by which comments are found.
MESSAGES, ENUMS, SERVICES, FIELDS, NESTED, NESTED_ENUMS, VALUES, METHODS = 4, 5, 6, 2, 3, 4, 2, 2

HEAD = """# gRPC reference

Made from the protos in `proto/simsearch/v1` by `docs/generate_grpc.py`. A client in any language is
generated from these files; the server also answers reflection.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for file in _files() for line in _Page(file).lines())]) + "\n"


def _files() -> list[FileDescriptorProto]:
    """The parsed protos of the project, with their comments."""
    wellknown = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "set"
        words = ["protoc", f"-I{ROOT / 'proto'}", f"-I{wellknown}", f"--descriptor_set_out={out}"]
        status = protoc.main([*words, "--include_source_info", *map(str, PROTOS)])
        if status:
            raise SystemExit(status)
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


class _Page:
    """The part of the page about one file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(place.path): place.leading_comments or place.trailing_comments
            for place in file.source_code_info.location
        }

    def lines(self) -> Iterator[str]:
        """Services first, then messages, then enums."""
        yield f"## {Path(self._file.name).name}\n"
        for number, service in enumerate(self._file.service):
            yield from self._service(service, (SERVICES, number))
        for number, message in enumerate(self._file.message_type):
            yield from self._message(message, (MESSAGES, number), "")
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (ENUMS, number), "")

    def _service(self, service: ServiceDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"### {service.name}\n\n{self._prose(path)}\n\n| RPC | request | response | does |"
        yield "|---|---|---|---|"
        for number, rpc in enumerate(service.method):
            asked = ("stream " if rpc.client_streaming else "") + _short(rpc.input_type)
            answered = ("stream " if rpc.server_streaming else "") + _short(rpc.output_type)
            said = self._cell((*path, METHODS, number))
            yield f"| `{rpc.name}` | {asked} | {answered} | {said} |"
        yield ""

    def _message(self, message: DescriptorProto, path: Sequence[int], within: str) -> Iterator[str]:
        if message.options.map_entry:
            return
        name = within + message.name
        yield f"### {name}\n\n{self._prose(path)}\n"
        if message.field:
            yield "| field | number | type | meaning |\n|---|---|---|---|"
        for number, field in enumerate(message.field):
            said = self._cell((*path, FIELDS, number))
            yield f"| `{field.name}` | {field.number} | {_type_of(field, message)} | {said} |"
        yield ""
        for number, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*path, NESTED, number), name + ".")
        for number, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, NESTED_ENUMS, number), name + ".")

    def _enum(self, enum: EnumDescriptorProto, path: Sequence[int], within: str) -> Iterator[str]:
        yield f"### {within}{enum.name}\n\n{self._prose(path)}\n\n| value | number | meaning |"
        yield "|---|---|---|"
        for number, value in enumerate(enum.value):
            said = self._cell((*path, VALUES, number))
            yield f"| `{value.name}` | {value.number} | {said} |"
        yield ""

    def _prose(self, path: Sequence[int]) -> str:
        return self._comments.get(tuple(path), "").strip().replace("\n ", "\n")

    def _cell(self, path: Sequence[int]) -> str:
        return " ".join(self._comments.get(tuple(path), "").split()).replace("|", "\\|")


def _type_of(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """As in "repeated Hit", "optional double" or "oneof content: Image"."""
    name = _short(field.type_name) or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"oneof {message.oneof_decl[field.oneof_index].name}: {name}"
    return name


def _short(name: str) -> str:
    return name.removeprefix(".simsearch.v1.").removeprefix(".")


if __name__ == "__main__":
    sys.stdout.write(page())
