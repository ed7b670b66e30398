"""wrk against nginx: a file of 1 kB over 50 connections that stay open."""

from __future__ import annotations

import re

from tests.bench.harness import RESULTS, CannotMeasure, Figure
from tests.bench.places import Place
from tests.bench.race import race
from tests.bench.worlds import need_programs

PORT = 8000
_CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid /tmp/cse-bench-nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path /tmp/cse-bench-nginx/body;
  proxy_temp_path /tmp/cse-bench-nginx/proxy;
  fastcgi_temp_path /tmp/cse-bench-nginx/fastcgi;
  uwsgi_temp_path /tmp/cse-bench-nginx/uwsgi;
  scgi_temp_path /tmp/cse-bench-nginx/scgi;
  server {{ listen {port}; root {root}; }}
}}
"""


def once(place: Place) -> float:
    words = ["wrk", "-t1", "-c50", "-d2s", f"http://{place.address}:{PORT}/1k"]
    text = place.call(*words)
    found = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if found is None or "Socket errors" in text or "Non-2xx" in text:
        raise CannotMeasure(f"wrk said: {text.strip()[-300:]}")
    return float(found[1])


def measure() -> list[Figure]:
    need_programs("nginx", "wrk", "curl")
    # Not in /tmp, of which applications have their own; and root there may not chown.
    root = RESULTS / "nginx"
    root.mkdir(parents=True, exist_ok=True)
    (root / "1k").write_bytes(b"0123456789abcde\n" * 64)
    configuration = root / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(port=PORT, root=root))
    # The workers' temporary directories: nginx makes the last part of each path only.
    made = 'mkdir -p /tmp/cse-bench-nginx && exec nginx -c "$0"'
    with race() as places:
        places.serve(
            ["sh", "-c", made, str(configuration)],
            lambda place: ["curl", "-sSf", "-o", "/dev/null", f"http://{place.address}:{PORT}/1k"],
        )
        figure = "nginx, wrk, 1 kB file, 50 connections"
        return places.run(figure, "requests/s", once, at_least=1.5)
