"""Edit RPCs: registers unary methods whose handlers are functions that run on an edit thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from simsearch.errors import EntryInOtherBank, EntryNotFound
from simsearch.serve.auth.identity import Identity, current
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.serve.transport.call_boundary import Context
from simsearch.types import EVERY_BANK
from simsearch.wire.lenient_messages import lenient

Handler: TypeAlias = Callable[[Core, Any, Identity], Message]
"""Answers one request of a caller; the permissions of its method were checked before."""

_Answer: TypeAlias = Callable[[Any, Context], Awaitable[Message]]


def add_edit_service(
    service: ServiceDescriptor,
    handlers: Mapping[str, Handler],
    executor: EditExecutor,
    server: grpc.aio.Server,
    at_once_max: Mapping[str, int] | None = None,
) -> None:
    """Register a handler for each method of the service. `at_once_max`: how many calls of a method
    may run at once, where that is bounded; the others wait."""
    methods: dict[str, Any] = {}
    for method in service.methods:
        answer = _on_edit_thread(handlers[method.name], method.input_type, executor)
        if at_once_max and method.name in at_once_max:
            answer = _at_most(at_once_max[method.name], answer)
        methods[method.name] = grpc.unary_unary_rpc_method_handler(
            answer,
            lenient(GetMessageClass(method.input_type)).FromString,
            GetMessageClass(method.output_type).SerializeToString,
        )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service.full_name, methods)]
    )


def _on_edit_thread(handler: Handler, request_type: Descriptor, executor: EditExecutor) -> _Answer:
    key_field = _key_field(request_type)

    async def answer(request: Any, context: Context) -> Message:
        caller = current()
        try:
            return await executor.run(lambda core: handler(core, request, caller))
        except EntryInOtherBank:
            if not key_field or caller.reads == EVERY_BANK:
                raise
            # Without a hint of the bank: a key must not reveal banks that the caller may not read.
            raise EntryNotFound(f"there is no entry {getattr(request, key_field)}") from None

    return answer


def _at_most(count: int, answer: _Answer) -> _Answer:
    room = asyncio.Semaphore(count)

    async def answer_in_turn(request: Any, context: Context) -> Message:
        async with room:
            return await answer(request, context)

    return answer_in_turn


def _key_field(request_type: Descriptor) -> str:
    """The field of a request that names an entry; empty where there is none."""
    names = ("key", "entry_key")
    return next((name for name in names if name in request_type.fields_by_name), "")
