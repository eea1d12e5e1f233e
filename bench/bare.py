"""The bare handler the receiver is measured against: what one writes when nothing can go wrong.

FastAPI, a pydantic model of the hook, and for each record one persistent publish to a quorum queue,
confirmed, on one robust connection and one channel. No routes, no limits, no log lines, no promise
about what happens when the broker is away.

    python -m bench.bare AMQP_URL PORT
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

QUEUE = "bench.bare"


class Bucket(BaseModel):
    """`s3.bucket`."""

    name: str


class Object(BaseModel):
    """`s3.object`."""

    key: str
    etag: str | None = Field(None, alias="eTag")
    size: int | None = None
    sequencer: int | str | None = None


class S3(BaseModel):
    """`s3`."""

    bucket: Bucket
    object: Object


class Record(BaseModel):
    """One record of a hook."""

    event_name: str = Field(alias="eventName")
    s3: S3


class Hook(BaseModel):
    """A hook's body."""

    records: list[Record] = Field(alias="Records")


def make_app(url: str) -> FastAPI:
    """Return the application; its connection lives as long as it does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection = await aio_pika.connect_robust(url)
        async with connection:
            channel = await connection.channel(publisher_confirms=True)
            await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            app.state.exchange = channel.default_exchange
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/webhook")
    async def receive(hook: Hook, request: Request) -> dict[str, int]:
        exchange = request.app.state.exchange
        await asyncio.gather(*(exchange.publish(_message(record), QUEUE) for record in hook.records))
        return {"queued": len(hook.records)}

    return app


def _message(record: Record) -> aio_pika.Message:
    return aio_pika.Message(
        record.model_dump_json(by_alias=True).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
    )


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
