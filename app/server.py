"""The process that serves: Streamlit, which ends with the process that started it, however that one ends."""

import signal
import sys

import uvicorn.config
from streamlit.web import cli
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from analyses.processes import end_with

PATIENCE = 15.0
"""Seconds that a client may take to ask for something; one that holds a connection without asking loses it."""


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


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)), signal.SIGTERM)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "app.server:Impatient"
    cli.main(prog_name="streamlit")
