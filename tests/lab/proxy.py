"""An HTTP proxy that finds every name on this machine, and writes down what goes through it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """Takes requests in absolute form, and tunnels (CONNECT). Asks for `login` ("user:password") if there is
    one."""

    login: str = ""
    seen: list[str] = field(default_factory=list)
    """The method and what it was about: a URL, or the host and port of a tunnel."""
    port: int = 0
    leads: dict[str, int] = field(default_factory=dict)
    """To which port of this machine a tunnel leads, by "host:port"; without an entry to the same port."""

    @property
    def url(self) -> str:
        """The URL for http_proxy."""
        return f"http://{self.login}{'@' if self.login else ''}127.0.0.1:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request, or one tunnel."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            first, _, headers = head.decode("latin-1").partition("\r\n")
            method, target, _ = first.split(" ")
            if not self._admits(headers):
                writer.write(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
            elif method == "CONNECT":
                self.seen.append(f"CONNECT {target}")
                port = self.leads.get(target) or int(target.rpartition(":")[2])
                await self._tunnel(reader, writer, port)
            else:
                self.seen.append(f"{method} {target}")
                await self._forward(method, target, headers, reader, writer)
        writer.close()

    def _admits(self, headers: str) -> bool:
        known = base64.b64encode(self.login.encode()).decode()
        return not self.login or f"proxy-authorization: basic {known}".lower() in headers.lower()

    @staticmethod
    async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(_pour(reader, back), _pour(there, writer))

    @staticmethod
    async def _forward(
        method: str, target: str, headers: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(target)
        there, back = await asyncio.open_connection("127.0.0.1", url.port or 80)
        path = target.removeprefix(f"{url.scheme}://{url.netloc}")
        kept = [line for line in headers.split("\r\n") if line and not line.lower().startswith("connection:")]
        sent = "\r\n".join([f"{method} {path or '/'} HTTP/1.1", *kept, "Connection: close", "", ""])
        back.write(sent.encode("latin-1"))
        asked = asyncio.create_task(_pour(reader, back))
        await _pour(there, writer)
        asked.cancel()
        await asyncio.wait([asked])


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(2**16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy(login: str = "") -> AsyncIterator[Proxy]:
    """Run a proxy on a free port of loopback."""
    made = Proxy(login)
    listener = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
