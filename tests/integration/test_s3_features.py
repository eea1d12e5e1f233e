"""What travels with the bytes, and how a target keeps them: from hook to copy, between two buckets of a
store that knows tags, storage classes and encryption."""

import hashlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from common.queue.memory import MemoryQueue
from common.queue.port import Kind, Lane
from common.routes import RouteSettings
from common.settings import Settings
from common.tables import StoreSettings
from common.telemetry import Action
from demo.weed import settings_for
from receiver.dialects.s3 import parse
from receiver.routing import Routing
from worker.attempt import Attempt, Attempted
from worker.brake import Brake
from worker.job import SMALL
from worker.mirror import Mirror
from worker.program import open_route, open_stores
from worker.transfer import Budget
from worker.verdict import Outcome

LARGE = random.Random(7).randbytes(SMALL + 1000)

BODIES = {"small": b"body", "large": LARGE}
sizes = pytest.mark.parametrize("size", BODIES)

D = 1200

AWKWARD_TAGS = {
    "plain": "value",
    "empty": "",
    "with space": "a  b ",
    "plus+equals=": "1+1=2",
    "slash/colon:at@": "_.-",
}
"""As awkward as this server allows."""


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class World:
    """A user, two buckets, the hooks of one of them, and a worker."""

    def __init__(self, source: StoreSettings, target: StoreSettings, **route: Any) -> None:
        self.user = client(source)
        self.there = client(target)
        self.source, self.target = f"s{uuid4().hex[:12]}", f"t{uuid4().hex[:12]}"
        self.user.create_bucket(Bucket=self.source)
        self.there.create_bucket(Bucket=self.target)
        self.route = RouteSettings(source=f"mcs:{self.source}", target=f"aws:{self.target}", **route)
        self.settings = Settings.model_construct(stores={"mcs": source, "aws": target}, routes=(self.route,))
        self.now = 1_700_000_000.0
        self.queue = MemoryQueue(lambda: self.now)
        self.seen: list[Attempted] = []

    async def begin(self, stack: AsyncExitStack) -> "World":
        stores = await open_stores(self.settings, stack)
        mirror = Mirror(self.queue, look_after=D, budget=Budget(64 * 2**20), brake=Brake({}))
        routes = {self.route.id: open_route(self.route, self.settings, stores)}
        self.attempt = Attempt(self.queue, mirror, routes, attempts=3, observers=(self.note,))
        return self

    def note(self, attempted: Attempted) -> None:
        self.seen.append(attempted)

    def put(self, key: str, body: bytes, **more: Any) -> None:
        """Put an object, in parts if it is large."""
        if len(body) <= SMALL:
            self.user.put_object(Bucket=self.source, Key=key, Body=body, **more)
            return
        at = {"Bucket": self.source, "Key": key}
        upload = self.user.create_multipart_upload(**at, **more)["UploadId"]
        spans = [body[start : start + SMALL] for start in range(0, len(body), SMALL)]
        parts = [
            {
                "PartNumber": n,
                "ETag": self.user.upload_part(**at, UploadId=upload, PartNumber=n, Body=span)["ETag"],
            }
            for n, span in enumerate(spans, 1)
        ]
        self.user.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})

    async def hook(self, event: str, key: str) -> list[Action | str]:
        """Let a hook tell of `event`, and do what follows; return how each attempt ended."""
        record = {"eventName": event, "s3": {"bucket": {"name": self.source}, "object": {"key": key}}}
        for task in Routing([self.route], self.settings.stores).tasks(parse(record), self.now):
            await self.queue.publish(task.encode(), lane=Lane(task.route))
        return await self.work()

    async def work(self) -> list[Action | str]:
        """Do what is due."""
        before = len(self.seen)
        async with aclosing(self.queue.deliveries(Lane(self.route.id), 100)) as deliveries:  # type: ignore[type-var]
            while (await self.queue.counts()).ready[Kind.LIVE]:
                await self.attempt(await anext(deliveries))
        return [end(attempted) for attempted in self.seen[before:]]

    async def stays(self, *keys: str) -> bool:
        """Whether nothing waits, and what is told once more of `keys` is found in step."""
        waiting = (await self.queue.counts()).waiting
        again = [end for key in keys for end in await self.hook(CREATED, key)]
        return (waiting, again) == (0, [Action.SKIPPED] * len(keys))

    def keep_versions(self) -> None:
        """Have the source keep versions from now on."""
        enabled = {"Status": "Enabled"}
        self.user.put_bucket_versioning(Bucket=self.source, VersioningConfiguration=enabled)

    def copy(self, key: str) -> Mapping[str, Any]:
        """What the target tells of its copy."""
        answer: Mapping[str, Any] = self.there.head_object(Bucket=self.target, Key=key)
        return answer

    def body(self, key: str) -> bytes:
        answer: bytes = self.there.get_object(Bucket=self.target, Key=key)["Body"].read()
        return answer

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        self.user.put_object_tagging(Bucket=self.source, Key=key, Tagging={"TagSet": pairs})

    def tags(self, key: str) -> dict[str, str]:
        """The tags of the copy."""
        answer = self.there.get_object_tagging(Bucket=self.target, Key=key)
        return {pair["Key"]: pair["Value"] for pair in answer["TagSet"]}


def client(settings: StoreSettings) -> Any:
    secret = settings.secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
    )


def end(attempted: Attempted) -> Action | str:
    if isinstance(attempted.result, Outcome):
        return attempted.result.action
    return type(attempted.result).__name__


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def world(moto_url: str, stack: AsyncExitStack) -> World:
    return await World(settings_for(moto_url), settings_for(moto_url)).begin(stack)


CREATED, TAGGED = "s3:ObjectCreated:Put", "s3:ObjectTagging:Put"


@sizes
async def test_tags_of_any_kind_arrive_with_the_object_and_stay(world: World, size: str) -> None:
    world.put("k", BODIES[size], Tagging=urlencode(AWKWARD_TAGS))
    assert (await world.hook(CREATED, "k"))[-1] is Action.COPIED
    assert world.tags("k") == AWKWARD_TAGS
    assert world.body("k") == BODIES[size]
    assert await world.stays("k")


@sizes
async def test_a_change_of_tags_alone_is_mirrored_and_so_is_their_end(world: World, size: str) -> None:
    world.put("k", BODIES[size])
    await world.hook(CREATED, "k")
    for tags in ({"a": "1"}, {"a": "2", "b": "3"}):
        world.tag("k", tags)
        assert (await world.hook(TAGGED, "k"))[-1] is Action.COPIED
        assert world.tags("k") == tags
        assert await world.hook(TAGGED, "k") == [Action.SKIPPED], "a duplicate finds it in step"
    world.user.delete_object_tagging(Bucket=world.source, Key="k")
    assert (await world.hook("s3:ObjectTagging:Delete", "k"))[-1] is Action.COPIED
    assert world.tags("k") == {}


@pytest.mark.parametrize(("ask", "expected"), [("always", {"a": "1"}), ("never", {})])
async def test_tags_travel_as_the_source_is_configured(
    moto_url: str, stack: AsyncExitStack, ask: str, expected: dict[str, str]
) -> None:
    source = settings_for(moto_url).model_copy(update={"tags": ask})
    world = await World(source, settings_for(moto_url)).begin(stack)
    for size, body in BODIES.items():
        world.put(size, body, Tagging="a=1")
        assert (await world.hook(CREATED, size))[-1] is Action.COPIED
        assert world.tags(size) == expected
    assert await world.stays(*BODIES)


async def test_what_the_removal_of_a_version_brings_back_is_mirrored(world: World) -> None:
    """No event tells of the older state but the removal that uncovered it, of a version or of a marker."""
    world.keep_versions()
    world.put("k", b"older")
    newer = world.user.put_object(Bucket=world.source, Key="k", Body=b"newer")["VersionId"]
    await world.hook("s3:ObjectCreated:Put", "k")
    assert world.body("k") == b"newer"
    world.user.delete_object(Bucket=world.source, Key="k", VersionId=newer)
    await world.hook("s3:ObjectRemoved:Delete", "k")
    assert world.body("k") == b"older"
    marker = world.user.delete_object(Bucket=world.source, Key="k")["VersionId"]
    assert await world.hook("s3:ObjectRemoved:DeleteMarkerCreated", "k") == [Action.DELETED]
    world.user.delete_object(Bucket=world.source, Key="k", VersionId=marker)
    await world.hook("s3:ObjectRemoved:Delete", "k")
    assert world.body("k") == b"older"


async def test_a_removal_of_a_version_that_nobody_sees_changes_nothing(world: World) -> None:
    world.keep_versions()
    older = world.user.put_object(Bucket=world.source, Key="k", Body=b"older")["VersionId"]
    world.put("k", b"newer")
    await world.hook("s3:ObjectCreated:Put", "k")
    world.user.delete_object(Bucket=world.source, Key="k", VersionId=older)
    assert await world.hook("s3:LifecycleExpiration:Delete", "k") == [Action.SKIPPED]
    assert await world.stays("k")
    assert world.body("k") == b"newer"


@sizes
async def test_a_change_of_metadata_alone_is_mirrored(world: World, size: str) -> None:
    world.put("k", BODIES[size], Metadata={"colour": "blue"})
    await world.hook(CREATED, "k")
    world.user.copy_object(
        Bucket=world.source,
        Key="k",
        CopySource={"Bucket": world.source, "Key": "k"},
        Metadata={"colour": "red"},
        MetadataDirective="REPLACE",
        ContentType="image/png",
    )
    assert (await world.hook("s3:ObjectCreated:Copy", "k"))[-1] is Action.COPIED
    copy = world.copy("k")
    assert (copy["Metadata"]["colour"], copy["ContentType"]) == ("red", "image/png")
    assert await world.stays("k")


PLACEMENTS: Mapping[str, tuple[dict[str, str], dict[str, str]]] = {
    "storage class": ({"storage_class": "STANDARD_IA"}, {"StorageClass": "STANDARD_IA"}),
    "SSE-S3": ({"sse": "AES256"}, {"ServerSideEncryption": "AES256"}),
    "SSE-KMS": (
        {"sse": "aws:kms", "kms_key": "alias/mirror"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mirror"},
    ),
    "all": (
        {"storage_class": "ONEZONE_IA", "sse": "aws:kms", "kms_key": "k1"},
        {"StorageClass": "ONEZONE_IA", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k1"},
    ),
}


@sizes
@pytest.mark.parametrize(("chosen", "told"), PLACEMENTS.values(), ids=PLACEMENTS)
async def test_a_copy_is_kept_as_its_route_says(
    moto_url: str, stack: AsyncExitStack, size: str, chosen: dict[str, str], told: dict[str, str]
) -> None:
    world = await World(settings_for(moto_url), settings_for(moto_url), **chosen).begin(stack)
    world.put("k", BODIES[size], StorageClass="REDUCED_REDUNDANCY", Metadata={"n": "1"})
    assert (await world.hook(CREATED, "k"))[-1] is Action.COPIED
    copy = world.copy("k")
    assert {name: copy.get(name) for name in told} == told
    assert copy["Metadata"]["n"] == "1"
    assert world.body("k") == BODIES[size]
    assert await world.stays("k")


async def test_a_route_that_says_nothing_leaves_it_to_the_target(world: World) -> None:
    world.put("k", b"body", StorageClass="STANDARD_IA", ServerSideEncryption="AES256")
    await world.hook(CREATED, "k")
    copy = world.copy("k")
    assert not {"StorageClass", "ServerSideEncryption", "SSEKMSKeyId"} & set(copy)


@sizes
async def test_what_the_source_encrypts_with_a_key_of_its_own_is_copied_all_the_same(
    world: World, size: str
) -> None:
    world.put("k", BODIES[size], ServerSideEncryption="aws:kms", SSEKMSKeyId="k1")
    assert (await world.hook(CREATED, "k"))[-1] is Action.COPIED
    assert world.body("k") == BODIES[size]
    assert await world.stays("k")


@sizes
async def test_every_header_of_an_object_arrives(world: World, size: str) -> None:
    headers = {
        "ContentType": "text/html; charset=koi8-r",
        "ContentLanguage": "ru, en",
        "ContentDisposition": "attachment; filename*=UTF-8''%D0%B8%D0%BC%D1%8F.txt",
        "CacheControl": "max-age=60, private",
        "ContentEncoding": "aws-chunked,gzip",
    }
    world.put("k", BODIES[size], Expires="Thu, 01 Dec 2033 16:00:00 GMT", **headers)
    assert (await world.hook(CREATED, "k"))[-1] is Action.COPIED
    copy = world.copy("k")
    assert {name: copy[name] for name in headers} == headers | {"ContentEncoding": "gzip"}
    assert copy["ExpiresString"] == "Thu, 01 Dec 2033 16:00:00 GMT"
    assert await world.stays("k")


@pytest.mark.parametrize("key", ["empty", "folder/", "a/b//", "//"])
async def test_an_empty_object_and_a_folder_marker_are_objects_like_others(world: World, key: str) -> None:
    world.put(key, b"", ContentType="application/x-directory", Metadata={"n": "1"})
    world.tag(key, {"a": "b"})
    assert (await world.hook(CREATED, key))[-1] is Action.COPIED
    copy = world.copy(key)
    assert (copy["ContentLength"], copy["ContentType"]) == (0, "application/x-directory")
    assert copy["Metadata"]["n"] == "1"
    assert copy["ETag"].strip('"') == hashlib.md5(b"", usedforsecurity=False).hexdigest()
    assert world.tags(key) == {"a": "b"}
    assert await world.stays(key)
    world.user.delete_object(Bucket=world.source, Key=key)
    assert (await world.hook("s3:ObjectRemoved:Delete", key))[-1] is Action.DELETED
    assert [
        entry["Key"] for entry in world.there.list_objects_v2(Bucket=world.target).get("Contents", [])
    ] == []
