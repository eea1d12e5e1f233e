"""Two S3 servers for the session, and a fresh site on each queue."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from demo.weed import Weed
from tests.lab.programs import LOOK_AFTER, Site, site
from tests.lab.rabbit import Broker


@pytest.fixture(scope="session")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Weed, Weed]]:
    """The two clouds, MCS's part and AWS's."""
    servers = (Weed(tmp_path_factory.mktemp("mcs")), Weed(tmp_path_factory.mktemp("aws")))
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
async def over_rabbit(clouds: tuple[Weed, Weed], rabbit: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    """A site over RabbitMQ."""
    url = await rabbit.wipe(LOOK_AFTER)
    async with site(tmp_path, url, clouds[0].endpoint, clouds[1].endpoint) as here:
        yield here


@pytest.fixture
async def over_sqlite(clouds: tuple[Weed, Weed], tmp_path: Path) -> AsyncIterator[Site]:
    """A site on the embedded queue."""
    url = f"sqlite:///{tmp_path}/queue.db"
    async with site(tmp_path, url, clouds[0].endpoint, clouds[1].endpoint) as here:
        yield here


@pytest.fixture(params=["rabbitmq", "sqlite"])
def anywhere(request: pytest.FixtureRequest) -> Site:
    """A site on each queue in turn."""
    here: Site = request.getfixturevalue({"rabbitmq": "over_rabbit", "sqlite": "over_sqlite"}[request.param])
    return here
