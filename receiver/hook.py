"""The endpoint: bounded body, confirm or parse, route, publish; 200 only when every record is durable."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from common.errors import NotOurs, TooLarge, Unreadable
from common.queue.port import Lane, Publisher
from common.task import Task
from common.telemetry import Action, log
from receiver import handshake
from receiver.dialects import s3, sns
from receiver.intake import all_durable, parse_json, read_bounded
from receiver.metrics import HookMetrics
from receiver.routing import Routing
from receiver.sns import SnsTopics

MAX_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a hook's records: queued as so many tasks, kept as dead letters, or of no concern."""

    queued: int = 0
    ignored: int = 0
    buried: int = 0


class HookEndpoint:
    """Takes the bodies of hooks that come in at one URL: `public_url`, as registered at the sender, for the
    buckets of `routing`."""

    def __init__(
        self,
        publisher: Publisher,
        routing: Routing,
        public_url: str | None,
        metrics: HookMetrics,
        topics: SnsTopics,
    ) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._routing = routing
        self._public_url = public_url
        self._topics = topics

    async def __call__(self, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """Return the JSON to answer 200 with. Raises `BadRequest` for what is no hook for us, `QueueAway`
        when not every record became durable in time, `SenderAway` when Amazon did not answer in time."""
        body = parse_json(await read_bounded(chunks))
        if envelope := sns.parse(body):
            records = await self._topics.open(envelope)
            if records is None:
                return {"subscription": envelope.topic}
        elif isinstance(body, dict) and (subscription := handshake.parse(body)):
            return {"signature": self._confirm(subscription)}
        else:
            records = s3.records(body)
        accepted = await self._accept(records)
        return {"queued": accepted.queued, "ignored": accepted.ignored, "buried": accepted.buried}

    def _confirm(self, subscription: handshake.Subscription) -> str:
        if not self._routing.knows(subscription.bucket):
            raise NotOurs(f'no route of this URL names the bucket "{subscription.bucket}": not confirmed')
        if self._public_url is None:
            raise NotOurs("receiver.public_url is not configured, and it is what a confirmation signs")
        log(Action.SUBSCRIPTION, "subscription confirmed", topic=subscription.topic_arn)
        return subscription.signature(self._public_url)

    async def _accept(self, records: list[object]) -> Accepted:
        if len(records) > MAX_RECORDS:
            raise TooLarge(f"a hook has at most {MAX_RECORDS} records, this has {len(records)}")
        received = time.time()
        tasks: list[Task] = []
        unreadable: list[tuple[object, str]] = []
        ignored = strangers = 0
        for record in records:
            try:
                event = s3.parse(record)
            except Unreadable as error:
                unreadable.append((record, str(error)))
                continue
            found = self._routing.tasks(event, received) if event.known else []
            strangers += event.known and not self._routing.knows(event.bucket)
            ignored += not found
            tasks += found
        if strangers and strangers == len(records):
            raise NotOurs("no route of this URL names the bucket of these records")
        start = time.monotonic()
        try:
            await self._publish(tasks, unreadable)
        finally:
            self._metrics.published(time.monotonic() - start)
        buried = len(unreadable)
        self._metrics.records(queued=len(records) - ignored - buried, ignored=ignored, buried=buried)
        return Accepted(len(tasks), ignored, buried)

    async def _publish(self, tasks: list[Task], unreadable: list[tuple[object, str]]) -> None:
        publish = [self._publish_one(task) for task in tasks]
        bury = [
            self._publisher.bury(json.dumps(record).encode(), lane=Lane.LIVE, why=f"Unreadable: {why}")
            for record, why in unreadable
        ]
        await all_durable([*publish, *bury])

    async def _publish_one(self, task: Task) -> None:
        await self._publisher.publish(task.encode(), lane=Lane.LIVE)
        self._metrics.task_queued(task.route)  # also of a hook that is deferred for its other records
