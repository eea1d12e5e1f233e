"""A real nginx before an S3 server, configured as people configure it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.weed import free_ports


def program() -> str:
    """Return the path of nginx."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise FileNotFoundError("nginx is not installed; run: sudo apt-get install nginx-light")
    return found


@contextmanager
def nginx(folder: Path, upstream: str, lines: str = "", *, location: str = "") -> Iterator[str]:
    """Run one on a free port of loopback with these `lines` in its server, and `location` in its location;
    give its URL."""
    [port] = free_ports(1)
    location = location or "proxy_pass $upstream$request_uri;"
    folder.mkdir(parents=True, exist_ok=True)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events {}\n"
        f"http {{ access_log off; {places} client_max_body_size 0;\n"
        f"server {{ listen 127.0.0.1:{port}; {lines}\n"
        f"set $upstream {upstream};\n"
        "proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection '';\n"
        f"location / {{ {location} }} }} }}\n"
    )
    command = [program(), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _await_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.02)
        else:
            return
