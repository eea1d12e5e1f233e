"""The rules that keep the parts apart, read from the source."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "receiver", "worker", "console", "demo")

MAY_IMPORT = {
    "common": {"common"},
    "receiver": {"receiver", "common"},
    "worker": {"worker", "common"},
    "console": {"console", "receiver", "worker", "common"},
    "demo": {"demo", "receiver", "worker", "common"},
}

ONE_PLACE_EACH = {
    "aio_pika": ["common/queue/rabbitmq/*.py"],
    "aiormq": ["common/queue/rabbitmq/*.py"],
    "pamqp": ["common/queue/rabbitmq/*.py"],
    "sqlite3": ["common/queue/sqlite/*.py"],
    "aiobotocore": ["common/store/aws.py", "common/store/credentials.py"],
    "boto3": [],
    "botocore": ["common/store/aws.py", "common/store/credentials.py"],
    "aiohttp": [
        "worker/forward.py",  # the clients of HTTP that are no store: it POSTs events to whom a route names,
        "receiver/sns.py",  # and it asks Amazon for certificates
        "demo/*.py",
    ],
    "httptools": ["common/store/answer.py", "common/guard.py"],
    "cryptography": ["receiver/certificates.py"],
    "fastapi": ["receiver/app.py", "receiver/pages.py"],
    "starlette": ["receiver/app.py"],
    "prometheus_client": ["common/metrics.py", "common/merge.py"],
    "uvicorn": ["common/web.py", "common/guard.py"],
    "uvloop": ["common/service.py", "demo/*.py"],
    "click": ["console/*.py", "demo/*.py"],
    "rich": ["console/*.py", "demo/*.py"],
}
"""Where a foreign library may be imported: nowhere else does anyone know its names or its errors."""

PURE = [
    "receiver/handshake.py",
    "receiver/dialects/*.py",
    "receiver/openapi/*.py",
    "receiver/routing.py",
    "receiver/admission.py",
    "worker/plan.py",
    "worker/verdict.py",
    "common/backoff.py",
    "common/errors.py",
    "common/masking.py",
    "common/overlap.py",
    "common/retry_after.py",
    "common/urls.py",
    "common/values.py",
    "common/sentences.py",
    "common/store/failures.py",
    "common/store/headers.py",
    "common/store/sign.py",
    "common/store/notifications.py",
    "common/store/place.py",
    "console/hooks/wanted.py",
    "common/queue/topology.py",
]

IO = {
    "asyncio", "socket", "ssl", "select", "selectors", "subprocess", "os", "io", "pathlib", "shutil",
    "tempfile", "threading", "multiprocessing", "concurrent", "http", "urllib.request", "signal", "time",
    *ONE_PLACE_EACH,
}  # fmt: skip
"""Modules with which one can reach the world, or wait for it."""


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    return short(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{short(path)}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, modules: set[str]) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in modules)


FILES = files()
every_file = pytest.mark.parametrize("path", FILES, ids=short)


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)
    for pattern in [*PURE, *(p for places in ONE_PLACE_EACH.values() for p in places)]:
        assert any(fnmatch(short(path), pattern) for path in FILES), f"{pattern} names no file any more"


@every_file
def test_imports_point_from_receiver_and_worker_to_common_and_never_at_console_demo_or_bench(
    path: Path,
) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.partition(".")[0] for name in imports(path)} & {*PACKAGES, "tests", "bench"}
    assert ours <= MAY_IMPORT[package]


@every_file
def test_a_foreign_library_is_known_in_one_place_only(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imports(path)}
    for library in roots & set(ONE_PLACE_EACH):
        places = ONE_PLACE_EACH[library]
        assert any(fnmatch(short(path), place) for place in places), f"{library} belongs into {places}"


@every_file
def test_only_the_settings_read_the_environment(path: Path) -> None:
    if short(path) == "common/settings.py" or short(path).startswith("demo/"):
        return
    source = path.read_text()
    assert not re.search(r"\bos\.(environb?|getenvb?)\b", source)
    assert not {"os.environ", "os.getenv", "os.environb"} & set(imports(path))


@pytest.mark.parametrize(
    "path", [p for p in FILES if any(fnmatch(short(p), pure) for pure in PURE)], ids=short
)
def test_what_decides_imports_nothing_that_reaches_the_world(path: Path) -> None:
    assert not [name for name in imports(path) if under(name, IO)]


@pytest.mark.parametrize(
    "path", [p for p in FILES if any(fnmatch(short(p), pure) for pure in PURE)], ids=short
)
def test_what_decides_waits_for_nothing(path: Path) -> None:
    awaiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, awaiting)]


@every_file
def test_no_queue_is_named_outside_the_topology(path: Path) -> None:
    if short(path) == "common/queue/topology.py":
        return
    docstrings = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            named = re.search(r"hookmirror\.(live|bulk|dead|wait|once)\b", node.value)
            assert not named, f"{short(path)}:{node.lineno}: {node.value!r}"
        if isinstance(node, ast.JoinedStr):
            first = node.values[0] if node.values else None
            spelled = isinstance(first, ast.Constant) and str(first.value) == "hookmirror."
            assert not spelled, f"{short(path)}:{node.lineno}: a queue's name is put together"


def test_imports_go_round_in_no_circle() -> None:
    modules = {module(path) for path in FILES}
    graph: dict[str, set[str]] = {}
    for path in FILES:
        named = set(imports(path)) & modules
        # `from a import b` names the package a only to reach its module b
        reached = {name for name in named if not any(other.startswith(f"{name}.") for other in named)}
        graph[module(path)] = reached - {module(path)}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@every_file
def test_every_module_begins_with_a_sentence_about_it(path: Path) -> None:
    text = ast.get_docstring(tree(path))
    assert text, f"{short(path)} has no docstring"


@every_file
def test_nobody_rejects_a_message_by_accident(path: Path) -> None:
    """`async with message.process()` of aio-pika rejects without requeue when its task is cancelled."""
    assert ".process(" not in path.read_text()


@every_file
def test_paths_name_nobodys_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|home|root)/", path.read_text())
