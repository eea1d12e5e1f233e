"""The endpoint: bounded body, confirm or parse, route, publish; 200 only when every record is durable."""

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict

from common.errors import NotOurs, TooLarge, Unreadable
from common.telemetry import Action, log
from receiver import handshake
from receiver.admission import Visit
from receiver.dialects import s3, sns
from receiver.intake import Answer, Found, Intake, Letter, parse_json, read_bounded
from receiver.routing import Routing
from receiver.sns import SnsTopics

MAX_RECORDS = 1000

MAX_NAMED = 3
"""Buckets that a log line names of one hook."""


class HookEndpoint:
    """Takes the bodies of hooks that come in at one URL: `public_url`, as registered at the sender, for the
    buckets of `routing`."""

    def __init__(
        self,
        intake: Intake,
        routing: Routing,
        public_url: str | None,
        topics: SnsTopics,
    ) -> None:
        self._intake = intake
        self._routing = routing
        self._public_url = public_url
        self._topics = topics

    async def __call__(self, chunks: AsyncIterator[bytes], visit: Visit) -> Answer:
        """Return what to answer 200 with, whatever the body is. Raises `BadRequest` for too much of it, a
        subscription that is not ours and a wrong signature, `QueueAway` when not all became durable in time,
        `SenderAway` when Amazon did not answer in time."""
        body = await read_bounded(chunks)
        try:
            found = await self._open(body)
        except Unreadable as error:
            return await self._keep(Letter(body, str(error)), visit)
        return found if isinstance(found, Answer) else await self._accept(found, visit)

    async def _open(self, body: bytes) -> Sequence[object] | Answer:
        """Return the records in `body`, or the answer to what has none. Raises `Unreadable` besides."""
        value = parse_json(body)
        if envelope := sns.parse(value):
            records = await self._topics.open(envelope)
            return Answer({"subscription": envelope.topic}, "confirmed") if records is None else records
        if isinstance(value, dict) and (subscription := handshake.parse(value)):
            return Answer({"signature": self._confirm(subscription)}, "confirmed")
        return s3.records(value)

    def _confirm(self, subscription: handshake.Subscription) -> str:
        if not self._routing.knows(subscription.bucket):
            raise NotOurs(f'no route of this URL names the bucket "{subscription.bucket}": not confirmed')
        if self._public_url is None:
            raise NotOurs("receiver.public_url is not configured, and it is what a confirmation signs")
        log(Action.SUBSCRIPTION, "subscription confirmed", topic=subscription.topic_arn)
        return subscription.signature(self._public_url)

    async def _keep(self, letter: Letter, visit: Visit) -> Answer:
        """Keep a whole body that is no hook. What can be read of it all the same is looked at: one value that
        is no UTF-8, in metadata that a store copies into its hooks, says nothing against the key."""
        found, buckets = self._sort(_salvage(letter.body))
        found.letters = [letter]
        taken = await self._intake.put(found, visit, bucket=buckets)
        return Answer(asdict(taken), "accepted" if taken.queued else "not_a_hook")

    async def _accept(self, records: Sequence[object], visit: Visit) -> Answer:
        if len(records) > MAX_RECORDS:
            raise TooLarge(f"a hook has at most {MAX_RECORDS} records, this has {len(records)}")
        found, buckets = self._sort(records)
        taken = await self._intake.put(found, visit, bucket=buckets)
        strangers = bool(records) and taken.unrouted == len(records)
        return Answer(asdict(taken), "unrouted" if strangers else "accepted")

    def _sort(self, records: Iterable[object]) -> tuple[Found, str]:
        """Return what is in `records`, and the buckets that they name, as a log line shows them."""
        received = time.time()
        found, buckets = Found(), dict[str, None]()
        for record in records:
            if s3.changes_nothing(record):
                found.ignored += 1
                continue
            try:
                event = s3.parse(record)
                tasks = self._routing.tasks(event, received)
            except Unreadable as error:
                found.letters.append(Letter(json.dumps(record).encode(), str(error)))
                continue
            known = self._routing.knows(event.bucket)
            buckets[event.bucket] = None
            found.tasks += tasks
            found.routed += bool(tasks)
            found.ignored += known and not tasks
            found.unrouted += not known
        return found, _shown(list(buckets))


def _salvage(body: bytes) -> Sequence[object]:
    """The records of a body whose only fault is bytes that are no UTF-8: they become what no key can hold."""
    try:
        return s3.records(json.loads(body.decode(errors="surrogateescape")))[:MAX_RECORDS]
    except (Unreadable, ValueError, RecursionError):
        return []


def _shown(buckets: Sequence[str]) -> str:
    named = ", ".join(name[:64] for name in buckets[:MAX_NAMED])
    return named + (f" and {len(buckets) - MAX_NAMED} more" if len(buckets) > MAX_NAMED else "")
