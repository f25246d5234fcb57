from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from vggfeat.errors import DownloadError, Interrupted, PublishError, WeightsError
from vggfeat.files import fetch as module
from vggfeat.files.examine import RemoteFile, State, examine
from vggfeat.files.fetch import fetch
from vggfeat.watch import Watch

DATA = random.Random(7).randbytes(600_000)
OTHER = random.Random(8).randbytes(600_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
HALF = 300_000
QUIET = Watch()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        sent = dict(self.headers)
        self.server.requests.append((self.path, sent.get("Range"), sent.get("If-Range")))
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers as its tests say, and remembers what it was asked."""

    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.requests: list[tuple[str, str | None, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def at(self, path: str, answer: Callable[[Handler], None]) -> str:
        self.answers[path] = answer
        return self.url(path)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (as inherited)
        pass  # a client that hangs up


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.01, 0.01, 0.01))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def serve(
    data: bytes = DATA,
    *,
    tag: str = '"v1"',
    ranges: bool = True,
    cuts: list[int] | None = None,
    headers: dict[str, str] | None = None,
) -> Callable[[Handler], None]:
    """Answer as a good server does, but cut the n-th answer after `cuts[n]` bytes of its body."""
    left = list(cuts or [])

    def answer(handler: Handler) -> None:
        start, wanted = 0, handler.headers.get("Range")
        if wanted and ranges and handler.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data) > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("ETag", tag)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(data[start:][: left.pop(0) if left else None])

    return answer


def status(*codes: int) -> Callable[[Handler], None]:
    """Answer with each of the codes, and then well."""
    left, good = list(codes), serve()

    def answer(handler: Handler) -> None:
        if left:
            handler.send_error(left.pop(0))
        else:
            good(handler)

    return answer


def redirect(target: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


def remote(*urls: str, size: int | None = len(DATA), **digests: str) -> RemoteFile:
    return RemoteFile(name="net.bin", urls=urls, size=size, digests=digests or {"sha256": SHA256})


def undigested(*urls: str, size: int | None = len(DATA)) -> RemoteFile:
    return RemoteFile(name="net.bin", urls=urls, size=size, digests={})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_part(folder: Path, data: bytes, url: str | None = None, tag: str = '"v1"') -> None:
    """Leave what a killed download leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".net.bin.part").write_bytes(data)
    if url:
        origin = json.dumps({"url": url, "validator": tag})
        (folder / ".net.bin.part.json").write_text(origin)


def refused(file: RemoteFile, folder: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(file, folder, QUIET)
    assert not (folder / file.name).exists()
    return str(caught.value)


# --- all is well --------------------------------------------------------------------------------


def test_a_file_arrives_with_its_record_and_nothing_else(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "weights"
    url = server.at("/net.bin", serve())
    assert fetch(remote(url), folder, QUIET) == folder / "net.bin"
    assert (folder / "net.bin").read_bytes() == DATA
    assert names(folder) == ["net.bin", "net.bin.json"]
    assert json.loads((folder / "net.bin.json").read_text()) == {
        "url": url,
        "bytes": 600_000,
        "sha256": SHA256,
        "checked": "sha256",
        "published": {"sha256": SHA256},
    }
    assert server.requests == [("/net.bin", None, None)]


def test_a_file_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(DATA)
    assert fetch(remote(server.url("/net.bin")), tmp_path, QUIET) == tmp_path / "net.bin"
    assert server.requests == []
    record = json.loads((tmp_path / "net.bin.json").read_text())
    assert (record["url"], record["sha256"]) == (None, SHA256)


def test_another_file_of_that_name_is_never_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(OTHER)
    with pytest.raises(DownloadError) as caught:
        fetch(remote(server.at("/net.bin", serve())), tmp_path, QUIET)
    other = hashlib.sha256(OTHER).hexdigest()
    final = tmp_path / "net.bin"
    assert str(caught.value) == (
        f"'{final}' is not the published file: sha256 {other[:12]}…, {SHA256[:12]}… expected. "
        "A file that is there is never overwritten. "
        f"Type `mv '{final}' '{final}.old'` and run the same command again."
    )
    assert final.read_bytes() == OTHER
    assert server.requests == []


def test_the_bytes_are_kept_as_sent_whatever_their_encoding_is_called(
    server: Server, tmp_path: Path
) -> None:
    url = server.at("/net.bin", serve(headers={"Content-Encoding": "gzip"}))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA


def test_a_body_in_chunks_of_unknown_length(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for start in range(0, len(DATA), 100_000):
            handler.wfile.write(b"186a0\r\n" + DATA[start : start + 100_000] + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    url = server.at("/net.bin", answer)
    assert fetch(remote(url, size=None), tmp_path, QUIET).read_bytes() == DATA


def test_an_empty_file(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(b""))
    empty = hashlib.sha256(b"").hexdigest()
    assert fetch(remote(url, size=0, sha256=empty), tmp_path, QUIET).read_bytes() == b""


def test_a_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.at("http://nowhere.invalid/net.bin", serve())
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch(remote("http://nowhere.invalid/net.bin"), tmp_path, QUIET)
    assert server.requests == [("http://nowhere.invalid/net.bin", None, None)]


class Recorder(Watch):
    """Remembers the steps, and asks to stop after some bytes."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[tuple[str, int, str]] = []
        self.done: dict[str, int] = {}
        self._stop_after = stop_after

    @contextmanager
    def step(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        self.steps.append((title, total, unit))

        def advance(count: int) -> None:
            self.done[title] = self.done.get(title, 0) + count

        yield advance

    def stop_signal(self) -> int | None:
        over = self._stop_after is not None and sum(self.done.values()) >= self._stop_after
        return signal.SIGINT if over else None


def test_progress_is_in_bytes_and_counts_what_is_still_to_come(
    server: Server, tmp_path: Path
) -> None:
    url = server.at("/net.bin", serve())
    leave_part(tmp_path, DATA[:HALF], url)
    watch = Recorder()
    fetch(remote(url), tmp_path, watch)
    title = "fetch net.bin, from 300,000 of 600,000 bytes on"
    assert watch.steps == [(title, 300_000, "bytes"), ("check net.bin.part", 600_000, "bytes")]
    assert watch.done == {title: 300_000, "check net.bin.part": 600_000}


# --- cut, and resumed ---------------------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(cuts=[HALF, 100_000]))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    first, second, third = server.requests
    assert first == ("/net.bin", None, None)
    assert second == ("/net.bin", "bytes=300000-", '"v1"')
    assert third == ("/net.bin", "bytes=400000-", '"v1"')


def test_cuts_are_endured_as_long_as_something_arrives(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(cuts=[70_000] * 8))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert len(server.requests) == 9  # more than the tries without progress
    assert server.requests[-1][1] == "bytes=560000-"


def test_a_mirror_that_sends_nothing_more_is_left(server: Server, tmp_path: Path) -> None:
    bad = server.at("/bad", serve(cuts=[HALF, *[10] * 20]))
    good = server.at("/good", serve())
    fetch(remote(bad, good), tmp_path, QUIET)
    assert [path for path, *_ in server.requests] == ["/bad"] * 4 + ["/good"]
    # The other mirror's ETag is not ours to compare; the digest decides in the end.
    assert server.requests[-1] == ("/good", "bytes=300030-", None)
    assert (tmp_path / "net.bin").read_bytes() == DATA


def test_what_has_arrived_is_kept_when_every_mirror_fails(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(cuts=[HALF, 0, 0, 0, 0]))
    message = refused(remote(url), tmp_path)
    assert f"Tried {url} (the connection was cut, 4 times in a row)." in message
    assert "run the same command again, which goes on from 300,000 of 600,000 bytes" in message
    assert names(tmp_path) == [".net.bin.part", ".net.bin.part.json"]
    server.at("/net.bin", serve())
    server.requests.clear()
    fetch(remote(url), tmp_path, QUIET)
    assert server.requests == [("/net.bin", "bytes=300000-", '"v1"')]


def test_a_server_that_ignores_ranges_sends_all_of_it(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(ranges=False, cuts=[HALF]))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert [wanted for _, wanted, _ in server.requests] == [None, "bytes=300000-"]


def test_a_server_that_ignores_ranges_and_always_cuts_is_left(
    server: Server, tmp_path: Path
) -> None:
    url = server.at("/net.bin", serve(ranges=False, cuts=[HALF] * 100))
    assert "the connection was cut, 4 times in a row" in refused(remote(url), tmp_path)
    assert len(server.requests) == 4


def test_a_file_that_has_changed_is_sent_whole(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(tag='"v2"'))
    leave_part(tmp_path, OTHER[:HALF], url, '"v1"')
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests == [("/net.bin", "bytes=300000-", '"v1"')]


@pytest.mark.parametrize(
    "header", ["bytes 0-599999/600000", "bytes 5-599999/600000", "lines 1-2/3", ""]
)
def test_a_wrong_content_range_starts_again(server: Server, tmp_path: Path, header: str) -> None:
    good = serve()

    def answer(handler: Handler) -> None:
        if not handler.headers.get("Range"):
            good(handler)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", header)
        handler.send_header("Content-Length", str(HALF))
        handler.end_headers()
        with suppress(OSError):
            handler.wfile.write(DATA[HALF:])

    url = server.at("/net.bin", answer)
    leave_part(tmp_path, DATA[:HALF], url)
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=300000-", None]


def test_a_part_of_a_plain_answer_is_refused(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 0-599999/600000")
        handler.end_headers()

    url = server.at("/net.bin", answer)
    assert "answers 206 although everything was asked for" in refused(remote(url), tmp_path)


@pytest.mark.parametrize("start", [1, HALF, len(DATA) - 1])
def test_a_damaged_part_is_found_out_and_fetched_again(
    server: Server, tmp_path: Path, start: int
) -> None:
    url = server.at("/net.bin", serve())
    leave_part(tmp_path, OTHER[:start], url)
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert [wanted for _, wanted, _ in server.requests] == [f"bytes={start}-", None]


def test_a_part_that_was_complete_needs_no_network(server: Server, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA)
    assert fetch(remote(server.url("/gone")), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests == []
    assert names(tmp_path) == ["net.bin", "net.bin.json"]


@pytest.mark.parametrize("part", [DATA, DATA + b"more"])
def test_no_such_range(server: Server, tmp_path: Path, part: bytes) -> None:
    url = server.at("/net.bin", serve())
    leave_part(tmp_path, part, url)
    assert fetch(remote(url, size=None), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests[0][1] == f"bytes={len(part)}-"
    assert len(server.requests) == (1 if part == DATA else 2)


def test_without_a_digest_halves_of_two_files_are_not_joined(
    server: Server, tmp_path: Path
) -> None:
    url = server.at("/net.bin", serve())
    leave_part(tmp_path, OTHER[:HALF])  # from nobody knows where
    assert fetch(undigested(url), tmp_path, QUIET).read_bytes() == DATA
    (tmp_path / "net.bin").unlink()
    leave_part(tmp_path, OTHER[:HALF], server.url("/elsewhere"))
    assert fetch(undigested(url), tmp_path, QUIET).read_bytes() == DATA
    assert [wanted for _, wanted, _ in server.requests] == [None, None]


def test_without_a_digest_the_same_file_is_resumed(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve())
    leave_part(tmp_path, DATA[:HALF], url)
    assert fetch(undigested(url), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests == [("/net.bin", "bytes=300000-", '"v1"')]


# --- mirrors that have something else -----------------------------------------------------------


def test_a_corrupt_file_is_thrown_away_and_the_next_mirror_asked(
    server: Server, tmp_path: Path
) -> None:
    flipped = bytearray(DATA)
    flipped[1234] ^= 1
    bad, good = server.at("/bad", serve(bytes(flipped))), server.at("/good", serve())
    fetch(remote(bad, good), tmp_path, QUIET)
    assert (tmp_path / "net.bin").read_bytes() == DATA
    assert server.requests == [("/bad", None, None), ("/good", None, None)]
    assert json.loads((tmp_path / "net.bin.json").read_text())["url"] == good


def test_a_wrong_digest_leaves_nothing_and_is_told(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve(OTHER))
    message = refused(remote(url), tmp_path)
    other = hashlib.sha256(OTHER).hexdigest()
    assert f"{url} (sha256 {other[:12]}…, {SHA256[:12]}… expected)" in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["sha384", "sha1", "md5", "sha256_prefix"])
def test_every_published_digest_is_compared(server: Server, tmp_path: Path, kind: str) -> None:
    def digest(data: bytes) -> str:
        name = kind.removesuffix("_prefix")
        return hashlib.new(name, data).hexdigest()[: 8 if kind.endswith("_prefix") else None]

    good, bad = server.at("/good", serve()), server.at("/bad", serve(OTHER))
    digests = {"sha256": hashlib.sha256(OTHER).hexdigest(), kind: digest(DATA)}
    wrong = remote(bad, size=len(DATA), **digests)
    assert f"{digest(DATA)[:12]}… expected" in refused(wrong, tmp_path)
    fetch(remote(good, size=len(DATA), **{kind: digest(DATA).upper()}), tmp_path, QUIET)
    label = "8 digits of sha256" if kind == "sha256_prefix" else kind
    record = json.loads((tmp_path / "net.bin.json").read_text())
    assert (record["checked"], record["sha256"]) == (label, SHA256)


def test_a_web_page_instead_of_the_file_is_not_even_read(server: Server, tmp_path: Path) -> None:
    page = serve(b"<html>log in</html>", headers={"Content-Type": "text/html"})
    url = server.at("/net.bin", page)
    leave_part(tmp_path, DATA[:HALF], url)
    server.at("/net.bin", serve(b"<html>" * 9, ranges=False, headers={"Content-Type": "text/html"}))
    message = refused(remote(url), tmp_path)
    assert f"{url} (54 bytes, 600,000 expected, a web page)" in message
    assert (tmp_path / ".net.bin.part").read_bytes() == DATA[:HALF]


def test_more_than_the_published_size_is_not_taken(server: Server, tmp_path: Path) -> None:
    sent = []

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(DATA)
            sent.append(len(DATA))

    url = server.at("/net.bin", endless)
    assert "sends more than 600,000 bytes" in refused(remote(url), tmp_path)
    assert names(tmp_path) == []
    assert len(sent) < 100


def test_errors_of_a_server(server: Server, tmp_path: Path) -> None:
    gone, busy = server.url("/gone"), server.at("/busy", status(503, 500, 502, 503))
    message = refused(remote(gone, busy), tmp_path)
    assert f"{gone} (answers 404 Not Found)" in message
    assert f"{busy} (answers 503 Service Unavailable, 4 times in a row)" in message
    assert [path for path, *_ in server.requests] == ["/gone", *["/busy"] * 4]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", status(503, 429))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert len(server.requests) == 3


def test_a_stalled_server_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STALL", 0.2)
    let_go = threading.Event()

    def stalled(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:HALF])
        handler.wfile.flush()
        let_go.wait(5)

    bad, good = server.at("/bad", stalled), server.at("/good", serve())
    begin = time.monotonic()
    assert fetch(remote(bad, good), tmp_path, QUIET).read_bytes() == DATA
    assert time.monotonic() - begin < 4
    let_go.set()
    assert server.requests[-1][0] == "/good"
    assert int(str(server.requests[-1][1])[6:-1]) >= HALF - 64 * 1024  # little is lost


def test_no_network_is_an_error_at_once_with_every_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    urls = [f"http://127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/b", "ftp://there/c"]
    begin = time.monotonic()
    message = refused(remote(*urls), tmp_path)
    assert time.monotonic() - begin < 1
    assert message == (
        "'net.bin' could not be downloaded. "
        f"Tried {urls[0]} (connection refused); {urls[1]} (connection refused); "
        f"{urls[2]} ('{urls[2]}' is neither http nor https). "
        "Check the network and HTTPS_PROXY and run the same command again; "
        f"or put the file at '{tmp_path / 'net.bin'}' yourself."
    )
    assert names(tmp_path) == []


# --- redirects ----------------------------------------------------------------------------------


def test_redirects_are_followed_and_ranges_with_them(server: Server, tmp_path: Path) -> None:
    url = server.at("/old", redirect("/new"))
    server.at("/new", redirect(server.at("/newest", serve(cuts=[HALF]))))
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests[3:] == [
        (path, "bytes=300000-", '"v1"') for path in ("/old", "/new", "/newest")
    ]


def test_redirects_that_lead_nowhere(server: Server, tmp_path: Path) -> None:
    loop = server.at("/loop", redirect("/loop"))
    local = server.at("/local", redirect("file:///etc/passwd"))
    message = refused(remote(loop, local), tmp_path)
    assert "more than 10 redirects" in message
    assert "'file:///etc/passwd' is neither http nor https" in message


def test_https_never_leads_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(session: requests.Session, url: str, **options: object) -> requests.Response:
        asked.append(url)
        response = requests.Response()
        response.status_code = 301
        response.raw = io.BytesIO()
        response.headers["Location"] = "http://there/net.bin"
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    message = refused(remote("https://there/net.bin"), tmp_path)
    assert "(leads from https to 'http://there/net.bin')" in message
    assert asked == ["https://there/net.bin"]


# --- checks of the caller -----------------------------------------------------------------------


def test_a_check_sees_the_bytes_before_they_have_a_name(server: Server, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def check(path: Path) -> None:
        assert not (tmp_path / "net.bin").exists()
        seen.append(path.read_bytes())

    url = server.at("/net.bin", serve())
    fetch(undigested(url, size=None), tmp_path, QUIET, check=check)
    assert seen == [DATA]
    assert json.loads((tmp_path / "net.bin.json").read_text())["checked"] == "none published"


def test_a_check_may_refuse_one_mirror_and_take_the_next(server: Server, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != DATA:
            raise WeightsError("No net.")

    bad, good = server.at("/bad", serve(OTHER)), server.at("/good", serve())
    with pytest.raises(DownloadError, match=r"/bad \(No net\.\)"):
        fetch(undigested(bad), tmp_path, QUIET, check=check)
    assert names(tmp_path) == []
    fetch(undigested(bad, good), tmp_path, QUIET, check=check)
    assert (tmp_path / "net.bin").read_bytes() == DATA
    (tmp_path / "net.bin").write_bytes(OTHER)  # and a file that was put there
    (tmp_path / "net.bin.json").unlink()
    with pytest.raises(WeightsError, match=r"No net\."):
        fetch(undigested(good), tmp_path, QUIET, check=check)


# --- stopped, locked, full ----------------------------------------------------------------------


def test_a_stop_keeps_what_has_arrived_and_says_how_to_go_on(
    server: Server, tmp_path: Path
) -> None:
    url = server.at("/net.bin", serve())
    with pytest.raises(Interrupted) as caught:
        fetch(remote(url), tmp_path, Recorder(stop_after=200_000))
    arrived = (tmp_path / ".net.bin.part").stat().st_size
    assert 200_000 <= arrived <= 200_000 + 64 * 1024
    assert str(caught.value) == (
        "Stopped by SIGINT. Run the same command again: "
        f"it goes on from {arrived:,} of 600,000 bytes."
    )
    fetch(remote(url), tmp_path, QUIET)
    assert server.requests[1] == ("/net.bin", f"bytes={arrived}-", '"v1"')
    assert (tmp_path / "net.bin").read_bytes() == DATA


def test_only_one_process_writes_a_part(server: Server, tmp_path: Path) -> None:
    held, let_go = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        held.set()
        let_go.wait(5)
        serve()(handler)

    url = server.at("/net.bin", slow)
    first = threading.Thread(target=fetch, args=(remote(url), tmp_path, QUIET))
    first.start()
    assert held.wait(5)
    message = refused(remote(url), tmp_path)
    let_go.set()
    first.join()
    assert message.startswith(f"Another process is downloading '{tmp_path / 'net.bin'}'.")
    assert len(server.requests) == 1
    assert (tmp_path / "net.bin").read_bytes() == DATA


def test_no_room_is_noticed_before_anything_is_sent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    url = server.at("/net.bin", serve())
    assert f"No room for 'net.bin' in '{tmp_path}'." in refused(remote(url), tmp_path)
    assert names(tmp_path) == []


def test_a_full_disk_keeps_what_has_arrived(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        size = os.fstat(descriptor).st_size
        if size + len(data) > HALF and len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    url = server.at("/net.bin", serve())
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(PublishError, match="No room for"):
            fetch(remote(url), tmp_path, QUIET)
    arrived = (tmp_path / ".net.bin.part").stat().st_size
    assert 0 < arrived <= HALF
    assert fetch(remote(url), tmp_path, QUIET).read_bytes() == DATA
    assert server.requests[1][1] == f"bytes={arrived}-"


def test_a_link_in_place_of_the_part_is_not_followed(server: Server, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / ".net.bin.part").symlink_to(victim)
    with pytest.raises(PublishError):
        fetch(remote(server.at("/net.bin", serve())), folder, QUIET)
    assert victim.read_bytes() == b"mine"
    assert server.requests == []


def test_a_file_that_appears_meanwhile_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        (tmp_path / "net.bin").write_bytes(OTHER)

    url = server.at("/net.bin", serve())
    with pytest.raises(PublishError, match="another file has appeared there"):
        fetch(undigested(url), tmp_path, QUIET, check=check)
    assert (tmp_path / "net.bin").read_bytes() == OTHER


@pytest.mark.slow
def test_killed_again_and_again_it_arrives_and_nothing_wrong_has_its_name(
    server: Server, tmp_path: Path
) -> None:
    sent = [0]

    def slow(handler: Handler) -> None:
        wanted = handler.headers.get("Range") or "bytes=0-"
        start = int(wanted[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", str(len(DATA) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        handler.end_headers()
        for at in range(start, len(DATA), 10_000):
            handler.wfile.write(DATA[at : at + 10_000])
            sent[0] += 10_000
            time.sleep(0.005)

    url = server.at("/net.bin", slow)
    code = f"""
        from pathlib import Path
        from vggfeat.files.examine import RemoteFile
        from vggfeat.files.fetch import fetch
        from vggfeat.watch import Watch
        file = RemoteFile(
            name="net.bin", urls=({url!r},), size=None, digests={{"sha256": {SHA256!r}}}
        )
        fetch(file, Path({str(tmp_path)!r}), Watch())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    luck = random.Random(3)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command)
        asked = len(server.requests)
        while process.poll() is None and len(server.requests) == asked:
            time.sleep(0.005)
        with suppress(subprocess.TimeoutExpired):
            process.wait(luck.uniform(0.01, 0.2))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "net.bin").exists():
            break
        assert set(names(tmp_path)) <= {".net.bin.part", ".net.bin.part.json"}
    fetch(remote(url), tmp_path, QUIET)
    assert kills >= 3
    assert (tmp_path / "net.bin").read_bytes() == DATA
    assert names(tmp_path) == ["net.bin", "net.bin.json"]
    assert sent[0] < 2 * len(DATA) + kills * 80_000


_MORTAL = """
import os, signal, sys
from pathlib import Path
from vggfeat.files.examine import RemoteFile
from vggfeat.files.fetch import fetch
from vggfeat.watch import Watch

calls, kill_at = 0, int(sys.argv[1])

def mortal(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for name in ("fsync", "rename", "unlink"):
    setattr(os, name, mortal(getattr(os, name)))
_, _, url, folder, sha256 = sys.argv
file = RemoteFile(name="net.bin", urls=(url,), size=None, digests={"sha256": sha256})
fetch(file, Path(folder), Watch())
"""


@pytest.mark.slow
def test_killed_at_any_step_the_next_call_finishes(server: Server, tmp_path: Path) -> None:
    url = server.at("/net.bin", serve())
    for kill_at in range(1, 30):
        folder = tmp_path / str(kill_at)
        command = [sys.executable, "-c", _MORTAL, str(kill_at), url, str(folder), SHA256]
        killed = subprocess.run(command, check=False).returncode == -signal.SIGKILL
        if (folder / "net.bin").exists():
            assert (folder / "net.bin").read_bytes() == DATA
        fetch(remote(url), folder, QUIET)
        assert (folder / "net.bin").read_bytes() == DATA
        assert json.loads((folder / "net.bin.json").read_text())["sha256"] == SHA256
        assert names(folder) == ["net.bin", "net.bin.json"]
        if not killed:
            break
    assert 9 <= kill_at < 29  # three steps for the origin, three for the file, three for the record


# --- examine ------------------------------------------------------------------------------------

_MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
_WEAK = "published and equal, which rules out accidents, not forgery"


@pytest.mark.parametrize(
    ("digests", "detail"),
    [
        ({"sha256": SHA256, "md5": _MD5}, "sha256 matches"),
        ({"sha384": hashlib.sha384(DATA).hexdigest()}, "sha384 matches"),
        ({"md5": _MD5}, f"only md5 {_WEAK}"),
        ({"sha256_prefix": SHA256[:8]}, f"only 8 digits of sha256 {_WEAK}"),
        ({}, "no digest is published to compare it with"),
    ],
)
def test_a_good_file_and_what_proves_it(
    tmp_path: Path, digests: dict[str, str], detail: str
) -> None:
    (tmp_path / "net.bin").write_bytes(DATA)
    file = RemoteFile(name="net.bin", urls=(), size=None, digests=digests)
    found = examine(file, tmp_path)
    assert (found.state, found.detail) == (State.GOOD, f"600,000 bytes, {detail}")
    fetch(file, tmp_path, QUIET)
    found = examine(file, tmp_path)
    unchanged = f"600,000 bytes, {detail}, and it is unchanged since its download"
    assert (found.state, found.detail) == (State.GOOD, unchanged)


def test_after_its_download_the_full_digest_is_known(server: Server, tmp_path: Path) -> None:
    file = undigested(server.at("/net.bin", serve()), size=None)
    fetch(file, tmp_path, QUIET)
    (tmp_path / "net.bin").write_bytes(OTHER)
    other = hashlib.sha256(OTHER).hexdigest()
    found = examine(file, tmp_path)
    assert found.state is State.DAMAGED
    assert found.detail == f"sha256 {other[:12]}…, {SHA256[:12]}… when it was downloaded"


def test_a_damaged_record_only_costs_a_look(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(DATA)
    (tmp_path / "net.bin.json").write_text("[1")
    assert examine(remote(md5=_MD5), tmp_path).detail == f"600,000 bytes, only md5 {_WEAK}"
    (tmp_path / "net.bin.json").write_text("[1]")
    assert examine(remote(), tmp_path).detail == "600,000 bytes, sha256 matches"


def test_files_that_are_not_good(tmp_path: Path) -> None:
    final = tmp_path / "net.bin"
    found = examine(remote(), tmp_path)
    assert (found.state, found.detail) == (State.ABSENT, f"there is no '{final}'")
    leave_part(tmp_path, DATA[:HALF])
    found = examine(remote(), tmp_path)
    assert (found.state, found.detail) == (State.PARTIAL, "300,000 of 600,000 bytes are there")
    large = examine(remote(size=553_432_081), tmp_path)
    assert large.detail == "0 of 553 MB are there"
    final.write_bytes(DATA[:-1])
    found = examine(remote(), tmp_path)
    assert (found.state, found.detail) == (State.DAMAGED, "599,999 bytes, 600,000 expected")
    final.unlink()
    final.symlink_to(tmp_path / "nowhere")
    found = examine(remote(), tmp_path)
    assert found.state is State.DAMAGED
    assert found.detail == "cannot be read: No such file or directory"
    final.unlink()
    final.mkdir()
    found = examine(remote(), tmp_path)
    assert (found.state, found.detail) == (State.DAMAGED, "is no regular file")
