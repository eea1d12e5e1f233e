"""The edge as it is deployed, on a real nginx: no line of its logs has the secret path."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from yarl import URL

from demo.weed import free_ports
from tests.lab.amazon import certify, rsa_key
from tests.lab.nginx import program
from tests.lab.until import until

CONF = Path(__file__).parents[2] / "deploy/edge/nginx.conf"
SECRET = "3f9c0a7b5d1e42"
PATH = f"/webhook/{SECRET}"

pytestmark = pytest.mark.timeout(120)


@dataclass
class Edge:
    """A running nginx, and where the receiver behind it would be."""

    http: int
    https: int
    receiver: int
    log: Path

    def lines(self) -> list[str]:
        """All that it has written, to standard output and error."""
        return self.log.read_text(errors="replace").splitlines()


@contextmanager
def edge(folder: Path) -> Iterator[Edge]:
    """Run nginx on the deployed configuration: places, ports and its rate are changed."""
    http, https, receiver = free_ports(3)
    for folder_ in ("tls", "run", "tmp"):
        (folder / folder_).mkdir()
    prove(folder / "tls")
    changes = {
        "/etc/nginx/tls": f"{folder}/tls",
        "/var/run/": f"{folder}/run/",
        " /tmp/": f" {folder}/tmp/",  # noqa: S108 - the container's
        "listen 80 ": f"listen 127.0.0.1:{http} ",
        "listen 443 ": f"listen 127.0.0.1:{https} ",
        "set $receiver receiver;": "set $receiver 127.0.0.1;",  # which asks no DNS
        "$receiver:8080": f"$receiver:{receiver}",
        "rate=500r/s": "rate=1r/m",  # so that no machine is too slow to send too much
        "burst=100;": "burst=3 nodelay;",
        "/dev/stderr": f"{folder}/log",
        "/dev/stdout": f"{folder}/log",
    }
    text = CONF.read_text()
    assert all(old in text for old in changes)
    known = re.compile("|".join(map(re.escape, changes)))
    (folder / "nginx.conf").write_text(known.sub(lambda found: changes[found.group()], text))
    command = [
        program(),
        "-g",
        "daemon off; master_process off;",
        "-e",
        f"{folder}/log",
        "-c",
        f"{folder}/nginx.conf",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield Edge(http, https, receiver, folder / "log")
    finally:
        process.terminate()
        process.wait(10)


def prove(folder: Path) -> None:
    """Put a certificate of nobody's there, and its key."""
    key = rsa_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "privkey.pem").write_bytes(pem)
    (folder / "fullchain.pem").write_bytes(certify(key))


async def post(session: aiohttp.ClientSession, port: int, body: bytes, *, scheme: str = "https") -> int:
    url = URL(f"{scheme}://127.0.0.1:{port}{PATH}")
    async with session.post(url, data=body, ssl=False, allow_redirects=False) as answer:
        await answer.read()
        return answer.status


@asynccontextmanager
async def senders(edge: Edge) -> AsyncIterator[aiohttp.ClientSession]:
    """Clients of the edge, which is there."""
    async with aiohttp.ClientSession() as session:

        async def answers() -> bool:
            try:
                return await post(session, edge.https, b"{}") == 503
            except aiohttp.ClientConnectionError:
                return False

        await until(answers, "nginx answers")
        yield session


async def test_no_line_of_the_edges_logs_has_the_secret_path(tmp_path: Path) -> None:
    with edge(tmp_path) as running:
        async with senders(running) as session:
            assert await post(session, running.https, b"x" * 300_000) == 413
            assert await post(session, running.http, b"{}", scheme="http") == 308
            assert await post(session, running.http, b"x" * 300_000, scheme="http") in {308, 413}
            statuses = [await post(session, running.https, b"{}") for _ in range(5)]
            assert 429 in statuses
        for noise in (f"GET {PATH} HTTP/9.9\r\n\r\n", f"POST {PATH} HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            await say(running.http, noise.encode())
            await say(running.https, noise.encode())

        def written() -> bool:
            return len([line for line in running.lines() if " 429 " in line]) >= statuses.count(429)

        await until(written, "all of it is logged")
    lines = running.lines()
    assert any(" 413 " in line for line in lines)
    assert any(" 503 " in line and "502" in line for line in lines), "what the receiver did is told"
    assert not [line for line in lines if SECRET in line]


async def say(port: int, noise: bytes) -> None:
    """Send what is no request to a port that may speak TLS, and wait for its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(noise)
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()
