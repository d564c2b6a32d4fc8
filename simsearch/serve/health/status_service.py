"""Index service: GetStatus, with the spaces, banks, index lag and health of a server."""

from __future__ import annotations

from simsearch import __version__
from simsearch.encode.registry import LoadedEncoder
from simsearch.live.view import View
from simsearch.serve.auth.identity import current
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.serve.transport.call_boundary import Context
from simsearch.types import BINARY, BankAccess
from simsearch.v1 import index_pb2, index_pb2_grpc
from simsearch.wire import policy_to


class IndexService(index_pb2_grpc.IndexServiceServicer):
    """Implements simsearch.v1.IndexService."""

    def __init__(self, executor: EditExecutor) -> None:
        self._executor = executor

    async def GetStatus(
        self, request: index_pb2.GetStatusRequest, context: Context
    ) -> index_pb2.GetStatusResponse:
        """The status; it lists only banks that the caller may read."""
        reads = current().reads
        return await self._executor.run(lambda core: _status(core, reads))


def _status(core: Core, reads: BankAccess) -> index_pb2.GetStatusResponse:
    view, durable = core.follower.view, core.store.seq()
    fault = core.follower.fault
    return index_pb2.GetStatusResponse(
        version=__version__,
        snapshot=view.snapshot,
        visible_seq=view.seq,
        durable_seq=durable,
        lag=max(0, durable - view.seq),
        spaces=[
            *[_space(encoder, view) for encoder in core.encoders],
            *[_without_encoder(space, rows) for space, rows in sorted(view.unsearchable.items())],
        ],
        signals=[
            index_pb2.SignalStatus(signal=s, rows=len(rows) if (rows := view.hamming(s)) else 0)
            for s in BINARY
        ],
        banks=[
            index_pb2.BankStatus(name=b.name, active_entries=b.active_entries)
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


def _space(encoder: LoadedEncoder, view: View) -> index_pb2.SpaceStatus:
    if encoder.space is None:
        return index_pb2.SpaceStatus(name=encoder.name, available=False, reason=encoder.off_reason)
    rows = view.cosine(encoder.space.id)
    return index_pb2.SpaceStatus(
        name=encoder.name,
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
