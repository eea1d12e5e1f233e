"""The client of HTTP under the S3 store, against a server that answers byte by byte as it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from common.store import answer, http
from common.store.answer import MAX_HEAD, Broken, Response
from common.store.http import Client, Unreached, Way
from common.store.port import Stream
from tests.lab.until import until

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Line:
    """A server that talks to each connection as it is told, and counts them."""

    talk: Talk
    port: int = 0
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self.talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    @property
    def way(self) -> Way:
        return Way.to(f"http://127.0.0.1:{self.port}", None)


@asynccontextmanager
async def line(talk: Talk) -> AsyncIterator[Line]:
    made = Line(talk)
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    listener.close()
    for writer in made.writers:
        writer.transport.abort()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    yield made
    made.close()


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


def says(*answers: bytes, stays: bool = True) -> Talk:
    """Give each request of a connection the next answer; then close it, unless it `stays`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for given in answers:
            await head_of(reader)
            writer.write(given)
            await writer.drain()
        if stays:
            await reader.read()

    return talk


async def get(client: Client, at: Line, method: str = "GET", path: str = "/k") -> Response:
    return await client.request(at.way, method, path, {"host": "h"})


async def body_of(client: Client, at: Line, method: str = "GET") -> bytes:
    response = await get(client, at, method)
    try:
        return await response.read()
    finally:
        response.release()


BODIES = {
    "by its length": OK + b"Content-Length: 4\r\n\r\nbody",
    "in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "after an answer that is none yet": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\nA: b\r\n\r\n"
    + OK
    + b"Content-Length: 4\r\n\r\nbody",
}


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
@pytest.mark.parametrize("given", BODIES.values(), ids=BODIES)
async def test_a_body_is_read_to_its_end_however_it_comes_and_the_connection_is_kept(
    client: Client, given: bytes, pieces: int
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await head_of(reader)
            for start in range(0, len(given), pieces):
                writer.write(given[start : start + pieces])
                await writer.drain()

    async with line(talk) as at:
        for _ in range(2):
            assert await body_of(client, at) == b"body"
        assert at.connections == 1


async def test_a_body_without_a_length_lasts_until_the_connection_ends(client: Client) -> None:
    async with line(says(OK + b"\r\nbody", stays=False)) as at:
        assert await body_of(client, at) == b"body"
        assert await body_of(client, at) == b"body"
        assert at.connections == 2


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("HEAD", OK + b"Content-Length: 1000\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n"),
    ],
)
async def test_some_answers_have_no_body_whatever_their_headers_say(
    client: Client, method: str, given: bytes
) -> None:
    async with line(says(given, given)) as at:
        assert await body_of(client, at, method) == b""
        assert await body_of(client, at, method) == b""
        assert at.connections == 1


@pytest.mark.parametrize(
    "given",
    [
        OK + b"Content-Length: 5\r\n\r\nbody",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nZ\r\nbody\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_broken(client: Client, given: bytes) -> None:
    async with line(says(given, stays=False)) as at:
        with pytest.raises(Broken):
            await body_of(client, at)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"HTT",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        OK + b"Content-Length: 1\r\n",
        OK + b"Content-Length: x\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        OK + b"no colon\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_broken(client: Client, given: bytes) -> None:
    async with line(says(given, stays=False)) as at:
        with pytest.raises(Broken):
            await body_of(client, at)


async def test_headers_come_with_lower_names_joined_values_and_every_byte(client: Client) -> None:
    given = OK + b"X-Amz-Meta-A:  caf\xe9 \r\nx-two: a\r\nX-Two: b\r\nContent-Length: 0\r\n\r\n"
    async with line(says(given)) as at:
        response = await get(client, at)
        assert response.headers == {"x-amz-meta-a": "caf\udce9", "x-two": "a,b", "content-length": "0"}


async def test_large_headers_are_taken_and_endless_ones_are_not(client: Client) -> None:
    most = b"X-A: " + b"a" * (MAX_HEAD - 200) + b"\r\n"
    async with line(says(OK + most + b"Content-Length: 0\r\n\r\n")) as at:
        assert (await get(client, at)).status == 200
    for endless in (most + most, b"X: " + b"a" * 2 * MAX_HEAD, b"X: y\r\n" * MAX_HEAD):
        async with line(says(OK + endless, stays=True)) as at:
            with pytest.raises(Broken, match="more than 65536 bytes"):
                await get(client, at)


async def test_the_path_goes_out_as_it_is(client: Client) -> None:
    heads = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(EMPTY)

    async with line(talk) as at:
        await get(client, at, path="//../a%00/./?x=%20")
    assert heads == ["GET //../a%00/./?x=%20 HTTP/1.1\r\nhost: h\r\n\r\n"]


async def test_a_header_cannot_bring_a_line_of_its_own(client: Client) -> None:
    async with line(says(EMPTY)) as at:
        with pytest.raises(ValueError, match="line end"):
            await client.request(at.way, "GET", "/", {"x": "a\r\nb: c"})
        assert at.connections == 0


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


SIZES = [0, 1, http.PIECE, http.PIECE + 1, 5_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_arrives_whole_whatever_its_size(client: Client, size: int, streamed: bool) -> None:
    came = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await head_of(reader)
            came.append(await reader.readexactly(size))
            writer.write(EMPTY)

    body = bytes(n % 251 for n in range(size))
    async with line(talk) as at:
        for _ in range(2):
            sent = Stream(pieces(body[: size // 2], body[size // 2 :]), size, b"") if streamed else body
            response = await client.request(at.way, "PUT", "/k", {"content-length": str(size)}, sent)
            response.release()
        assert came == [body, body]
        assert at.connections == 1


async def test_a_refusal_does_not_wait_for_the_rest_of_the_body(client: Client) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.Event().wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**16)

    async with line(talk) as at:
        for body in (bytes(50_000_000), Stream(endless(), 2**40, b"")):
            response = await client.request(at.way, "PUT", "/k", {}, body)
            assert (response.status, await response.read()) == (403, b"no")
            response.release()
        assert at.connections == 2, "the server may still wait for the rest"


async def test_an_error_of_the_body_is_raised_as_it_is_and_closes_the_connection(client: Client) -> None:
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("the source")

    async with line(talk) as at:
        with pytest.raises(LookupError, match="the source"):
            await client.request(at.way, "PUT", "/k", {}, Stream(breaks(), 10, b""))
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_body_of_another_size_than_announced_is_broken(client: Client) -> None:
    async with line(says(EMPTY)) as at:
        for given in (b"short", b"longer than that"):
            with pytest.raises(Broken, match="announced"):
                await client.request(at.way, "PUT", "/k", {}, Stream(pieces(given), 10, b""))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
async def test_a_kept_connection_that_was_closed_is_not_used(client: Client, method: str) -> None:
    """Known before a byte was sent: the event loop may not have seen the end yet."""
    async with line(says(EMPTY, stays=False)) as at:
        for _ in range(5):
            (await get(client, at, method)).release()
            writer = at.writers[-1]
            await writer.wait_closed()
        assert at.connections == 5


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
async def test_only_a_question_is_sent_again_when_a_kept_connection_gives_no_answer(
    client: Client, method: str
) -> None:
    seen = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await head_of(reader)).split()[0])
        writer.write(EMPTY)
        seen.append((await head_of(reader)).split()[0])  # and no answer to this

    async with line(talk) as at:
        (await get(client, at)).release()
        if method in {"GET", "HEAD"}:
            (await get(client, at, method)).release()
            assert seen == ["GET", method, method]
        else:
            with pytest.raises(Broken):
                await get(client, at, method)
            assert seen == ["GET", method]


async def test_a_fresh_connection_that_gives_no_answer_is_no_reason_to_ask_again(client: Client) -> None:
    async with line(says(b"", stays=False)) as at:
        with pytest.raises(Broken):
            await get(client, at)
        assert at.connections == 1


def pass_time(client: Client) -> None:
    """Let more time pass than a connection may be silent for."""
    for connection in [*client._open]:
        connection._since -= 2 * http.SILENCE
        connection._look()


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_silence_has_an_end_and_is_no_reason_to_ask_again(client: Client, method: str) -> None:
    asked = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await head_of(reader):
            asked += 1
            if asked == 1:
                writer.write(EMPTY)

    async with line(talk) as at:
        (await get(client, at)).release()
        asking = asyncio.create_task(get(client, at, method))
        await until(lambda: asked == 2, "it has been asked")
        pass_time(client)
        with pytest.raises(Broken, match="not a byte"):
            await asking
        assert (asked, at.connections) == (2, 1)


async def test_a_body_that_falls_silent_is_broken(client: Client) -> None:
    async with line(says(OK + b"Content-Length: 10\r\n\r\nhalf")) as at:
        response = await get(client, at)
        reading = asyncio.create_task(response.read())
        await until(lambda: response.is_awaited, "it waits for the rest")
        pass_time(client)
        with pytest.raises(Broken, match="body broke off: not a byte"):
            await reading


async def test_who_takes_nothing_of_a_body_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SILENCE", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with line(talk) as at:
        with pytest.raises(Broken, match="not a byte"):
            await client.request(at.way, "PUT", "/k", {}, bytes(50_000_000))


async def test_a_slow_reader_is_no_silence_and_bounds_what_is_held(client: Client) -> None:
    size = 40_000_000
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with line(talk) as at:
        response = await get(client, at)
        await until(lambda: response._held > answer.HIGH, "so much is held")
        pass_time(client)
        assert response._held < answer.HIGH + 2**20
        assert sent < size, "the rest waits at the server"
        assert len(await response.read()) == size
        response.release()


async def test_an_unread_answer_that_is_let_go_closes_its_connection(client: Client) -> None:
    async with line(says(OK + b"Content-Length: 1000000000\r\n\r\n" + bytes(1000))) as at:
        (await get(client, at)).release()
        (await get(client, at)).release()
        assert at.connections == 2


async def test_more_than_was_asked_for_ends_a_connection(client: Client) -> None:
    async with line(says(EMPTY + EMPTY, EMPTY)) as at:
        for _ in range(2):
            assert await body_of(client, at) == b""
        assert at.connections == 2


@pytest.mark.parametrize(
    ("method", "given", "body"),
    [
        ("GET", OK + b"Content-Length: 5\r\n\r\nhello behind", b"hello"),
        ("GET", OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello behind", b"hello"),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nbehind", b"hello"),
        ("PUT", EMPTY + b"<html>", b""),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n<xml>", b""),
        ("DELETE", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", b""),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello behind", b""),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n<Error/>", b""),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n<Error/>", b""),
    ],
)
async def test_what_stands_behind_an_answer_keeps_nobody_waiting(
    client: Client, method: str, given: bytes, body: bytes
) -> None:
    async with line(says(given, given)) as at, asyncio.timeout(5):  # a silence would be given up after 30
        for _ in range(2):
            assert await body_of(client, at, method) == body
        assert at.connections == 2, "who says more than was asked for is not asked again"


async def test_who_is_cancelled_leaves_no_connection_behind(client: Client) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with line(talk) as at:
        asking = asyncio.create_task(get(client, at))
        await until(lambda: at.connections == 1, "it is connected")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not client._open, "it is closed")


async def test_what_nobody_uses_is_closed_after_a_while(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "IDLE", 0.05)
    async with line(says(EMPTY)) as at:
        (await get(client, at)).release()
        await until(lambda: not client._open, "it is closed")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "https://127.0.0.1:1"])
async def test_what_cannot_be_reached_was_sent_nothing(client: Client, url: str) -> None:
    with pytest.raises(Unreached):
        await client.request(Way.to(url, None), "PUT", "/k", {}, b"x")


async def test_an_address_that_does_not_answer_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECT_WITHIN", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # and no TLS

    async with line(talk) as at:
        with pytest.raises(Unreached, match="no answer within"):
            await client.request(Way.to(f"https://127.0.0.1:{at.port}", None), "PUT", "/k", {}, b"x")


async def test_requests_at_once_have_connections_of_their_own(client: Client) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path = (await head_of(reader)).split()[1].encode()
            writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(path), path))

    async def ask(n: int) -> None:
        response = await get(client, at, path=f"/{n}")
        assert await response.read() == f"/{n}".encode()
        response.release()

    async with line(talk) as at:
        for _ in range(5):
            await asyncio.gather(*map(ask, range(50)))
        assert at.connections <= 50
