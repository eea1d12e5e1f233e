"""An S3 server that keeps every key as it is: moto, over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from moto.moto_server import werkzeug_app
from moto.moto_server.utilities import RegexConverter
from werkzeug.serving import make_server


class _EveryKey(RegexConverter):
    """In moto's own routes the dot of `.+` stands for no line end, and such a key would have no route."""

    def __init__(self, url_map: Any, *items: Any) -> None:
        super().__init__(url_map, *items)
        self.regex = f"(?s:{self.regex})"


class _Quiet(werkzeug_app.MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""


@contextmanager
def moto() -> Iterator[str]:
    """Run moto on a free port of loopback; give its URL. It is S3 alone: asking of each request which of
    its services is meant takes moto longer than the answer."""
    with mock.patch.object(werkzeug_app, "RegexConverter", _EveryKey):
        application = werkzeug_app.create_backend_app("s3")
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, name="moto", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
