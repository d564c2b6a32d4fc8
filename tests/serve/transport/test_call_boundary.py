"""Every call runs inside the layers of its method, and its error becomes a status once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import pytest

from simsearch.errors import BankNotFound, Overloaded
from simsearch.serve.transport.call_boundary import Call, CallBoundary, CallLayer, Enter, Method
from simsearch.serve.transport.status_codes import HIDDEN

GET = "/simsearch.v1.BankService/GetBank"


class Context:
    """Records what a call was ended with."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.words = ""

    def set_trailing_metadata(self, trailers: object) -> None: ...

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, words: str) -> None:
        self.words = words

    def time_remaining(self) -> float | None:
        return None

    async def abort(self, code: grpc.StatusCode, words: str, trailers: object) -> None:
        self.code, self.words = code, words


class Layer(CallLayer):
    """Notes when a call enters and leaves, and may refuse it; only for methods of `prefix`."""

    def __init__(
        self, name: str, notes: list[str], prefix: str = "", refuses: bool = False
    ) -> None:
        self._name = name
        self._notes = notes
        self._prefix = prefix
        self._refuses = refuses

    def bind(self, method: Method) -> Enter | None:
        self._notes.append(f"bind {self._name}")
        return self._around if method.name.startswith(self._prefix) else None

    @contextmanager
    def _around(self, call: Call) -> Iterator[None]:
        if self._refuses:
            raise Overloaded("full")
        self._notes.append(f"enter {self._name}")
        try:
            yield
        except BaseException as error:
            self._notes.append(f"{type(error).__name__} {self._name}")
            raise
        self._notes.append(f"leave {self._name}")


class Parsing(CallLayer):
    """Parses requests by itself, and marks responses."""

    parses = True

    def bind(self, method: Method) -> Enter | None:
        parse = method.handler.request_deserializer

        @contextmanager
        def around(call: Call) -> Iterator[None]:
            call.request = parse(call.request)
            call.edit_response = lambda response: response.append("edited")
            yield

        return around


def unary(behaviour: Any, parse: Any = None) -> Method:
    return Method(GET, grpc.unary_unary_rpc_method_handler(behaviour, parse))


async def get(request: Any, context: Any) -> list[Any]:
    return [request]


def run(boundary: CallBoundary, method: Method, request: Any = b"1") -> tuple[Any, Context]:
    context = Context()
    made = boundary.wrap(method).unary_unary(request, cast(Any, context))
    return asyncio.run(made), context


def test_layers_are_entered_in_order_and_left_in_reverse() -> None:
    """And bound once, before any call."""
    notes: list[str] = []
    boundary = CallBoundary([Layer("outer", notes), Layer("inner", notes)])
    answer, context = run(boundary, unary(get))
    assert (answer, context.code) == ([b"1"], grpc.StatusCode.OK)
    assert notes[:2] == ["bind outer", "bind inner"]
    assert notes[2:] == ["enter outer", "enter inner", "leave inner", "leave outer"]


def test_outer_layers_see_what_an_inner_one_refuses() -> None:
    """So that a refused call is measured; the handler is not called."""
    notes: list[str] = []

    async def never(request: Any, context: Any) -> Any:
        raise AssertionError

    boundary = CallBoundary([Layer("outer", notes), Layer("inner", notes, refuses=True)])
    answer, context = run(boundary, unary(never))
    assert (answer, context.code) == (None, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert notes[2:] == ["enter outer", "Overloaded outer"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BankNotFound("there is no bank"), grpc.StatusCode.NOT_FOUND, "there is no bank"),
        (RuntimeError("secret content"), grpc.StatusCode.INTERNAL, HIDDEN.message),
    ],
)
def test_an_error_is_a_status(error: Exception, code: grpc.StatusCode, words: str) -> None:
    """One that is not named leaks nothing."""

    async def broken(request: Any, context: Any) -> Any:
        raise error

    _, context = run(CallBoundary([Layer("a", [])]), unary(broken))
    assert (context.code, context.words) == (code, words)


def test_a_call_that_its_handler_aborts_is_left_as_it_is() -> None:
    """gRPC's own health service sets a status that way."""

    async def aborts(request: Any, context: Any) -> Any:
        raise grpc.aio.AbortError

    with pytest.raises(grpc.aio.AbortError):
        run(CallBoundary([Layer("a", [])]), unary(aborts))


def test_a_layer_that_parses_gets_bytes_and_may_edit_the_response() -> None:
    """gRPC parses where no layer does."""
    method = unary(get, int)
    assert CallBoundary([Layer("a", [])]).wrap(method).request_deserializer is int
    boundary = CallBoundary([Layer("a", []), Parsing()])
    assert boundary.wrap(method).request_deserializer is None
    assert run(boundary, method)[0] == [1, "edited"]


def test_a_method_without_layers_keeps_its_handler() -> None:
    method = unary(get)
    assert CallBoundary([Layer("a", [], prefix="/other")]).wrap(method) is method.handler


def test_a_method_of_another_kind_is_not_served_past_its_layers() -> None:
    """A new kind of method fails instead of being answered without authorization."""
    handler: Any = grpc.unary_stream_rpc_method_handler(cast(Any, get))
    with pytest.raises(AssertionError):
        CallBoundary([Layer("a", [])]).wrap(Method(GET, handler))


def test_a_stream_runs_inside_its_layers_to_its_end() -> None:
    """Also where its caller goes, or where it fails after some answers."""
    notes: list[str] = []

    async def doubled(requests: AsyncIterator[int], context: Any) -> AsyncIterator[int]:
        async for number in requests:
            if number < 0:
                raise BankNotFound("negative")
            yield 2 * number

    async def numbers(*found: int) -> AsyncIterator[int]:
        for each in found:
            yield each

    method = Method(GET, grpc.stream_stream_rpc_method_handler(cast(Any, doubled)))
    answer = CallBoundary([Layer("a", notes)]).wrap(method).stream_stream

    async def story() -> None:
        context = Context()
        assert [n async for n in answer(numbers(1, 2), context)] == [2, 4]
        assert notes[1:] == ["enter a", "leave a"]
        assert [n async for n in answer(numbers(1, -1), context)] == [2]
        assert (context.code, notes[-1]) == (grpc.StatusCode.NOT_FOUND, "BankNotFound a")
        stream = answer(numbers(1, 2), Context())
        assert await anext(stream) == 2
        await stream.aclose()
        assert notes[-1] == "GeneratorExit a"

    asyncio.run(story())


def test_a_method_is_wrapped_once_and_an_unknown_one_is_not_remembered() -> None:
    """Names of methods come from callers: there is no end to the unknown ones."""
    notes: list[str] = []
    boundary, handler = CallBoundary([Layer("a", notes)]), unary(get).handler

    class Details:
        def __init__(self, method: str) -> None:
            self.method = method

    async def found(details: Any) -> Any:
        return handler if details.method == GET else None

    async def intercept(method: str) -> Any:
        return await boundary.intercept_service(found, cast(Any, Details(method)))

    async def story() -> None:
        assert await intercept(GET) is await intercept(GET)
        assert await intercept("/simsearch.v1.BankService/Unknown") is None

    asyncio.run(story())
    assert notes == ["bind a"]
    assert list(boundary._wrapped) == [GET]
