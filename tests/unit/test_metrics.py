"""What is counted: each end of an attempt as a table, the names, and that counting can break nothing."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.admin import make_app, sample
from common.errors import (
    BadSignature,
    BrakeOn,
    ConfigError,
    HookmirrorError,
    KeyBusy,
    LostDelivery,
    NoSuchPath,
    NotAllowed,
    NotOurs,
    QueueAway,
    Refused,
    RouteDown,
    SenderAway,
    Slow,
    StoreAway,
    TooLarge,
    TooMany,
    Unreadable,
)
from common.metrics import Metrics, ReceiverFamilies, SpoolFamilies, WorkerFamilies
from common.queue.memory import MemoryQueue
from common.queue.port import Bury, Counts, Delivery, Depth, Done, Lane, Retry, Verdict
from common.routes import BrakeSettings
from common.store.memory import MemoryStore
from common.task import Claim, Task
from common.telemetry import Action
from receiver.metrics import OUTCOMES, HookMetrics, refusal
from tests.lab.lanes import BULK, LIVE
from worker.attempt import Attempted
from worker.blame import Blame
from worker.brake import Brake
from worker.job import Job, Route
from worker.metrics import MARGIN, Waiting, Watch, end, error_class, outcome, size_class
from worker.plan import Why
from worker.pool import Pool
from worker.verdict import Continue, Outcome

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

EVENT = Task(route="r", key="k", claim=Claim.CREATED, event="s3:ObjectCreated:Put", received=1000.0)
TAGGED = Task(route="r", key="k", event="s3:ObjectTagging:Put", received=1000.0)
LOOK = EVENT.look()
AWAY = StoreAway("no answer")
COPIED = Outcome(Action.COPIED, size=3)
DELETED = Outcome(Action.DELETED)

Result = Outcome | Continue | Exception


def attempted(
    result: Result,
    verdict: Verdict | None,
    task: Task | None = EVENT,
    *,
    seconds: float = 0.25,
    lag: float | None = None,
) -> Attempted:
    delivery = Delivery(b"", 1, None, LIVE)
    return Attempted(delivery, task, result, verdict, seconds, lag)


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample, by its name and labels as they are written: `name{a="b"}`."""
    text = metrics.render("")[0].decode()
    return {
        name(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def name(sample: str, labels: dict[str, str]) -> str:
    inner = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return f"hookmirror_{sample.removeprefix('hookmirror_')}" + (f"{{{inner}}}" if inner else "")


@pytest.mark.parametrize(
    ("result", "verdict", "counted", "ended"),
    [
        (COPIED, Done("copied"), ("copied", ""), ("copied", "")),
        (DELETED, Done("deleted"), ("deleted", ""), ("deleted", "")),
        (Outcome(Action.SKIPPED, Why.IN_STEP), Done("skipped"), ("skipped", ""), ("skipped", "in_step")),
        (Outcome(Action.SKIPPED, Why.KEPT), Done("skipped"), ("skipped", ""), ("skipped", "kept")),
        (Outcome(Action.LOOK_LATER, "gone"), Done("look_later"), ("look_later", ""), ("look_later", "")),
        (Continue(EVENT, "parts"), Retry(0, "parts", counts=False), ("continued", ""), None),
        (AWAY, Retry(5, "away"), ("retried", "StoreAway"), None),
        (KeyBusy("busy"), Retry(1, "busy", counts=False), ("waited", "KeyBusy"), None),
        (RouteDown("down"), Retry(30, "down", counts=False), ("waited", "RouteDown"), None),
        (AWAY, Bury("away"), ("buried", "StoreAway"), ("buried", "StoreAway")),
        (Refused("no"), Bury("no"), ("buried", "Refused"), ("buried", "Refused")),
        (BrakeOn("on"), Bury("on"), ("buried", "BrakeOn"), ("buried", "BrakeOn")),
        (AWAY, Done("left to the promised look"), ("retried", "StoreAway"), ("look_later", "StoreAway")),
        (LostDelivery("gone"), None, ("lost", "LostDelivery"), None),
        (QueueAway("away"), None, ("lost", "QueueAway"), None),
        (KeyError("a defect"), Retry(5, "defect"), ("retried", "Unforeseen"), None),
    ],
)
def test_each_end_of_an_attempt_has_a_name_an_error_and_says_whether_the_task_ended(
    result: Result, verdict: Verdict | None, counted: tuple[str, str], ended: tuple[str, str] | None
) -> None:
    over = attempted(result, verdict)
    assert (outcome(over), error_class(result)) == counted
    assert end(over) == ended
    metrics = Metrics(["r"])
    Watch(metrics)(over)
    found = scrape(metrics)
    assert found[name("attempts_total", {"error": counted[1], "outcome": counted[0], "route": "r"})] == 1
    ends = {key: value for key, value in found.items() if "tasks_ended_total" in key and value}
    if ended is None:
        assert ends == {}
    else:
        labels = {"outcome": ended[0], "reason": ended[1], "route": "r"}
        assert ends == {name("tasks_ended_total", labels): 1}


@pytest.mark.parametrize("why", list(Why))
def test_the_reason_of_a_skip_is_a_word_and_no_sentence(why: Why) -> None:
    found = end(attempted(Outcome(Action.SKIPPED, why), Done("skipped")))
    assert found is not None
    assert re.fullmatch("[a-z_]+", found[1])


@pytest.mark.parametrize(("task", "family"), [(EVENT, "tasks"), (TAGGED, "tasks"), (LOOK, "looks")])
def test_the_end_of_a_look_is_kept_apart_from_that_of_a_task_that_a_hook_brought(
    task: Task, family: str
) -> None:
    metrics = Metrics(["r"])
    Watch(metrics)(attempted(COPIED, Done("copied"), task))
    found = {key for key, value in scrape(metrics).items() if "_ended_total" in key and value}
    assert found == {f'hookmirror_{family}_ended_total{{outcome="copied",reason="",route="r"}}'}


def test_what_is_no_task_and_what_no_route_here_names_make_no_new_series() -> None:
    metrics = Metrics(["r"])
    watch = Watch(metrics)
    watch(attempted(Unreadable("what?"), Bury("what?"), None))
    for number in range(5):
        stranger = EVENT.model_copy(update={"route": f"no. {number}"})
        watch(attempted(AWAY, Bury("no such route"), stranger))
    routes = {route for key in scrape(metrics) for route in re.findall('route="([^"]*)"', key)}
    assert routes == {"r", "unknown"}
    labels = {"outcome": "buried", "reason": "StoreAway", "route": "unknown"}
    assert scrape(metrics)[name("tasks_ended_total", labels)] == 5


def test_only_what_reached_the_target_has_a_lag_and_it_is_never_below_nothing() -> None:
    metrics = Metrics(["r"])
    watch = Watch(metrics)
    watch(attempted(COPIED, Done("copied"), lag=2.0))
    watch(attempted(DELETED, Done("deleted"), lag=3.0))
    watch(attempted(COPIED, Done("copied"), lag=-5.0))  # the receiver's clock is ahead
    watch(attempted(Outcome(Action.SKIPPED, Why.IN_STEP), Done("skipped"), lag=100.0))
    watch(attempted(AWAY, Retry(5, "away"), lag=100.0))
    watch(attempted(AWAY, Bury("away"), lag=100.0))
    watch(attempted(COPIED, None, lag=100.0))
    watch(attempted(COPIED, Done("copied"), LOOK))
    found = scrape(metrics)
    assert found['hookmirror_lag_seconds_count{route="r"}'] == 3
    assert found['hookmirror_lag_seconds_sum{route="r"}'] == 5.0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "to_64KiB"), (2**16, "to_64KiB"), (2**16 + 1, "to_1MiB"), (2**20 + 1, "to_8MiB"),
        (8 * 2**20 + 1, "to_128MiB"), (2**30, "to_1GiB"), (2**30 + 1, "over_1GiB"),
    ],
)  # fmt: skip
def test_an_object_is_of_the_smallest_class_that_holds_it(size: int, expected: str) -> None:
    assert size_class(size) == expected


def test_a_copy_in_parts_took_all_the_time_that_its_attempts_took() -> None:
    metrics = Metrics(["r"])
    watch = Watch(metrics)
    watch(attempted(Continue(EVENT, "begun"), Retry(0, "", counts=False), seconds=1))
    watch(attempted(Continue(EVENT, "half"), Retry(0, "", counts=False), seconds=20))
    watch(attempted(AWAY, Retry(5, "away"), seconds=100))  # work for nothing
    watch(attempted(Outcome(Action.COPIED, size=2**25), Done("copied"), seconds=4))
    watch(attempted(Outcome(Action.COPIED, size=2**25), Done("copied"), seconds=2))  # another time
    found = scrape(metrics)
    assert found['hookmirror_copy_seconds_sum{size_class="to_128MiB"}'] == 27
    assert found['hookmirror_copy_seconds_count{size_class="to_128MiB"}'] == 2
    assert found['hookmirror_copied_bytes_total{route="r"}'] == 2 * 2**25


def test_copies_that_other_workers_ended_leave_room_for_those_that_go_on_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.metrics.REMEMBERED", 2)
    metrics = Metrics(["r"])
    watch = Watch(metrics)
    for number in (1, 2, 3):
        begun = Continue(event(number, 1000), "begun")
        watch(attempted(begun, Retry(0, "", counts=False), seconds=10, task=event(number, 1000)))
    watch(attempted(Outcome(Action.COPIED, size=2**25), Done("copied"), seconds=1, task=event(3, 1000)))
    assert scrape(metrics)['hookmirror_copy_seconds_sum{size_class="to_128MiB"}'] == 11


class Clock:
    now = 1100.0

    def __call__(self) -> float:
        return self.now


def event(number: int, received: float) -> Task:
    return EVENT.model_copy(update={"id": f"{number}", "received": received})


def test_the_oldest_is_the_one_received_first_of_those_in_hand_and_those_sent_away() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    assert waiting.oldest() == 0
    waiting.hold(event(1, 1090))
    waiting.hold(event(2, 1000))
    assert waiting.oldest() == 100
    waiting.send_away(event(2, 1000), 300)
    clock.now += 300
    assert waiting.oldest() == 400
    waiting.forget(event(2, 1000))
    assert waiting.oldest() == 310


def test_an_event_that_was_sent_away_is_forgotten_some_time_after_it_was_due() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    waiting.send_away(event(1, 1000), 300)
    clock.now += 300 + MARGIN
    assert waiting.oldest() == 400 + MARGIN
    clock.now += 1
    assert waiting.oldest() == 0


def test_no_more_events_are_kept_in_mind_than_agreed_and_the_oldest_are_kept() -> None:
    clock = Clock()
    waiting = Waiting(clock, limit=3)
    for number in range(10):
        waiting.send_away(event(number, 1000 + number), 10)
    assert waiting.oldest() == 100
    for number in range(3):
        waiting.forget(event(number, 0))
    assert waiting.oldest() == 0, "the others were too many"
    for number in range(3):
        waiting.send_away(event(number, 1000), 10)
    clock.now += 10 + MARGIN + 1
    waiting.hold(event(11, clock.now - 7))
    assert waiting.oldest() == 7, "those whose time is over made room"


async def test_an_event_waits_from_its_first_attempt_to_its_end_and_a_look_never() -> None:
    clock, metrics = Clock(), Metrics(["r"])
    watch = Watch(metrics, clock)
    store = MemoryStore()
    route = Route("r", store.create("a"), store.create("b"))

    async def act(job: Job) -> Outcome:
        assert scrape(metrics)['hookmirror_oldest_waiting_seconds{route="r"}'] == (
            100 if job.task.from_hook else 0
        )
        job.learned.promises.append(LOOK)
        return COPIED

    for task in (LOOK, EVENT):
        await watch.around(act)(Job(task, route, 1, LIVE, held=lambda: True))
    assert scrape(metrics)['hookmirror_looks_promised_total{route="r"}'] == 2
    assert scrape(metrics)['hookmirror_oldest_waiting_seconds{route="r"}'] == 100, "not settled yet"
    watch(attempted(COPIED, Done("copied")))
    assert scrape(metrics)['hookmirror_oldest_waiting_seconds{route="r"}'] == 0


async def test_an_attempt_that_is_cut_off_counts_its_promise_and_is_known_to_wait_no_more() -> None:
    metrics = Metrics(["r"])
    watch = Watch(metrics, Clock())
    store = MemoryStore()
    begun = asyncio.Event()

    async def act(job: Job) -> Outcome:
        job.learned.promises.append(LOOK)
        begun.set()
        await asyncio.Event().wait()
        return COPIED

    job = Job(EVENT, Route("r", store.create("a"), store.create("b")), 1, LIVE, held=lambda: True)
    running = asyncio.ensure_future(watch.around(act)(job))
    await begun.wait()
    assert scrape(metrics)['hookmirror_oldest_waiting_seconds{route="r"}'] == 100
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scrape(metrics)['hookmirror_oldest_waiting_seconds{route="r"}'] == 0
    assert scrape(metrics)['hookmirror_looks_promised_total{route="r"}'] == 1


def test_the_brake_is_on_from_the_first_delete_it_holds_until_a_window_after_the_last() -> None:
    clock, metrics = Clock(), Metrics(["r", "s"])
    limit = BrakeSettings(deletes=2, window=60)
    brake = Brake({"r": limit, "s": limit}, clock)
    queue = MemoryQueue()

    async def nothing(_: object) -> Any:
        """Stand in for the pool's work and for the pause's."""

    Watch(metrics).follow(["r", "s"], Pool(queue, nothing, [], 1, lambda _: 1), Blame(nothing), brake)

    def on() -> list[float]:
        return [scrape(metrics)[f'hookmirror_brake_on{{route="{route}"}}'] for route in "rs"]

    for number in range(2):
        brake.admit("r", f"{number}", approved=False)
    assert on() == [0, 0]
    with pytest.raises(BrakeOn):
        brake.admit("r", "more", approved=False)
    assert on() == [1, 0]
    clock.now += 61
    assert on() == [0, 0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotOurs("no"), "not_ours"),
        (BadSignature("no"), "bad_signature"),
        (TooLarge("no"), "too_large"),
        (NoSuchPath("no"), "not_found"),
        (NotAllowed("no"), "not_allowed"),
        (TooMany("no"), "too_many"),
        (Slow("no"), "slow"),
        (QueueAway("away"), "deferred"),
        (SenderAway("away"), "deferred"),
        (HookmirrorError("else"), "deferred"),
        (ConnectionError("the sender went away"), "incomplete"),
    ],
)
def test_a_refused_hook_is_counted_by_its_reason(error: Exception, expected: str) -> None:
    assert refusal(error) == expected
    metrics = Metrics()
    HookMetrics(metrics).refused(error)
    hooks = {key: value for key, value in scrape(metrics).items() if "hooks_total" in key}
    assert [key for key, value in hooks.items() if value] == [
        f'hookmirror_hooks_total{{outcome="{expected}"}}'
    ]
    assert len(hooks) == len(OUTCOMES), "each outcome is there from the start"


def test_a_metric_that_fails_fails_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "hookmirror"):
        HookMetrics(Metrics(["r"])).taken({}, ["a route that is not configured"])
    assert caplog.messages == ["a metric failed"]


class Queue(MemoryQueue):
    """A queue that can be away, or silent."""

    away: HookmirrorError | None = None
    losing: tuple[str, ...] = ()

    async def counts(self) -> Counts:
        if self.away:
            raise self.away
        return Counts(
            {LIVE: Depth(3), BULK: Depth(4), Lane("new"): Depth(7)}, waiting=5, dead=6, losing=self.losing
        )


async def test_the_depth_is_told_by_lane_and_state_and_not_at_all_while_the_queue_is_away() -> None:
    metrics, queue = Metrics(["r"]), Queue()
    mine = ("hookmirror_queue", "hookmirror_dead")

    def depths() -> dict[str, float]:
        return {key: value for key, value in scrape(metrics).items() if key.startswith(mine)}

    assert depths() == {}, "nobody has asked yet"
    await sample(metrics.queue, queue)
    known = {
        "hookmirror_queue_up": 1,
        'hookmirror_queue_depth{lane="live",route="r",state="ready"}': 3,
        'hookmirror_queue_depth{lane="bulk",route="r",state="ready"}': 4,
        'hookmirror_queue_depth{lane="live",route="unknown",state="ready"}': 7,
        'hookmirror_queue_depth{lane="",route="",state="waiting"}': 5,
        "hookmirror_queue_losing": 0,
        "hookmirror_dead_letters": 6,
    }
    assert depths() == known
    queue.away = QueueAway("away")
    await sample(metrics.queue, queue)
    assert depths() == {"hookmirror_queue_up": 0}
    queue.away = None
    await sample(metrics.queue, queue)
    queue.away = ConfigError("its queues have other arguments")
    with pytest.raises(ConfigError):
        await sample(metrics.queue, queue)
    assert depths() == {"hookmirror_queue_up": 0}
    queue.away = None
    await sample(metrics.queue, queue)
    assert depths() == known


async def test_each_policy_that_loses_is_counted() -> None:
    metrics, queue = Metrics(), Queue()
    queue.losing = ("one deletes", "another deletes")
    await sample(metrics.queue, queue)
    assert scrape(metrics)["hookmirror_queue_losing"] == 2


async def asked(method: str, path: str, accept: bytes = b"") -> tuple[int, str, bytes]:
    """What the port for operators answers."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"accept", accept)]}
    await make_app(Metrics(["r"]))(scope, None, send)
    start, body = sent
    return start["status"], dict(start["headers"])[b"content-type"].decode(), body["body"]


async def test_the_port_for_operators_has_two_paths_to_read() -> None:
    assert (await asked("GET", "/healthz"))[0] == 200
    assert (await asked("GET", "/"))[0] == 404
    assert (await asked("POST", "/metrics"))[0] == 405
    assert (await asked("HEAD", "/metrics"))[::2] == (200, b"")
    status, content_type, body = await asked("GET", "/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"hookmirror_info{version=" in body


async def test_who_accepts_openmetrics_gets_it() -> None:
    _, content_type, body = await asked("GET", "/metrics", b"application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def everything() -> Metrics:
    """Metrics with every family there is."""
    metrics = Metrics(["r"])
    for families in (ReceiverFamilies, SpoolFamilies, WorkerFamilies):
        families(metrics.registry)
    await sample(metrics.queue, Queue())
    return metrics


async def test_every_metric_is_explained_and_nothing_is_explained_that_is_none() -> None:
    text = (await everything()).render("")[0].decode()
    types = dict(re.findall(r"^# TYPE (hookmirror_\S+) (\S+)$", text, re.MULTILINE))
    explained = re.findall(
        r"^\| `(hookmirror_\w+)(?:\{[^}]*\})?` \| (\w+) \|", DOCS.read_text(), re.MULTILINE
    )
    assert types == dict(explained)
    spoken_of = set(re.findall(r"hookmirror_\w+", DOCS.read_text()))
    assert {re.sub("_(bucket|count|sum)$", "", spoken) for spoken in spoken_of} == set(types)
