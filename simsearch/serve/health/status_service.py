"""Index service: GetStatus, with the spaces, banks, index lag and health of a server."""

from __future__ import annotations

from collections.abc import Iterator

from simsearch import __version__
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.encode.text.forms.text_forms import NormalForm
from simsearch.live.view import View
from simsearch.serve.auth.identity import current
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.older_forms import OlderFormCount
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.serve.transport.call_boundary import Context
from simsearch.types import BINARY, BankAccess
from simsearch.v1 import index_pb2, index_pb2_grpc
from simsearch.wire import policy_to


class IndexService(index_pb2_grpc.IndexServiceServicer):
    """Implements simsearch.v1.IndexService."""

    def __init__(self, executor: EditExecutor) -> None:
        self._executor = executor
        self._older_forms = OlderFormCount()

    async def GetStatus(
        self, request: index_pb2.GetStatusRequest, context: Context
    ) -> index_pb2.GetStatusResponse:
        """The status; it lists only banks that the caller may read."""
        reads = current().reads
        return await self._executor.run(lambda core: _status(core, reads, self._older_forms))


def _status(
    core: Core, reads: BankAccess, older_forms: OlderFormCount
) -> index_pb2.GetStatusResponse:
    older = older_forms.of(core.store)
    view, durable = core.follower.view, core.store.seq()
    fault = core.follower.fault
    return index_pb2.GetStatusResponse(
        version=__version__,
        snapshot=view.snapshot,
        visible_seq=view.seq,
        durable_seq=durable,
        lag=max(0, durable - view.seq),
        spaces=[
            *[_space(encoder, view) for encoder in _listed(core.encoders, view)],
            *[_without_encoder(space, rows) for space, rows in sorted(view.unsearchable.items())],
        ],
        signals=[
            index_pb2.SignalStatus(signal=s, rows=len(rows) if (rows := view.hamming(s)) else 0)
            for s in BINARY
        ],
        banks=[
            index_pb2.BankStatus(
                name=b.name,
                active_entries=b.active_entries,
                older_form_entries=older.get(b.name, 0),
            )
            for b in core.store.banks()
            if b.name in reads
        ],
        fault=fault.message if fault else "",
        default_policy=policy_to(core.default_policy()),
        gpus=[
            index_pb2.GpuStatus(
                name=gpu.name,
                reason=gpu.reason,
                queries=gpu.queries,
                faults=gpu.faults,
                index_bytes=gpu.nbytes,
            )
            for gpu in core.follower.gpus
        ],
        ready=core.health.ready,
        canary=[
            index_pb2.CanaryFinding(
                part=check.component, signal=check.signal, right=check.ok, detail=check.fault
            )
            for check in core.health.results
        ],
    )


def _listed(encoders: EncoderSet, view: View) -> Iterator[LoadedEncoder]:
    """All encoders, and those of the older form of texts whose space has rows."""
    for encoder in encoders.with_older:
        if encoder.form is NormalForm.STRONG or (encoder.space and view.cosine(encoder.space.id)):
            yield encoder


def _space(encoder: LoadedEncoder, view: View) -> index_pb2.SpaceStatus:
    if encoder.space is None:
        return index_pb2.SpaceStatus(name=encoder.name, available=False, reason=encoder.off_reason)
    rows = view.cosine(encoder.space.id)
    older = " (older form)" if encoder.form is NormalForm.OLDER else ""
    return index_pb2.SpaceStatus(
        name=encoder.name + older,
        space=encoder.space.id,
        dim=encoder.space.dim,
        modalities=[str(m) for m in encoder.modalities],
        available=True,
        rows=len(rows) if rows else 0,
        precision=encoder.precision,
    )


def _without_encoder(space: str, rows: int) -> index_pb2.SpaceStatus:
    """Rows of a space that no encoder here has. It may be that of an encoder that is off: its id is
    unknown."""
    return index_pb2.SpaceStatus(
        space=space,
        available=False,
        reason="no encoder here has this space: these rows are in the bank and are not searched",
        rows=rows,
    )
