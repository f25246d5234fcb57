"""Downloads that resume, are checked, and get their name only when they are right."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from vggfeat.errors import DownloadError, Interrupted, PublishError, VggfeatError
from vggfeat.files.digests import sha256_of
from vggfeat.files.examine import (
    RemoteFile,
    State,
    amount,
    examine,
    hashes,
    kinds,
    part_path,
    publish_record,
    read_json,
    record_of,
    wrong_digest,
    wrong_size,
)
from vggfeat.files.publish import make_folder, publish_bytes, sweep
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)

_CONNECT, _STALL = 4.0, 15.0  # seconds without a connection, without a byte
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try at a mirror
_PROGRESS = 64 * 1024  # bytes beyond which a further try counts as the first
_CHUNK = 64 * 1024  # what a cut may lose
_REDIRECTS = 10
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP says: try later
_MARGIN = 64 << 20  # bytes of disk that a download leaves free
_CUT = "the connection was cut"


def fetch(
    file: RemoteFile,
    folder: Path,
    watch: Watch,
    *,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Download a file, unless it is there, and return its path.

    What has arrived is kept in `.<name>.part`, so that a further call goes on from there. The
    file gets its name after size, digests and `check` agree; `<name>.json` then says where it
    came from, its full SHA-256, and which published digests were compared.

    Args:
        file: What to download.
        folder: Where to; it is made.
        watch: Shows the progress, and may stop the download.
        check: Called with the path of the complete bytes before they get their name; raises a
            VggfeatError to refuse them. Meant for files without a published digest.

    Raises:
        DownloadError: If no mirror has it, another process downloads it, there is no room for it,
            or another file has its name.
        PublishError: If it cannot be written.
        Interrupted: If `watch` says so; what has arrived is kept.
    """
    make_folder(folder)
    sweep(folder)
    final = folder / file.name
    if not os.path.lexists(final):
        with _locked_part(final) as part:
            if not os.path.lexists(final):  # else another process has finished it just now
                _Download(file, part, watch, check).run(final)
                return final
    return _existing(file, final, check)


def _existing(file: RemoteFile, final: Path, check: Callable[[Path], None] | None) -> Path:
    found = examine(file, final.parent)
    if found.state is not State.GOOD:
        raise DownloadError(
            f"'{final}' is not the published file: {found.detail}.",
            "A file that is there is never overwritten.",
            f"Type `mv '{final}' '{final}.old'` and run the same command again.",
        )
    if check and not file.digests:
        check(final)
    if not record_of(final):
        with suppress(PublishError):  # the folder may be somebody else's
            publish_record(file, final, None, sha256_of(final))
    return final


class _Part:
    """The bytes that have arrived, and where they came from; locked by its holder."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._origin = path.with_name(f"{path.name}.json")
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def origin(self) -> dict[str, Any]:
        """Return the URL and the validator (ETag or Last-Modified) of the bytes."""
        return read_json(self._origin)

    def comes_from(self, url: str, validator: str | None) -> None:
        publish_bytes(self._origin, json.dumps({"url": url, "validator": validator}).encode())

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise PublishError(self.path, error) from error

    def restart(self) -> None:
        self._origin.unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)

    def becomes(self, final: Path) -> None:
        """Give the bytes their name; the record that is published next syncs the folder."""
        try:
            os.fsync(self._descriptor)
            if os.path.lexists(final):
                raise FileExistsError(errno.EEXIST, "another file has appeared there")
            self._origin.unlink(missing_ok=True)
            self.path.rename(final)
        except OSError as error:
            raise PublishError(final, error) from error

    def close(self) -> None:
        if self.size == 0 and _is_at(self._descriptor, self.path):
            self._origin.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def _locked_part(final: Path) -> Iterator[_Part]:
    path = part_path(final)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise PublishError(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DownloadError(
                f"Another process is downloading '{final}'.",
                "One at a time can write it.",
                "Wait until it has finished, or stop it, and run the same command again.",
            ) from None
        except OSError as error:  # a file system without locks: the digest decides
            _log.debug("no lock on '%s': %s", path, error)
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # another process has finished the file that we opened
    part = _Part(path, descriptor)
    try:
        yield part
    finally:
        part.close()


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


class _MirrorError(Exception):
    """A mirror does not have the file; the next one may."""


class _CutError(Exception):
    """A mirror has not sent all; it may do so if asked again."""


class _Download:
    """One file on its way from its mirrors into a part."""

    def __init__(
        self,
        file: RemoteFile,
        part: _Part,
        watch: Watch,
        check: Callable[[Path], None] | None,
    ) -> None:
        self._file, self._part, self._watch, self._check = file, part, watch, check
        self._answered = self._web_page = False

    def run(self, final: Path) -> None:
        failures = []
        with requests.Session() as session:
            for url in self._file.urls:
                try:
                    sha256 = self._from_mirror(session, url)
                except _MirrorError as error:
                    failures.append(f"{url} ({error})")
                else:
                    self._part.becomes(final)
                    publish_record(self._file, final, url, sha256)
                    return
        kept = self._part.size
        goes_on = f", which goes on from {amount(kept, self._file.size)}" if kept else ""
        raise DownloadError(
            f"'{self._file.name}' could not be downloaded.",
            f"Tried {'; '.join(failures) or 'nothing, no place is known'}.",
            f"Check the network and HTTPS_PROXY and run the same command again{goes_on}; "
            f"or put the file at '{final}' yourself.",
        )

    def _from_mirror(self, session: requests.Session, url: str) -> str:
        """Return the SHA-256 of the complete file."""
        self._answered = self._web_page = False
        while True:
            resumed = self._part.size > 0
            if self._part.size != self._file.size:  # else it was killed when all had arrived
                self._complete(session, url)
            seen = hashes(self._part.path, kinds(self._file), self._watch)
            wrong = self._refusal(seen)
            if not wrong:
                return seen["sha256"]
            self._part.restart()
            if not resumed:
                raise _MirrorError(f"{wrong}{', a web page' if self._web_page else ''}")

    def _refusal(self, seen: Mapping[str, str]) -> str:
        wrong = wrong_size(self._file, self._part.size) or wrong_digest(self._file, seen)
        if not wrong and self._check:
            try:
                self._check(self._part.path)
            except Interrupted:
                raise
            except VggfeatError as error:
                return str(error)
        return wrong

    def _complete(self, session: requests.Session, url: str) -> None:
        furthest, tries = self._part.size, 0
        while True:
            try:
                self._attempt(session, url)
            except _CutError as error:
                reason = str(error)
            except (requests.RequestException, HTTPError) as error:
                reason = _reason(error)
                if not self._answered:  # no network: the next place, at once
                    raise _MirrorError(reason) from error
            else:
                return
            if self._part.size >= furthest + _PROGRESS:
                furthest, tries = self._part.size, 0
            if tries == len(_PAUSES):
                raise _MirrorError(f"{reason}, {tries + 1} times in a row")
            _log.debug("%s: %s; trying again", url, reason)
            self._sleep(_PAUSES[tries])
            tries += 1

    def _attempt(self, session: requests.Session, url: str) -> None:
        origin = self._part.origin()
        validator = origin.get("validator") if origin.get("url") == url else None
        if not (self._file.digests or validator):
            self._part.restart()  # nothing would notice halves of two different files
        have = self._part.size
        headers = {"Accept-Encoding": "identity", "User-Agent": "vggfeat"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = str(validator)
        with self._get(session, url, headers) as response:
            self._answered = True
            self._web_page = response.headers.get("Content-Type", "").startswith("text/html")
            if response.status_code == 416 and self._is_all(response, have):
                return
            end = self._begin(response, have)
            self._part.comes_from(url, _validator(response))
            self._receive(response, end)

    def _get(
        self, session: requests.Session, url: str, headers: Mapping[str, str]
    ) -> requests.Response:
        for _ in range(_REDIRECTS):
            scheme = urlsplit(url).scheme
            if scheme not in {"http", "https"}:
                raise _MirrorError(f"'{url}' is neither http nor https")
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT, _STALL),
            )
            target = session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            url = urljoin(url, target)
            if scheme == "https" and urlsplit(url).scheme != "https":
                raise _MirrorError(f"leads from https to '{url}'")
        raise _MirrorError(f"more than {_REDIRECTS} redirects")

    def _is_all(self, response: requests.Response, have: int) -> bool:
        """Whether "no such range" means that every byte has arrived."""
        all_there = response.headers.get("Content-Range") == f"bytes */{have}"
        return all_there and self._file.size in {None, have}

    def _begin(self, response: requests.Response, have: int) -> int | None:
        """Return where the body ends in the file, if that is known; the part fits its begin."""
        status = response.status_code
        if status in _BUSY:
            raise _CutError(f"answers {status} {response.reason}")
        if status == 416 and have:
            self._part.restart()
            raise _CutError("has no bytes beyond those that have arrived")
        if status not in {200, 206}:
            raise _MirrorError(f"answers {status} {response.reason}")
        if status == 206:
            end = self._end_of_range(response, have)
        else:
            length = re.fullmatch(r"\d{1,18}", response.headers.get("Content-Length", ""))
            end = int(length[0]) if length else None
        if end is not None and (wrong := wrong_size(self._file, end)):
            raise _MirrorError(f"{wrong}{', a web page' if self._web_page else ''}")
        if status == 200:
            self._part.restart()
        self._need_room((end or self._file.size or 0) - self._part.size)
        return end

    def _end_of_range(self, response: requests.Response, have: int) -> int | None:
        header = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", header)
        if not have:
            raise _MirrorError("answers 206 although everything was asked for")
        if match is None or int(match[1]) != have:
            self._part.restart()
            raise _CutError(f"answers with the range {header!r} instead of {have}-")
        return None if match[3] == "*" else int(match[3])

    def _receive(self, response: requests.Response, end: int | None) -> None:
        have = self._part.size
        end = self._file.size if end is None else end
        title = f"fetch {self._file.name}{f', from {amount(have, end)} on' if have else ''}"
        with self._watch.step(title, max((end or have) - have, 0), "bytes") as advance:
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                if end is not None and self._part.size + len(chunk) > end:
                    self._part.restart()
                    raise _MirrorError(f"sends more than {end:,} bytes")
                self._part.append(chunk)
                advance(len(chunk))
                self._heed()
        if end is not None and self._part.size < end:
            raise _CutError(_CUT)

    def _need_room(self, size: int) -> None:
        free = shutil.disk_usage(self._part.path.parent).free
        if size + _MARGIN > free:
            raise DownloadError(
                f"No room for '{self._file.name}' in '{self._part.path.parent}'.",
                f"It needs {(size + _MARGIN) / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free.",
                "Free some space, or choose another folder.",
            )

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._heed()
            time.sleep(min(left, 0.1))

    def _heed(self) -> None:
        self._watch.check(
            "Run the same command again: "
            f"it goes on from {amount(self._part.size, self._file.size)}."
        )


def _validator(response: requests.Response) -> str | None:
    """Return what If-Range may carry: a strong ETag, or else the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {_CONNECT:g} s"
    if isinstance(error, requests.ReadTimeout | ReadTimeoutError):
        return f"no data for {_STALL:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "no trusted TLS connection"
    match = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    if match:
        return match[1].lower()
    return _CUT if isinstance(error, ProtocolError) else f"no connection, {type(error).__name__}"
