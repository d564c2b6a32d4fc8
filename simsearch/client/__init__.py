"""Client library: a typed client over gRPC, for threads and for asyncio.

```python
from simsearch.client import Client
from simsearch.types import Band

with Client("127.0.0.1:50070") as client:
    result = client.match_image(upload, banks=["csam-partners"])
    if result.verdict is Band.BLOCK:
        refuse(result.hits)
```

`AsyncClient` is the same to await. Several addresses of servers with the same banks are one
client: `Client(["10.0.0.1:50070", "10.0.0.2:50070"])`. It asks those in turn that say that they are
ready; one that hangs is left out after 15 s.

- Every refusal comes out as the error of `simsearch.errors` that the server raised; a server that
  cannot be reached, or that did not answer in time, is `Unreachable`.
- gRPC repeats calls that change nothing, within the caller's deadline (`retry`). It does not repeat
  edits: one whose answer was lost may have happened.
- `match` calls that come while others are under way travel together (`autobatch`); each caller
  gets its own result or its own error. A lone call goes out at once, as it always did.
- `match_stream` is for stocks: contents in, numbered outcomes out, and a bound on what is between.
- `token` and `tls` say who the client is and whom it trusts; a token is never sent in clear text
  to another machine. `priority=Priority.BULK` lets everybody else go first.
- Open a client after forking, never before: threads and connections do not survive a fork.
- `close` ends it for everybody: calls under way raise `Unreachable`.
"""

from simsearch.client.async_client import AsyncClient
from simsearch.client.base_client import ClientCounts
from simsearch.client.batching.batch_queue import AutoBatch
from simsearch.client.calls import Outcome
from simsearch.client.streaming.send_window import StreamBounds
from simsearch.client.sync_client import Client
from simsearch.client.transport.service_config import NO_RETRIES, RetryPolicy

__all__ = [
    "NO_RETRIES",
    "AsyncClient",
    "AutoBatch",
    "Client",
    "ClientCounts",
    "Outcome",
    "RetryPolicy",
    "StreamBounds",
]
