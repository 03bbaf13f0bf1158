"""A server of buckets as S3 has them, in memory: what tensorstore asks for; signatures are ignored."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Buckets(ThreadingHTTPServer):
    """Objects by "bucket/key"; `asked` counts requests by method."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        self.page = 3
        """Keys of one answer to a list; few, so that lists have several pages."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which has 100-continue
    disable_nagle_algorithm = True
    server: Buckets

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            self._list()
        elif self._known() and self._as_wished():
            data = self.server.objects[self._key]
            wanted = self.headers.get("Range")
            if wanted is None:
                self._answer(200, data, ETag=etag(data))
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None] if first else data[-int(last) :]
            begin = int(first) if first else len(data) - len(part)
            content = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
            self._answer(206, part, ETag=etag(data), **{"Content-Range": content})

    def do_HEAD(self) -> None:
        if self._known() and self._as_wished():
            self._answer(200, self.server.objects[self._key], ETag=etag(self.server.objects[self._key]))

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._as_wished():
            self.server.objects[self._key] = data
            self._answer(200, b"", ETag=etag(data))

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._key, None)
        self._answer(204, b"")

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")

    def _known(self) -> bool:
        if self._key in self.server.objects:
            return True
        self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return False

    def _as_wished(self) -> bool:
        """Whether the object is, or is not, what the request says."""
        have = self.server.objects.get(self._key)
        match, differ = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if match is not None and (have is None or match not in ("*", etag(have))):
            self._answer(412, b"")
        elif differ is not None and have is not None and differ in ("*", etag(have)):
            self._answer(304 if self.command in ("GET", "HEAD") else 412, b"")
        else:
            return True
        return False

    def _list(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        root = f"{self._key.rstrip('/')}/"
        after = asked.get("continuation-token") or asked.get("start-after", "")
        found = sorted(key.removeprefix(root) for key in list(self.server.objects) if key.startswith(root))
        found = [key for key in found if key.startswith(asked.get("prefix", "")) and key > after]
        page = found[: self.server.page]
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(found) else ""
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects.get(root + key, b''))}</Size></Contents>"
            for key in page
        )
        known = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}"
        self._answer(200, f'<?xml version="1.0"?><ListBucketResult>{known}{entries}</ListBucketResult>'.encode())

    def _answer(self, code: int, data: bytes, **headers: str) -> None:
        self.server.asked[self.command] = self.server.asked.get(self.command, 0) + 1
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if code not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD" and code not in (204, 304):
            self.wfile.write(data)


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def serving() -> Iterator[Buckets]:
    server = Buckets()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
