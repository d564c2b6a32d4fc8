"""What an ingestion service imports: a typed client over gRPC.

```python
from simsearch.client import Client

with Client("127.0.0.1:50070") as client:
    result = client.match_image(upload, banks=["csam-partners"])
    if result.verdict is Band.BLOCK:
        refuse(result.hits)
```

Every refusal comes out as the error of `simsearch.errors` that the server raised; a server that
cannot be reached, or that did not answer in time, is `Unreachable`. A client is safe to share
between threads; open it after forking, never before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from simsearch.errors import ContentTooLarge, SimsearchError, Unreachable
from simsearch.types import (
    Content,
    Edit,
    EntryState,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    Policy,
    Signal,
    TextContent,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import (
    bank_pb2,
    bank_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    match_pb2,
    match_pb2_grpc,
    policy_pb2,
)
from simsearch.wire import (
    content_to,
    edit_to,
    error_from,
    item_error_from,
    options_to,
    policy_to,
    result_from,
    wait_to,
)

Response = TypeVar("Response")
Outcome: TypeAlias = MatchResult | SimsearchError

DEADLINE_S = 30.0
# CANCELLED: this client cancels nothing, so it is a server that was stopped meanwhile.
NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
MESSAGE_BYTES_MAX = 32 << 20

# Only calls that change nothing are tried again: an edit whose answer was lost may have happened.
# Extending may have too, and does nothing the second time.
RETRIES = {
    "methodConfig": [
        {
            "name": [
                {"service": "simsearch.v1.MatchService"},
                {"service": "simsearch.v1.IndexService"},
                {"service": "simsearch.v1.BankService", "method": "GetBank"},
                {"service": "simsearch.v1.BankService", "method": "ListBanks"},
                {"service": "simsearch.v1.BankService", "method": "GetEntry"},
                {"service": "simsearch.v1.BankService", "method": "ListEntries"},
                {"service": "simsearch.v1.BankService", "method": "ExtendEntry"},
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


class Client:
    """One channel to one server. `deadline_s` bounds every call, retries included."""

    def __init__(self, address: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
                ("grpc.service_config", json.dumps(RETRIES)),
            ],
        )
        self._match = match_pb2_grpc.MatchServiceStub(self._channel)
        self._bank = bank_pb2_grpc.BankServiceStub(self._channel)
        self._index = index_pb2_grpc.IndexServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ matching

    def match(self, content: Content, options: MatchOptions | None = None) -> MatchResult:
        """Judge one content."""
        request = match_pb2.MatchRequest(
            content=content_to(content), options=options_to(options or MatchOptions())
        )
        return result_from(self._call(self._match.Match, request).result)

    def match_batch(
        self, contents: Sequence[Content], options: MatchOptions | None = None
    ) -> list[Outcome]:
        """Judge many in one call: one result or error per content, in order."""
        request = match_pb2.BatchMatchRequest(
            contents=[content_to(c) for c in contents],
            options=options_to(options or MatchOptions()),
        )
        response = self._call(self._match.BatchMatch, request)
        return [
            result_from(item.result)
            if item.WhichOneof("outcome") == "result"
            else item_error_from(item.error)
            for item in response.items
        ]

    def match_image(self, data: bytes, banks: Sequence[str] = ()) -> MatchResult:
        """Judge an encoded image file (JPEG, PNG, WebP, GIF)."""
        return self.match(ImageContent(data), MatchOptions(tuple(banks)))

    def match_text(self, text: str, banks: Sequence[str] = ()) -> MatchResult:
        return self.match(TextContent(text), MatchOptions(tuple(banks)))

    def match_vector(
        self, space: str, vectors: np.ndarray, banks: Sequence[str] = ()
    ) -> MatchResult:
        """Judge ready unit vectors, (dim,) or (n, dim), float16 or float32."""
        rows = np.atleast_2d(vectors)
        return self.match(VectorContent(space, rows), MatchOptions(tuple(banks)))

    def match_hash(self, signal: Signal, value: bytes, banks: Sequence[str] = ()) -> MatchResult:
        return self.match(HashContent(signal, value), MatchOptions(tuple(banks)))

    # ------------------------------------------------------------ banks

    def create_bank(
        self, name: str, edit: Edit, *, description: str = "", policy: Policy | None = None
    ) -> bank_pb2.Bank:
        """A new bank; without a policy it gets the server's default one."""
        request = bank_pb2.CreateBankRequest(
            name=name,
            description=description,
            policy=policy_to(policy) if policy else None,
            edit=edit_to(edit),
        )
        return self.create_bank_from(request)

    def create_bank_from(self, request: bank_pb2.CreateBankRequest) -> bank_pb2.Bank:
        return self._call(self._bank.CreateBank, request).bank

    def get_bank(self, name: str) -> bank_pb2.Bank:
        return self._call(self._bank.GetBank, bank_pb2.GetBankRequest(name=name)).bank

    def list_banks(self) -> list[bank_pb2.Bank]:
        return list(self._call(self._bank.ListBanks, bank_pb2.ListBanksRequest()).banks)

    def update_bank(self, request: bank_pb2.UpdateBankRequest) -> bank_pb2.Bank:
        return self._call(self._bank.UpdateBank, request).bank

    # ------------------------------------------------------------ entries

    def add_entry(
        self,
        bank: str,
        contents: Sequence[Content],
        edit: Edit,
        *,
        labels: Sequence[str] = (),
        source: str = "",
        source_id: str = "",
        note: str = "",
        wait_until: WaitUntil = WaitUntil.VISIBLE,
    ) -> bank_pb2.AddEntryResponse:
        """Ban one item; its contents become rows of one entry."""
        draft = bank_pb2.EntryDraft(
            contents=[content_to(c) for c in contents],
            labels=labels,
            source=source,
            source_id=source_id,
            note=note,
        )
        request = bank_pb2.AddEntryRequest(
            bank=bank,
            entry=draft,
            edit=edit_to(edit),
            wait_until=wait_to(wait_until),
        )
        return self._call(self._bank.AddEntry, request)

    def add_entries(
        self,
        bank: str,
        items: Sequence[Content],
        edit: Edit,
        *,
        wait_until: WaitUntil = WaitUntil.VISIBLE,
    ) -> list[int | SimsearchError]:
        """Ban many items of one content each: a key or an error per item, in order."""
        request = bank_pb2.BatchAddEntriesRequest(
            bank=bank,
            entries=[bank_pb2.EntryDraft(contents=[content_to(c)]) for c in items],
            edit=edit_to(edit),
            wait_until=wait_to(wait_until),
        )
        response = self._call(self._bank.BatchAddEntries, request)
        return [
            item.key if item.WhichOneof("outcome") == "key" else item_error_from(item.error)
            for item in response.items
        ]

    def get_entry(self, bank: str, key: int) -> bank_pb2.Entry:
        request = bank_pb2.GetEntryRequest(bank=bank, key=key)
        return self._call(self._bank.GetEntry, request).entry

    def list_entries(
        self,
        bank: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        state: EntryState | None = None,
    ) -> bank_pb2.ListEntriesResponse:
        """One page in key order; `next_page_token` is empty on the last."""
        request = bank_pb2.ListEntriesRequest(
            bank=bank,
            page_size=page_size,
            page_token=page_token,
            state=int(state or 0),  # type: ignore[arg-type]
        )
        return self._call(self._bank.ListEntries, request)

    def extend_entry(
        self,
        bank: str,
        key: int,
        contents: Sequence[Content],
        edit: Edit,
        *,
        partial: bool = False,
        wait_until: WaitUntil = WaitUntil.VISIBLE,
    ) -> bank_pb2.ExtendEntryResponse:
        """Give an entry the signals that it lacks, from the contents it was banned with: all of
        them or, with `partial`, those that are left. Ready vectors and hashes cannot be compared
        with what was banned: the caller vouches for them. Raises ContentMismatch."""
        request = bank_pb2.ExtendEntryRequest(
            bank=bank,
            key=key,
            contents=[content_to(c) for c in contents],
            edit=edit_to(edit),
            wait_until=wait_to(wait_until),
            partial=partial,
        )
        return self._call(self._bank.ExtendEntry, request)

    def retract_entry(
        self, bank: str, key: int, edit: Edit, *, wait_until: WaitUntil = WaitUntil.VISIBLE
    ) -> bank_pb2.RetractEntryResponse:
        request = bank_pb2.RetractEntryRequest(
            bank=bank,
            key=key,
            edit=edit_to(edit),
            wait_until=wait_to(wait_until),
        )
        return self._call(self._bank.RetractEntry, request)

    # ------------------------------------------------------------ the server

    def status(self) -> index_pb2.GetStatusResponse:
        return self._call(self._index.GetStatus, index_pb2.GetStatusRequest())

    def default_policy(self) -> policy_pb2.Policy:
        """What a bank gets whose creator names no policy."""
        return self.status().default_policy

    def is_serving(self) -> bool:
        """True once the server answers searches; False while it loads or drains."""
        response = self._call(self._health.Check, health_pb2.HealthCheckRequest())
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self, method: Callable[..., Response], request: Any) -> Response:
        try:
            return method(request, timeout=self._deadline_s)
        except grpc.RpcError as failure:
            raise self._error(failure) from None

    def _error(self, failure: grpc.RpcError) -> SimsearchError:
        """The server's own error, or Unreachable where it never came to one."""
        assert isinstance(failure, grpc.Call)
        try:
            status = rpc_status.from_call(failure)
        except ValueError:  # a proxy on the way changed the message: believe the plain status
            status = None
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return error_from(info.reason, status.message)
        code, words = failure.code(), failure.details()
        if code in NO_ANSWER:
            return Unreachable(
                f"no answer from {self.address} ({code.name}): is `simsearch serve` running there?"
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC's own: the server names its reasons
            return ContentTooLarge(
                f"the request is larger than {self.address} takes in one message: send less at once"
            )
        return SimsearchError(f"the call to {self.address} failed: {code.name}: {words}")
