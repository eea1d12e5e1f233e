"""Stack notifications from end to end: a real receiver over HTTP, real queues, real workers and programs."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import receiver.program
import worker.program
from common.errors import LostDelivery, QueueAway
from common.metrics import Metrics
from common.queue.memory import MemoryQueue
from common.queue.port import Lane, Queue, mark_lives
from common.queue.rabbitmq import RabbitQueue
from common.queue.sqlite import SqliteQueue
from common.settings import Settings
from common.task import Claim, Stack, Task
from common.telemetry import Action, LineFormatter, as_json
from demo.weed import free_ports
from tests.integration.test_forward import KEYS, SECRETS, taking
from tests.integration.test_receiver import Receiver, taken
from tests.lab.lanes import LIVE
from tests.lab.rabbit import RabbitNode
from tests.lab.samples import raw, sample
from tests.lab.until import until
from worker.actions import Order
from worker.blame import HOLD_WITHIN
from worker.job import Job, Route
from worker.plan import Why
from worker.stacks import StackActing, log_stack
from worker.verdict import Outcome

PATH = "/stacks/3f9c0a7b5d1e42d7"
ID = "80bd6b6c-e888-4573-ae3b-93d29144911d"
SIGNED = "OGU4ZmY1MGEyZjQ1NzVjMzA2MjE4NmE5MzA5NzM2MTk"
"""What must never be seen of tests/samples/ros/create_complete."""


def body(name: str = "prod-web", status: str = "CREATE_COMPLETE", **more: Any) -> bytes:
    return json.dumps({"StackId": ID, "StackName": name, "Status": status} | more).encode()


@dataclass
class Site:
    """A configuration of stack routes and nothing else, and what was started with it."""

    folder: Path
    routes: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def settings(self, port: int) -> Settings:
        url = f"https://hooks.example.org{PATH}"
        about = {"host": "127.0.0.1", "port": port, "stack_url": url} | self.about
        return Settings.model_validate({"receiver": about, "stack_routes": self.routes} | self.more)

    def program(self, script: str) -> str:
        """Write a shell script that knows the folder as $D."""
        path = self.folder / "program"
        path.write_text(f"#!/bin/bash\nD={self.folder}\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def wrote(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def calls(self) -> list[str]:
        return self.wrote("calls").splitlines()

    @asynccontextmanager
    async def receives(self, queue: Queue) -> AsyncIterator[Receiver]:
        [port] = free_ports(1)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            server = Receiver(queue, self.settings(port), session, receiver.program.run)  # type: ignore[arg-type]
            try:
                await until(server.answers, "the receiver answers")
                yield server
            finally:
                server.stop.set()
                await server.ended()

    @asynccontextmanager
    async def works(self, queue: Queue) -> AsyncIterator[Metrics]:
        settings, stop = self.settings(0), asyncio.Event()
        metrics = Metrics(route.id for route in settings.all_routes)
        running = asyncio.create_task(worker.program.run(settings, queue, stop, metrics))
        try:
            yield metrics
        finally:
            stop.set()
            await running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ended(metrics: Metrics, outcome: str) -> float:
    """How many tasks a worker has ended so."""
    return sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "hookmirror_tasks_ended_total" and sample.labels["outcome"] == outcome
    )


async def notify(server: Receiver, data: bytes | None = None) -> None:
    answer = await server.post(data or body(), path=PATH)
    assert (answer.status, answer.body) == (200, taken(queued=1))


async def test_a_program_gets_name_and_status_and_the_whole_notification(site: Site) -> None:
    script = (
        'printf "%s\\0" "$@" > $D/arguments; env -0 > $D/environment; cat > $D/document; echo x > $D/calls'
    )
    site.routes = [{"name": "run", "exec": site.program(script)}]
    queue = MemoryQueue()
    async with site.receives(queue) as server, site.works(queue.twin()):
        await notify(server, raw("ros/create_complete"))
        [task] = await server.tasks()
        await until(site.calls, "the program is called")
    assert site.wrote("arguments") == "test-web-hook\0CREATE_COMPLETE\0"
    pairs = [pair.partition("=") for pair in site.wrote("environment").split("\0")]
    assert {name: value for name, _, value in pairs if name.startswith("EVENT_")} == {
        "EVENT_ID": task.id,
        "EVENT_ROUTE": "run",
        "EVENT_STACK_ID": ID,
        "EVENT_STACK_NAME": "test-web-hook",
        "EVENT_STATUS": "CREATE_COMPLETE",
        "EVENT_RECEIVED": f"{task.received:.3f}",
    }
    event = json.loads(site.wrote("document"))
    assert (event["specversion"], event["id"], event["source"]) == ("1.0", task.id, "urn:alibaba:ros")
    assert (event["type"], event["subject"]) == ("hookmirror.stack.create_complete", "test-web-hook")
    [output] = sample("ros/create_complete")["Outputs"]
    assert event["data"] == {
        "route": "run",
        "stack": {
            "id": ID,
            "name": "test-web-hook",
            "status": "CREATE_COMPLETE",
            "outputs": [
                {"key": "CurlCli", "value": output["OutputValue"], "description": output["Description"]}
            ],
        },
    }


async def test_a_name_of_a_stack_is_one_argument_whatever_is_in_it(site: Site) -> None:
    site.routes = [
        {"name": "run", "exec": site.program('printf "%s\\0" "$@" > $D/part; mv $D/part $D/calls')}
    ]
    queue, name = MemoryQueue(), "-rf $(touch pwned); '\"\n*"
    async with site.receives(queue) as server, site.works(queue.twin()):
        await notify(server, body(name, Outputs=[]))
        await until(site.calls, "the program is called")
    assert site.wrote("calls") == f"{name}\0CREATE_COMPLETE\0"


async def test_a_notification_is_forwarded_signed(site: Site) -> None:
    queue = MemoryQueue()
    async with taking() as taker:
        site.routes = [{"name": "tell", "forward": taker.url, "secret": SECRETS[0]}]
        async with site.receives(queue) as server, site.works(queue.twin()) as metrics:
            await notify(server, raw("ros/update_complete"))
            await until(lambda: ended(metrics, "forwarded") == 1, "the notification is forwarded")
    ((headers, sent),) = taker.taken
    event = json.loads(sent)
    assert (event["type"], event["subject"]) == ("hookmirror.stack.update_complete", "prod-web")
    assert event["data"]["stack"]["outputs"][2] == {"key": "Port", "value": 8080, "description": ""}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent
    digest = hmac.new(KEYS[0], signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert headers["webhook-id"] == event["id"]


async def test_a_route_that_logs_writes_one_line_that_hides_what_looks_like_a_credential(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="hookmirror")
    site.routes = [{"name": "note", "log": True}]
    queue = MemoryQueue()
    long = body(Outputs=[{"OutputKey": "Text", "OutputValue": "word " * 100}], StackId="another")
    async with site.receives(queue) as server, site.works(queue.twin()) as metrics:
        for one in (raw("ros/create_complete"), raw("ros/credentials"), long):
            await notify(server, one)
        await until(lambda: ended(metrics, "logged") == 3, "the lines are written")
    lines = [r.__dict__["fields"] for r in caplog.records if getattr(r, "action", "") is Action.STACK]
    shown = {line["stack"]: line["outputs"] for line in lines}
    assert shown["test-web-hook"] == {"CurlCli": "***"}
    assert shown["prod-db"] == {
        "Endpoint": "rm-bp1x2345abcdefghi.mysql.rds.aliyuncs.com:3306",
        "AdminPassword": "***",
        "Dsn": "***",
        "Login": '{"user": "app", "password": "***"}',
        "Key": "***",
    }
    assert shown["prod-web"] == {"Text": ("word " * 100)[:200] + "..."}
    assert {(line["status"], line["route"]) for line in lines} == {("CREATE_COMPLETE", "note")}
    written = "\n".join(map(LineFormatter(as_json).format, caplog.records))
    for secret in (SIGNED, "hunter2", "LTAI5tFakeFakeFakeFake12"):
        assert secret not in written


@pytest.mark.timeout(180)
async def test_a_notification_that_comes_twice_to_two_receivers_and_two_workers_runs_once(
    site: Site, own_rabbit: RabbitNode
) -> None:
    url = await own_rabbit.wipe(2)
    name = f"stack-{free_ports(1)[0]}"  # the broker keeps the marks of earlier runs
    site.routes = [{"name": name, "exec": site.program("echo $1 $2 $EVENT_ROUTE >> $D/calls")}]
    async with AsyncExitStack() as stack:
        queues = [await RabbitQueue.open(url, look_after=2) for _ in range(4)]
        for queue in queues:
            stack.push_async_callback(queue.close)
        servers = [await stack.enter_async_context(site.receives(queue)) for queue in queues[:2]]
        await asyncio.gather(*(notify(server) for server in servers * 5))
        await servers[0].post(body(status="DELETE_COMPLETE"), path=PATH)
        workers = [await stack.enter_async_context(site.works(queue)) for queue in queues[2:]]
        await until(
            lambda: sum(ended(w, "executed") + ended(w, "skipped") for w in workers) == 11, "all are done", 60
        )
    assert sorted(site.calls()) == [f"prod-web CREATE_COMPLETE {name}", f"prod-web DELETE_COMPLETE {name}"]


async def test_a_duplicate_is_known_to_a_worker_that_was_restarted(site: Site) -> None:
    site.routes = [{"name": "run", "exec": site.program("echo $1 $2 >> $D/calls")}]
    path = site.folder / "queue.db"
    for number, outcome in enumerate(("executed", "skipped", "skipped")):
        queue = await SqliteQueue.open(path)
        try:
            async with site.receives(queue) as server, site.works(queue) as metrics:
                await notify(server)
                await until(partial(ended, metrics, outcome), f"number {number} is {outcome}")
        finally:
            await queue.close()
    assert site.calls() == ["prod-web CREATE_COMPLETE"]


async def test_a_program_that_failed_runs_again_although_its_task_holds_the_mark(site: Site) -> None:
    script = "echo $EVENT_ID >> $D/calls; [ $(wc -l < $D/calls) -ge 3 ] || exit 1"
    site.routes = [{"name": "run", "exec": site.program(script)}]
    queue = await SqliteQueue.open(site.folder / "queue.db")
    try:
        async with site.receives(queue) as server, site.works(queue) as metrics:
            await notify(server)
            await until(lambda: ended(metrics, "executed") == 1, "the program succeeds in the end", 60)
            await notify(server)
            await until(lambda: ended(metrics, "skipped") == 1, "the duplicate is dropped")
    finally:
        await queue.close()
    assert len(site.calls()) == 3
    assert len(set(site.calls())) == 1


async def test_after_the_window_it_runs_again(site: Site) -> None:
    site.routes = [{"name": "run", "exec": site.program("echo x >> $D/calls"), "window": 1}]
    queue = MemoryQueue()
    async with site.receives(queue) as server, site.works(queue.twin()):
        await notify(server)
        await until(site.calls, "the program is called")

        async def again() -> bool:
            await notify(server)
            return len(site.calls()) > 1

        await until(again, "the window passes, however many come meanwhile")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker", ["sqlite", "rabbitmq"])
async def test_what_came_longer_apart_than_the_window_runs_although_it_is_worked_on_in_one_go(
    site: Site, request: pytest.FixtureRequest, broker: str
) -> None:
    """The workers were away for an hour: two updates 50 minutes apart, and the first one's repetition."""
    name = f"stack-{free_ports(1)[0]}"  # the broker keeps the marks of earlier runs
    site.routes = [{"name": name, "exec": site.program("echo $EVENT_ID >> $D/calls")}]
    site.more = {"worker": {"concurrency": 1}}  # one after the other: who asks first is then known
    if broker == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("own_rabbit")
        queue: Queue = await RabbitQueue.open(await node.wipe(2), look_after=2)
    else:
        queue = await SqliteQueue.open(site.folder / "queue.db")
    stack, began = Stack(id=ID, name="prod-web", status="UPDATE_COMPLETE"), time.time() - 3600
    try:
        for id_, after in (("first", 0), ("again", 5), ("second", 3000), ("second again", 3299)):
            task = Task(id=id_, route=name, key="s", event=stack.status, stack=stack, received=began + after)
            await queue.publish(task.encode(), lane=Lane(task.route))
        async with site.works(queue) as metrics:
            await until(lambda: ended(metrics, "executed") + ended(metrics, "skipped") == 4, "all are done")
        assert (site.calls(), ended(metrics, "skipped")) == (["first", "second"], 2)
    finally:
        await queue.close()


async def test_each_route_that_fits_does_its_own(site: Site) -> None:
    program = site.program("echo $EVENT_ROUTE >> $D/calls")
    site.routes = [
        {"name": "one", "exec": program, "stack": "prod-*"},
        {"name": "two", "exec": program, "status": ["*_FAILED", "CREATE_*"]},
        {"name": "three", "exec": program, "stack": "test-*"},
    ]
    queue = MemoryQueue()
    async with site.receives(queue) as server, site.works(queue.twin()) as metrics:
        answer = await server.post(body(), path=PATH)
        assert answer.body == taken(queued=2)
        await until(lambda: ended(metrics, "executed") == 2, "both are done")
    assert sorted(site.calls()) == ["one", "two"]


class Marks:
    """Says what it is told to, and keeps what it was asked."""

    def __init__(self, told: bool | Exception) -> None:
        self.told = told
        self.asked: list[tuple[str, str, float, float]] = []

    async def first(self, key: str, holder: str, *, at: float, within: float) -> bool:
        self.asked.append((key, holder, at, within))
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def job(*, held: bool = True) -> Job:
    stack = Stack(id=ID, name="s", status="CREATE_FAILED")
    task = Task(id="7", route="r", key="s", event="CREATE_FAILED", stack=stack, received=1000.5)
    return Job(task, Route("r", None, None), 1, LIVE, lambda: held)


async def carry(order: Order) -> Outcome:
    raise AssertionError("nobody is to run this")


async def test_nothing_is_run_for_a_duplicate_nor_for_a_delivery_that_was_lost_nor_without_an_answer() -> (
    None
):
    marks = Marks(False)
    assert await StackActing(marks.first, carry, window=60)(job()) == Outcome(Action.SKIPPED, Why.DUPLICATE)
    assert marks.asked == [(f"r/{ID}/CREATE_FAILED", "7", 1000.5, 60)]
    with pytest.raises(LostDelivery):
        await StackActing(Marks(True).first, carry, window=60)(job(held=False))
    with pytest.raises(QueueAway):
        await StackActing(Marks(QueueAway("away")).first, carry, window=60)(job())
    assert await StackActing(Marks(True).first, log_stack, window=60)(job()) == Outcome(
        Action.LOGGED, "CREATE_FAILED"
    )


def test_a_mark_outlives_every_attempt_so_that_what_came_meanwhile_still_finds_it() -> None:
    assert mark_lives(1) > 2 * HOLD_WITHIN


async def test_a_task_whose_route_has_become_one_of_another_kind_is_kept_and_does_nothing(site: Site) -> None:
    site.routes = [{"name": "stacks", "exec": site.program("echo x >> $D/calls")}]
    site.more = {
        "stores": {
            "mcs": {"endpoint": "http://127.0.0.1:1", "access_key_id": "a", "secret_access_key": "b-b-b-b-b"}
        },
        "routes": [{"name": "objects", "source": "mcs:b", "exec": site.program("echo x >> $D/calls")}],
        "worker": {"attempts": 1},
    }
    stack = Stack(id=ID, name="s", status="CREATE_FAILED")
    queue = MemoryQueue()
    for task in (
        Task(route="objects", key="s", event=stack.status, stack=stack),
        Task(route="stacks", key="k", claim=Claim.REMOVED),
    ):
        await queue.publish(task.encode(), lane=Lane(task.route))

    async def buried() -> bool:
        return (await queue.counts()).dead == 2

    async with site.works(queue.twin()):
        await until(buried, "both are kept as dead letters")
    assert {letter.why.partition(":")[0] for letter in await queue.buried(9)} == {"UnknownRoute"}
    assert not site.calls()
