"""/openapi.json and /docs: what the receiver takes, to be read by programs and by people."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from common.tables import ReceiverSettings
from receiver.openapi.document import served

CDN = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5"
SCRIPT, STYLE = f"{CDN}/swagger-ui-bundle.js", f"{CDN}/swagger-ui.css"

ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def add_pages(app: FastAPI, receiver: ReceiverSettings, paths: Iterable[str]) -> None:
    """Serve the document and a page that shows it, to GET and HEAD, unless `receiver.docs` is off. `paths`
    are those of hooks."""
    if not receiver.docs:
        return
    document = served(receiver, paths, version=version("hookmirror"))
    written = json.dumps(document, ensure_ascii=False).encode()
    page = _page()
    policy = _policy(page)

    async def openapi(_: Request) -> Response:
        return Response(written, media_type="application/json", headers=ALWAYS)

    async def docs(_: Request) -> Response:
        return HTMLResponse(page, headers={**ALWAYS, "Content-Security-Policy": policy})

    app.add_route("/openapi.json", openapi, methods=["GET"])
    app.add_route("/docs", docs, methods=["GET"])


def _page() -> bytes:
    """Return the page. The receiver has no copy of Swagger UI: the reader's browser loads it."""
    parameters = {
        "validatorUrl": None,  # else the browser would tell a stranger's server where this document is
        "supportedSubmitMethods": ["get"],  # the paths of POST are placeholders
    }
    html = get_swagger_ui_html(
        openapi_url="openapi.json",  # relative: a proxy may serve us below a path of its own
        title="hookmirror receiver",
        swagger_js_url=SCRIPT,
        swagger_css_url=STYLE,
        swagger_favicon_url="data:,",
        swagger_ui_parameters=parameters,
    )
    return bytes(html.body)


def _policy(page: bytes) -> str:
    """Return a Content-Security-Policy that lets the page load these two files and run its own script."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {SCRIPT} {allowed}",
            f"style-src {STYLE} 'unsafe-inline'",  # Swagger UI sets styles of single elements
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
