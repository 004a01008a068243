"""Streamlit, serving: connections that ask for nothing are closed, and what visitors upload is bounded."""

import uvicorn.config
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from streamlit.web import cli
from streamlit.web.server import server
from uvicorn.protocols.http.auto import AutoHTTPProtocol

PATIENCE = 15.0
"""Seconds that a client may take to ask for something; one that holds a connection without asking loses it."""
MOST_OF_ONE = 2
"""Uploads that are held of a visitor: a page shows one, and the one before until the new one is there."""
MOST_BYTES = 512 * 2**20
"""Of all visitors' uploads."""


class Impatient(AutoHTTPProtocol):  # type: ignore[valid-type,misc]
    """A connection that is closed where no whole request comes: each one costs a file handle."""

    def connection_made(self, transport: object) -> None:
        """Look again after `PATIENCE` seconds."""
        super().connection_made(transport)
        self._last = self.cycle
        self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        """Close the connection if it has asked for nothing since it was looked at, and is not being answered."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # a WebSocket by now
            return
        if self.cycle is self._last and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
            return
        self._last = self.cycle
        self.loop.call_later(PATIENCE, self._look)


class Uploads(MemoryUploadedFileManager):
    """Uploads of all visitors, up to `MOST_OF_ONE` of each and `MOST_BYTES` in all: the oldest go, whoever sent them.

    Streamlit holds what is sent to a session until that ends, however often it is sent to, asked for by a page or not.
    """

    def add_file(self, session_id: str, file: UploadedFileRec) -> None:
        """Hold a file, and let the oldest go."""
        super().add_file(session_id, file)
        with self._lock:
            mine = self.file_storage.pop(session_id)
            self.file_storage[session_id] = mine  # sessions too are in the order of their latest upload
            older = [(session_id, name) for name in mine][:-MOST_OF_ONE]
            older += [(one, name) for one, files in self.file_storage.items() if one != session_id for name in files]
        for one, name in older:
            if len(mine) <= MOST_OF_ONE and self._total_bytes <= MOST_BYTES:
                return
            self.remove_file(one, name)


def main() -> None:
    """Serve until the process is ended."""
    server.MemoryUploadedFileManager = Uploads  # type: ignore[misc]
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "app.serving:Impatient"
    cli.main(prog_name="streamlit")
