"""The embedded queue beyond the port's contract: its clock, its file, older files, and what it costs."""

import asyncio
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from common.errors import ConfigError, LostDelivery, QueueAway
from common.queue import open_queue
from common.queue.port import Bury, Counts, Done, Kind, Lane, Retry
from common.queue.sqlite import SqliteQueue, database
from common.queue.sqlite.queue import LEASE
from tests.contract.test_queue import nothing_comes, seen, take
from tests.lab.clock import Clock
from tests.lab.lanes import BULK, LIVE

OLD = """
CREATE TABLE message (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    lane     TEXT NOT NULL,
    body     BLOB NOT NULL,
    due      REAL NOT NULL,
    attempt  INTEGER NOT NULL DEFAULT 1,
    failures TEXT NOT NULL DEFAULT '[]',
    returned INTEGER NOT NULL DEFAULT 0,
    holder   TEXT,
    dead     INTEGER NOT NULL DEFAULT 0,
    why      TEXT,
    at       REAL
);
CREATE INDEX message_when ON message (dead, lane, due, holder);
CREATE INDEX message_dead ON message (at, id) WHERE dead = 1;
CREATE TABLE mark (
    key    TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    at     REAL NOT NULL,
    until  REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX mark_until ON mark (until);
"""
"""The file as the first versions made it, with the wall clock in `due`."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[SqliteQueue]:
    queue = await SqliteQueue.open(path)
    yield queue
    await queue.close()


def bodies(path: Path) -> set[bytes]:
    """What another process finds in the file."""
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT body FROM message")}


# The clock


class Machine:
    """A machine's monotonic clock: it begins anew with each boot."""

    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_reboot_hides_nothing_and_no_wait_ends_sooner_for_it(path: Path) -> None:
    machine = Machine()
    queue = await SqliteQueue.open(path, clock=machine)
    await queue.publish(b"fresh", lane=LIVE)
    await queue.publish(b"held", lane=LIVE)
    [_] = await take(queue, 1)
    await queue.publish(b"later", lane=BULK, delay=1200)
    machine.now += 100
    await queue.counts()
    machine.now = 40.0  # another boot; the first process has no time to say good-bye
    after = await SqliteQueue.open(path, clock=machine)
    counts = await after.counts()
    assert (sum(counts.ready.values()), counts.waiting, counts.held) == (2, 1, 0)
    machine.now += 1200 - 100 - 40 - 1  # the boot has taken those 40 s at least
    assert (await after.counts()).waiting == 1
    machine.now += 2
    assert (await after.counts()).ready[Kind.BULK] == 1
    await after.close()
    await queue.close()


async def test_every_process_goes_by_the_same_time_after_a_reboot(path: Path) -> None:
    machine = Machine()
    before = await SqliteQueue.open(path, clock=machine)
    await before.close()
    machine.now = 40.0
    first = await SqliteQueue.open(path, clock=machine)
    machine.now = 100.0
    second = await SqliteQueue.open(path, clock=machine)
    await first.publish(b"x", lane=LIVE)
    [held] = await take(first, 1)
    machine.now += 14
    assert await nothing_comes(second, 0.5)
    assert first.holds(held)
    machine.now += 2
    assert not first.holds(held)
    [again] = await take(second, 1)
    assert again.returned == 1
    for queue in (first, second):
        await queue.close()


async def test_letters_stay_in_the_order_of_their_burial_when_the_wall_clock_is_set_back(
    queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = time.time
    for number in range(3):
        monkeypatch.setattr(time, "time", lambda back=3600 * number: wall() - back)
        await queue.publish(b"%d" % number, lane=LIVE)
        [delivery] = await take(queue, 1)
        await queue.settle(delivery, Bury("never"))
    assert [letter.body for letter in await queue.buried(10)] == [b"0", b"1", b"2"]
    assert await seen(queue) == [b"0", b"1", b"2"]


# A file that is taken away


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.glob("queue.db*"):
        file.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("away.db"))


def replace(path: Path) -> None:
    with closing(sqlite3.connect(path.with_name("other.db"))) as db:
        db.executescript(OLD)
    path.with_name("other.db").rename(path)


def replace_by_nothing(path: Path) -> None:
    path.with_name("other.db").touch()
    path.with_name("other.db").rename(path)


every_way = pytest.mark.parametrize("take_away", [delete, delete_all, rename, replace, replace_by_nothing])


@every_way
async def test_nothing_is_confirmed_that_went_into_a_file_without_its_name(
    queue: SqliteQueue, path: Path, take_away: Callable[[Path], None]
) -> None:
    await queue.publish(b"before", lane=LIVE)
    take_away(path)
    with pytest.raises(QueueAway, match=r"queue\.db: the file was deleted or replaced"):
        await queue.publish(b"refused", lane=LIVE)
    await queue.publish(b"after", lane=LIVE)
    assert b"after" in bodies(path)
    assert b"before" in bodies(path), "what was in hand is brought over"


@every_way
async def test_what_was_in_the_file_is_brought_over_once_by_all_who_had_it_open(
    path: Path, take_away: Callable[[Path], None]
) -> None:
    queues = [await SqliteQueue.open(path) for _ in range(3)]
    for number in range(4):
        await queues[0].publish(b"%d" % number, lane=LIVE)
    await take(queues[1], 1)
    await queues[0].publish(b"later", lane=BULK, delay=600)
    await queues[0].bury(b"dead", lane=LIVE, why="no task")
    assert await queues[0].first("mark", "a", at=1000, within=60)
    take_away(path)
    ends = await asyncio.gather(*(queue.counts() for queue in queues), return_exceptions=True)
    assert [type(end) for end in ends] == [QueueAway] * 3
    for queue in queues:
        assert told(await queue.counts()) == ({LIVE: 3}, 1, 1, 1)
        assert not await queue.first("mark", "b", at=1000, within=60)
    for queue in queues:
        await queue.close()
    assert len(bodies(path)) == 6, "whoever closes the old file last takes nothing of the new one along"


async def test_a_file_that_cannot_be_made_anew_is_asked_for_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    queue = await SqliteQueue.open(folder / "queue.db")
    await queue.publish(b"before", lane=LIVE)
    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(QueueAway, match="no folder"):
            await queue.publish(b"refused", lane=LIVE)
    (tmp_path / "elsewhere").rename(folder)
    await queue.publish(b"after", lane=LIVE)
    await queue.close()
    assert {b"before", b"after"} <= bodies(folder / "queue.db")


@pytest.mark.parametrize("beside", ["queue.db-wal", "queue.db-shm"])
async def test_without_a_file_that_sqlite_keeps_beside_it_nothing_is_confirmed(
    path: Path, beside: str
) -> None:
    queue = await SqliteQueue.open(path)
    await queue.publish(b"before", lane=LIVE)
    path.with_name(beside).unlink()
    for _ in range(2):
        with pytest.raises(QueueAway, match=r"queue\.db-wal or queue\.db-shm was deleted"):
            await queue.publish(b"refused", lane=LIVE)
    await queue.close()
    assert b"before" in bodies(path)


async def test_what_lies_beside_a_file_that_is_gone_is_not_taken_for_the_new_ones(path: Path) -> None:
    queue = await SqliteQueue.open(path)
    await queue.publish(b"before", lane=LIVE)
    delete(path)
    fresh = await SqliteQueue.open(path)  # another process, before the first one has noticed
    await fresh.publish(b"fresh", lane=LIVE)
    with pytest.raises(QueueAway, match="deleted or replaced"):
        await queue.counts()
    assert (await fresh.counts()).ready[Kind.LIVE] == 2
    await queue.close()
    await fresh.close()
    assert bodies(path) == {b"before", b"fresh"}


# Files of older versions


def old_file(path: Path, *changes: str) -> None:
    """Write a file of an older version, with `changes` that make it older still."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD)
        row = "INSERT INTO message (lane, body, due, dead, why, at, holder) VALUES (?, ?, ?, ?, ?, ?, ?)"
        now = time.time()
        db.executemany(
            row,
            [
                ("live", b"ready", now - 5, 0, None, None, None),
                ("bulk", b"later", now + 600, 0, None, None, None),
                ("live", b"held", now + 10, 0, None, None, "somebody"),
                ("live", b"second", now + 3, 1, "no", now - 10, None),
                ("live", b"first", 0, 1, "no", now - 20, None),
            ],
        )
        for change in changes:
            db.execute(change)
        db.commit()


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("DROP TABLE mark",),
        ("DROP TABLE mark", "ALTER TABLE message DROP COLUMN returned"),
        ("DROP INDEX message_when", "CREATE INDEX message_due ON message (lane, due)"),
    ],
)
async def test_a_file_of_an_older_version_is_brought_up_to_date_by_whoever_opens_it_first(
    path: Path, changes: tuple[str, ...]
) -> None:
    old_file(path, *changes)
    both = await asyncio.gather(SqliteQueue.open(path), SqliteQueue.open(path, create=False))
    for queue in both:
        assert told(await queue.counts()) == ({Lane(""): 1}, 1, 1, 2)
        assert [letter.body for letter in await queue.buried(10)] == [b"first", b"second"]
    [delivery] = await take(both[0], 1, lane=Lane(""))
    assert (delivery.body, delivery.attempt, delivery.returned) == (b"ready", 1, 0)
    assert [await both[1].first("k", who, at=1000, within=60) for who in "aba"] == [True, False, True]
    for queue in both:
        await queue.close()


async def test_processes_that_start_together_all_open_the_file(tmp_path: Path) -> None:
    """One in five hundred was told that the file is locked."""
    for number in range(100):
        path = tmp_path / f"{number}.db"
        for queue in await asyncio.gather(*(SqliteQueue.open(path) for _ in range(4))):
            await queue.close()


async def test_a_late_settle_takes_no_later_lease_away(path: Path) -> None:
    """The lease ran out, and the same process has taken the message again."""
    clock = Clock()
    queue = await SqliteQueue.open(path, clock=clock)
    await queue.publish(b"x", lane=LIVE)
    [first] = await take(queue, 1)
    clock.now += 2 * LEASE
    [second] = await take(queue, 1)
    with pytest.raises(LostDelivery):
        await queue.settle(first, Done("too late"))
    assert queue.holds(second)
    await queue.settle(second, Done("ok"))
    await queue.close()


async def test_a_file_of_a_newer_version_is_not_touched(path: Path) -> None:
    await (await SqliteQueue.open(path)).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")
    with pytest.raises(ConfigError, match=r"queue\.db: a newer hookmirror has written"):
        await SqliteQueue.open(path)


def test_another_programs_database_is_not_touched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's database"):
        asyncio.run(SqliteQueue.open(path))
    assert path.read_bytes() == before


# Depths and what they cost


Told = tuple[dict[Lane, int], int, int | None, int]


def told(counts: Counts) -> Told:
    """What is ready by lane, waiting, held and dead."""
    ready = {lane: depth.ready for lane, depth in counts.lanes.items() if depth.ready}
    return ready, counts.waiting, counts.held, counts.dead


def truth(path: Path, now: float) -> Told:
    """Count the messages of a file that nobody has open, one by one."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT lane, dead, due > ?, holder IS NOT NULL FROM message", (now,)).fetchall()
    live = [row for row in rows if not row[1]]
    return (
        dict(Counter(Lane.named(row[0]) for row in live if not row[2])),
        sum(row[2] and not row[3] for row in live),
        sum(row[2] and row[3] for row in live),
        len(rows) - len(live),
    )


async def test_the_depths_told_are_those_of_the_messages_whatever_happens_to_them(path: Path) -> None:
    machine = Machine()
    queue = await SqliteQueue.open(path, clock=machine)
    for round_ in range(6):
        for number in range(12):
            lane = (LIVE, BULK)[number % 2]
            await queue.publish(b"x", lane=lane, delay=(number % 3) * 7.3)
        for lane in (LIVE, BULK):
            for number, delivery in enumerate(await take(queue, 2, lane=lane)):
                verdicts = (Done("ok"), Retry(3, "again"), Bury("never"), None)
                if (verdict := verdicts[(round_ + number) % 4]) is not None:
                    await queue.settle(delivery, verdict)
        letters = await queue.buried(10)
        await queue.replay([letter.id for letter in letters[1::3]])
        await queue.drop([letter.id for letter in letters[2::3]])
        for _ in range(4):
            assert told(await queue.counts()) == truth(path, queue._now())
            machine.now += 1.37
    await queue.close()


AT_WORK = """
import asyncio, random, sys
from pathlib import Path
from common.queue.port import Bury, Done, Kind, Lane, Retry
from common.queue.sqlite import SqliteQueue

async def work(queue, lane):
    async for delivery in queue.deliveries(lane, 20):
        verdict = random.choice([Done("ok"), Retry(random.choice([0, 600]), "again"), Bury("never"), None])
        if verdict is not None:
            await queue.settle(delivery, verdict)
        await queue.publish(b"x", lane=Lane("r", random.choice(list(Kind))), delay=random.choice([0, 0, 600]))

async def main():
    queue = await SqliteQueue.open(Path(sys.argv[1]))
    for _ in range(40):
        await queue.publish(b"x", lane=Lane("r", random.choice(list(Kind))))
    print("at work", flush=True)
    await asyncio.gather(*(work(queue, Lane("r", kind)) for kind in Kind))

asyncio.run(main())
"""


async def test_the_depths_told_are_those_of_the_messages_after_a_kill(path: Path) -> None:
    chance = random.Random(11)
    for _ in range(4):
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AT_WORK, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        await worker.stdout.readline()
        await asyncio.sleep(chance.uniform(0.05, 0.4))  # killed at any moment of its work
        worker.kill()
        await worker.wait()
        queue = await SqliteQueue.open(path)
        counts = await queue.counts()
        now = queue._now()
        await queue.close()
        assert told(counts) == truth(path, now)
        assert counts.dead + counts.waiting > 0


def fill(path: Path, count: int, now: float) -> None:
    """Put `count` messages into each state: ready, waiting and dead."""
    with closing(sqlite3.connect(path)) as db:
        states = ((now - 60, 0), (now + 60, 0), (now, 1))
        rows = (("live", b"x", due + number / count, dead) for due, dead in states for number in range(count))
        sql = "INSERT INTO message (lane, body, due, dead, why, at) VALUES (?, ?, ?, ?, '', 0)"
        db.executemany(sql, rows)
        db.commit()


async def steps(path: Path, call: Callable[[SqliteQueue], object]) -> int:
    """Return how much SQLite computes for what `call` does, in steps of its machine: the same anywhere."""
    queue = await SqliteQueue.open(path)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    db = queue._file._database._now.db
    db.set_progress_handler(step, 1)
    await call(queue)  # type: ignore[misc]
    db.set_progress_handler(None, 1)
    await queue.close()
    return count


async def one_task(queue: SqliteQueue) -> None:
    await queue.publish(b"x", lane=LIVE)
    [delivery] = await take(queue, 1, limit=1)
    await queue.settle(delivery, Done("ok"))


async def one_letter(queue: SqliteQueue) -> None:
    [letter] = await queue.buried(1)
    await queue.replay([letter.id])


@pytest.mark.parametrize("call", [SqliteQueue.counts, one_task, one_letter])
async def test_what_a_call_costs_does_not_grow_with_what_is_in_the_queue(
    tmp_path: Path, call: Callable[[SqliteQueue], object]
) -> None:
    costs = []
    for count in (100, 20_000):
        path = tmp_path / f"{count}.db"
        queue = await SqliteQueue.open(path)
        fill(path, count, queue._now())
        await queue.close()
        costs.append(await steps(path, call))
    assert costs[1] < costs[0] * 1.5, costs


# A file that cannot be used


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights inside the block."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def closed(path: Path) -> Path:
    """Make a queue with a thousand messages and close it."""
    queue = await SqliteQueue.open(path)
    await asyncio.gather(*(queue.publish(b"%0300d" % n, lane=LIVE) for n in range(1000)))
    await queue.close()
    return path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


def lose_a_block(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 8192 * 4096)
        file.write(bytes(4096))


@pytest.mark.parametrize("create", [True, False], ids=["used", "looked at"])
@pytest.mark.parametrize("damage", [cut, overwrite, lose_a_block])
async def test_a_damaged_file_ends_the_start_before_a_hook_goes_into_it(
    path: Path, damage: Callable[[Path], None], *, create: bool
) -> None:
    damage(await closed(path))
    with pytest.raises(
        ConfigError, match=r"^queue\.url: .*queue\.db: the file is damaged \(.*docs/operations"
    ):
        await SqliteQueue.open(path, create=create)


async def test_a_file_found_damaged_confirms_nothing_from_then_on(path: Path) -> None:
    queue = await SqliteQueue.open(await closed(path))
    queue._file._database._now.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    lose_a_block(path)
    queue._file._database._now.db.execute("PRAGMA shrink_memory")
    with pytest.raises(QueueAway, match="damaged"):
        await queue._run(lambda db: db.execute("SELECT sum(length(body)) FROM message").fetchall())
    with pytest.raises(QueueAway, match="damaged"):
        await queue.publish(b"x", lane=LIVE)
    await queue.close()


async def test_a_file_that_may_not_be_used_is_named_with_whose_it_is(open_folder: Path) -> None:
    path = await closed(open_folder / "queue.db")
    path.chmod(0o400)
    owner = path.owner()
    with (
        as_nobody(),
        pytest.raises(ConfigError, match=f"no permission to read and write it. It belongs to {owner}"),
    ):
        await SqliteQueue.open(path)


def test_a_folder_that_may_not_be_written_is_named_with_whose_it_is(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with (
        as_nobody(),
        pytest.raises(ConfigError, match=f"no permission to write in {open_folder}.* It belongs to"),
    ):
        asyncio.run(SqliteQueue.open(open_folder / "queue.db"))
    open_folder.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/queue.db", "there is no folder .*/no. Make it"),
        ("", "this is a folder. Name a file"),
        ("file/queue.db", "there is no folder .*/file. Make it"),
    ],
)
async def test_a_path_of_no_file_is_said_to_be_one(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "file").write_text("")
    for create in (True, False):
        with pytest.raises(ConfigError, match=rf"^queue\.url: {tmp_path}.*: {sentence}"):
            await SqliteQueue.open(tmp_path / name, create=create)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def publish_much(queue: SqliteQueue) -> None:
    """More than the -wal may have room left for."""
    for _ in range(20):
        await queue.publish(bytes(20_000), lane=LIVE)


def fill_up(disk: Path) -> Path:
    """Leave no room on `disk`."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return filler


async def test_a_full_disk_confirms_nothing_and_is_gone_on_with_when_there_is_room(small_disk: Path) -> None:
    queue = await SqliteQueue.open(small_disk / "queue.db")
    await queue.publish(b"before", lane=LIVE)
    [held] = await take(queue, 1)
    filler = fill_up(small_disk)
    with pytest.raises(QueueAway, match=f"the disk is full. Make room in {small_disk}"):
        await publish_much(queue)
    filler.unlink()
    await queue.publish(b"after", lane=LIVE)
    await queue.settle(held, Done("ok"))
    await queue.close()
    assert b"after" in bodies(small_disk / "queue.db")


async def test_a_disk_that_is_full_at_the_start_is_no_fault_of_the_configuration(small_disk: Path) -> None:
    fill_up(small_disk)
    with pytest.raises(QueueAway, match=r"^queue\.url: .*the disk is full"):
        await SqliteQueue.open(small_disk / "queue.db")


async def test_a_limit_on_the_size_of_files_is_named(path: Path) -> None:
    queue = await SqliteQueue.open(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(QueueAway, match=r"a limit on its use is reached .*IOERR"):
            await publish_much(queue)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await queue.publish(b"after", lane=LIVE)
    await queue.close()


async def test_a_file_that_another_program_locks_is_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY", 0.1)
    queue = await SqliteQueue.open(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueAway, match="another process keeps it locked"):
            await queue.publish(b"x", lane=LIVE)
    await queue.publish(b"x", lane=LIVE)
    await queue.close()


async def test_what_went_wrong_is_said_once_and_so_is_its_end(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "hookmirror")
    monkeypatch.setattr(database, "BUSY", 0.01)
    queue = await SqliteQueue.open(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(QueueAway):
                await queue.counts()
    await queue.counts()
    await queue.publish(b"x", lane=LIVE)
    await queue.close()
    assert [line.levelname for line in caplog.records] == ["WARNING", "INFO"]


# Whoever only looks


async def test_whoever_only_looks_makes_no_file(path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^queue\.url: .*queue\.db: there is no such file, .* hookmirror up"
    ):
        await open_queue(f"sqlite:///{path}", create=False)
    assert list(path.parent.iterdir()) == []


def test_whoever_only_looks_makes_no_queue_of_an_empty_file(path: Path) -> None:
    path.touch()
    with pytest.raises(ConfigError, match="there is no queue in this file"):
        asyncio.run(open_queue(f"sqlite:///{path}", create=False))
    assert path.read_bytes() == b""


async def test_whoever_only_looks_while_the_file_goes_away_makes_no_file(
    queue: SqliteQueue, path: Path
) -> None:
    looking = await open_queue(f"sqlite:///{path}", create=False)
    delete_all(path)
    with pytest.raises(QueueAway, match="deleted or replaced"):
        await looking.counts()
    await looking.close()
    assert list(path.parent.glob("queue.db*")) == []


async def test_whatever_the_question_for_all_lanes_ends_in_nobody_waits_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raised would end the only task that wakes the takers."""
    queue, other = await SqliteQueue.open(path), await SqliteQueue.open(path)
    taking = asyncio.create_task(take(queue, 1))
    monkeypatch.setattr("common.queue.sqlite.queue._DUE", "SELECT no FROM such_table WHERE ?")
    await asyncio.sleep(0)
    await other.publish(b"x", lane=LIVE)
    [delivery] = await asyncio.wait_for(taking, 20)
    assert delivery.body == b"x"
    for each in (queue, other):
        await each.close()
