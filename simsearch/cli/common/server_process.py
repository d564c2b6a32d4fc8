"""A real server process of one's own: a free loopback port, a directory for its data and log."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

from simsearch.errors import Unreachable

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0


class ServerProcess:
    """`simsearch serve` on a free loopback port, up and loaded once this is constructed.

    Raises Unreachable with the end of the server's log where it does not come up.
    """

    def __init__(self, directory: Path, config: Path | None = None) -> None:
        self._log = directory / "server.log"
        self.data_dir = directory / "data"
        command = [sys.executable, "-m", "simsearch.cli", "serve", "--json"]
        command += ["--listen", "127.0.0.1:0", "--data-dir", str(self.data_dir)]
        command += ["--config", str(config)] if config else []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then stop the server
            )
        try:
            self.address = self._announced()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        self._process.kill()
        self.stop()

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> None:
        """SIGTERM and a bounded wait for the drain, then SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _announced(self) -> str:
        """The address that the server prints once it answers searches."""
        lines: queue.Queue[bytes] = queue.Queue()
        assert self._process.stdout is not None
        read = self._process.stdout.readline
        threading.Thread(target=lambda: lines.put(read()), daemon=True).start()
        try:
            line = lines.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            line = b""
        if not line:
            raise Unreachable(f"the server did not come up:\n{self._log_end()}")
        address: str = json.loads(line)["listening"]
        return address

    def _log_end(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
