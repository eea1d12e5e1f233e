"""Who may call and how, over real sockets: what is refused, in which words, counted how, and in what time."""

import asyncio
import json
from contextlib import suppress

import pytest

from common import guard, web
from common.guard import Limits
from common.queue.memory import MemoryQueue
from receiver import intake
from receiver.metrics import OUTCOMES
from tests.integration.test_receiver import Receiver, of, record, serving
from tests.integration.test_receiver_metrics import counted
from tests.lab.until import until

HEAD = b"POST /webhook HTTP/1.1\r\nHost: x\r\n"
GOOD = json.dumps(of(record())).encode()
HOOK = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD


def hooks(server: Receiver) -> dict[str, float]:
    return counted(server.metrics, "hookmirror_hooks_total")


async def say(server: Receiver, *pieces: bytes, every: float = 0.0) -> tuple[int, bytes]:
    """Send `pieces` on a connection of their own; return the last status and body when it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = bytearray()

    async def listen() -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                answer.extend(piece)

    listening = asyncio.create_task(listen())
    with suppress(ConnectionError):
        for piece in pieces:
            if not listening.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.wait([listening], timeout=every)
    async with asyncio.timeout(20):
        await listening
    writer.close()
    head, _, body = bytes(answer).rpartition(b"\r\n\r\n")
    return (int(head.rsplit(b"HTTP/1.1 ", 1)[1][:3]) if head else 0), body


def limited(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Give every server that starts from here on these limits, beside its number of connections."""

    class Quick(guard.Guard):
        def __init__(self, *args: object, limits: Limits, **more: object) -> None:
            given = {"connections": limits.connections} | changed
            super().__init__(*args, limits=Limits(**given), **more)  # type: ignore[arg-type]

    changed = limits
    monkeypatch.setattr(web, "Guard", Quick)


async def test_a_caller_from_another_network_is_refused_whatever_he_says_of_himself() -> None:
    async with serving(MemoryQueue(), allowed_networks=["198.51.100.0/24"]) as server:
        answer = await server.post(of(record()), headers={"X-Forwarded-For": "198.51.100.7"})
        assert (answer.status, answer.body) == (403, {"error": "not allowed"})
        assert (await server.post(of(record()), path="/guess")).status == 403
        assert (
            await server.request("GET", "/healthz")
        ).status == 200  # who looks after it comes from elsewhere
        assert await server.is_empty()
        assert hooks(server) == {"not_allowed": 2}


async def test_behind_a_trusted_proxy_the_caller_is_whom_it_names() -> None:
    about = {"allowed_networks": ["198.51.100.0/24"], "trusted_proxies": ["127.0.0.1"]}
    async with serving(MemoryQueue(), **about) as server:
        told = {"X-Forwarded-For": "203.0.113.5, 198.51.100.7"}
        assert (await server.post(of(record()), headers=told)).status == 200
        told = {"X-Forwarded-For": "198.51.100.7, 203.0.113.5"}
        assert (await server.post(of(record()), headers=told)).status == 403


async def test_an_address_that_sends_too_much_is_a_429_and_another_is_not() -> None:
    about = {"requests_per_second": 0.01, "burst": 2, "trusted_proxies": ["127.0.0.1"]}
    async with serving(MemoryQueue(), **about) as server:
        for status in (200, 200, 429, 429):
            answer = await server.post(of(record()), headers={"X-Forwarded-For": "198.51.100.7"})
            assert answer.status == status
        assert (answer.body, answer.headers["Retry-After"]) == ({"error": "too many requests"}, "1")
        assert (await server.post(of(record()), headers={"X-Forwarded-For": "198.51.100.8"})).status == 200
        assert hooks(server) == {"accepted": 3, "too_many": 2}


async def test_the_answers_to_a_wrong_path_and_a_wrong_method_are_the_same() -> None:
    async with serving(MemoryQueue()) as server:
        asked = [
            ("POST", "/webhoo"),
            ("POST", "/"),
            ("GET", "/webhook"),
            ("DELETE", "/x"),
            ("POST", "/ping/"),
        ]
        answers = [await server.request(method, path) for method, path in asked]
        assert {(one.status, str(one.body)) for one in answers} == {(404, "{'error': 'not found'}")}
        assert hooks(server) == {"not_found": len(asked)}


async def test_a_body_that_is_slow_is_a_408_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BODY_WITHIN", 0.3)
    async with serving(MemoryQueue()) as server:
        start = asyncio.get_running_loop().time()
        answer = await say(server, HOOK[:-50], *(HOOK[-50:-1][n : n + 1] for n in range(49)), every=0.05)
        assert answer == (408, b'{"error":"too slow"}')
        assert asyncio.get_running_loop().time() - start < 5
        assert hooks(server) == {"slow": 1}
        assert await server.is_empty()


async def test_a_head_that_is_slow_is_a_408_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, head_within=0.3)
    async with serving(MemoryQueue()) as server:
        before = hooks(server).get("slow", 0)
        answer = await say(server, *(HEAD[n : n + 1] for n in range(len(HEAD))), every=0.05)
        assert answer == (408, b'{"error": "too slow"}')
        assert hooks(server)["slow"] == before + 1


@pytest.mark.parametrize("first", [b"", HOOK], ids=["a new connection", "a used one"])
async def test_who_says_nothing_or_only_line_ends_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    limited(monkeypatch, head_within=0.3, idle_within=0.3)
    async with serving(MemoryQueue()) as server, asyncio.timeout(10):
        for noise in (b"", b"\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(first)

            async def closed(
                noise: bytes = noise,
                reader: asyncio.StreamReader = reader,
                writer: asyncio.StreamWriter = writer,
            ) -> bool:
                with suppress(ConnectionError):
                    writer.write(noise)
                return reader.at_eof() or reader.exception() is not None

            reading = asyncio.create_task(reader.read())
            await until(closed, "the connection is closed", 8)
            reading.cancel()
            writer.close()


async def test_a_body_that_goes_on_after_its_refusal_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, body_within=0.5)
    slow = [b"POST /guess HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", *[b"x"] * 100]
    async with serving(MemoryQueue()) as server:
        async with asyncio.timeout(15):
            status, _ = await say(server, *slow, every=0.05)
        assert status in {404, 0}  # 0 when a byte on its way met the closed connection
        assert hooks(server) == {"not_found": 1}


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n"], 431),
        ([HEAD, b"X: ", *[b"y" * 4096] * 5], 431),
        ([HEAD, *[b"X: y\r\n"] * 8000], 431),
        ([b"POST /" + b"y" * 20_000 + b" HTTP/1.1\r\n\r\n"], 431),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400),
        ([b"POST /webhook HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"], 400),
    ],
    ids=["a header", "an endless header", "many headers", "a path", "TLS", "two lengths"],
)
async def test_a_head_that_is_too_large_or_none_is_refused(pieces: list[bytes], status: int) -> None:
    async with serving(MemoryQueue()) as server:
        answer = await say(server, *pieces)
        assert answer[0] in {status, 0}
        [reason] = hooks(server)
        assert (reason, hooks(server)[reason]) == ({431: "too_large", 400: "not_http"}[status], 1)
        assert (await server.post(of(record()))).status == 200


async def test_trailers_without_end_are_refused() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with serving(MemoryQueue()) as server:
        await say(server, chunked, *[b"X: y\r\n"] * 8000)
        assert hooks(server).get("too_large") == 1


async def test_what_is_too_many_connections_is_a_503_and_those_that_there_are_go_on() -> None:
    async with serving(MemoryQueue(), max_connections=3) as server:

        async def alone() -> bool:
            status, body = await say(server, b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
            return (status, body) == (200, b"Pong")

        await until(alone, "the connection of the start is gone")
        seated = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        status, body = await say(server)
        assert (status, body) == (503, b'{"error": "too many connections"}')
        for reader, writer in seated:
            writer.write(HOOK)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        await until(alone, "there is room again")
        assert hooks(server)["crowded"] >= 1


UPGRADES = {
    "curl --http2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAA\r\n",
    "a WebSocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    "TLS": b"Upgrade: TLS/1.2\r\nConnection: upgrade\r\n",
    "no connection's": b"Upgrade: h2c\r\n",
}


@pytest.mark.parametrize("cut", ["whole", "in two", "byte by byte"])
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_is_ignored_and_the_body_read(upgrade: str, cut: str) -> None:
    chunked = HEAD + UPGRADES[upgrade] + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    asked = HOOK.replace(b"\r\n\r\n", b"\r\n" + UPGRADES[upgrade] + b"\r\n", 1)
    asked += chunked % (len(GOOD), GOOD)  # and the connection goes on
    asked += HOOK.replace(b"Host: x", b"Host: x\r\nConnection: close", 1)
    middle = asked.index(b"\r\n\r\n") + 4
    pieces = {
        "whole": [asked],
        "in two": [asked[:middle], asked[middle:]],
        "byte by byte": [asked[at : at + 1] for at in range(len(asked))],
    }
    async with serving(MemoryQueue()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in pieces[cut]:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(20):
            answers = await reader.read()
        writer.close()
        assert answers.count(b"HTTP/1.1 200") == 3, answers
        assert hooks(server) == {"accepted": 3}
        assert [task.key for task in await server.tasks()] == ["k"] * 3


@pytest.mark.parametrize(
    "asked",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["CONNECT", "HTTP/2 without asking"],
)
async def test_what_is_no_request_of_ours_is_refused_and_counted(asked: bytes) -> None:
    async with serving(MemoryQueue()) as server:
        assert (await say(server, asked))[0] == 400
        assert hooks(server) == {"not_http": 1}


async def test_a_head_that_is_too_large_is_refused_though_it_asks_for_an_upgrade() -> None:
    asked = HEAD + UPGRADES["curl --http2"] + b"X: " + b"y" * 20_000 + b"\r\n\r\n"
    async with serving(MemoryQueue()) as server:
        assert (await say(server, asked))[0] in {431, 0}
        assert hooks(server) == {"too_large": 1}


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "::1"])  # noqa: S104 - on purpose
async def test_a_host_listens_where_it_says_and_two_colons_everywhere(host: str) -> None:
    reached = {"::": {"127.0.0.1", "::1"}, "0.0.0.0": {"127.0.0.1"}, "::1": {"::1"}}  # noqa: S104
    listener = web.listen("receiver", host, 0)

    async def takes(address: str) -> bool:
        try:
            _, writer = await asyncio.open_connection(address, listener.getsockname()[1])
        except OSError:
            return False
        writer.close()
        return True

    with listener:
        assert [address for address in reached[host] if not await takes(address)] == []


async def test_a_caller_on_both_families_has_one_address() -> None:
    async with serving(MemoryQueue(), host="::", allowed_networks=["127.0.0.0/8"]) as server:
        assert (await server.post(of(record()))).status == 200


async def test_requests_one_after_the_other_on_one_connection_are_all_answered() -> None:
    async with serving(MemoryQueue()) as server:
        last = HOOK.replace(b"Host: x", b"Host: x\r\nConnection: close")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HOOK * 200 + last)
        async with asyncio.timeout(20):
            answers = await reader.read()
        writer.close()
        assert answers.count(b"HTTP/1.1 200") == 201
        assert hooks(server) == {"accepted": 201}


def test_every_reason_of_the_guard_is_an_outcome_that_is_counted() -> None:
    assert set(guard._ANSWERS) <= set(OUTCOMES)
