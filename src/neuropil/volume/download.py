"""Fetch a file over HTTP so that it is whole and the right one, however often the line drops.

Bytes go to `<file>.part`; beside it `<file>.part.json` keeps the address and the server's validator (ETag or
Last-Modified). A later try asks for the rest with Range and If-Range, so a file that changed on the server in between
arrives whole instead of being glued to the old half. Only a file whose length and checksum are right gets its name.
Archives are unpacked after every member was checked to stay inside the folder.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import logging
import os
import shutil
import ssl
import stat
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import IO

from neuropil.errors import InputError, StorageFull, VolumeError, VolumeNotFound
from neuropil.progress import Progress

CHUNK = 1 << 18
log = logging.getLogger("neuropil")


class _Again(Exception):
    """The line dropped or the server is busy: worth another try."""


def fetch(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    tries: int = 5,
    timeout: float = 30.0,
    wait: float = 1.0,
) -> str:
    """Download `url` to `path` and return its SHA-256; continue what an earlier, stopped call has left.

    Parameters
    ----------
    url : http or https address
    path : file to make; it appears only when it is complete and verified
    sha256 : published checksum, hexadecimal; None if there is none, then nothing but the length can be verified
    tries : attempts in a row that may bring no new byte
    timeout : seconds without an answer that count as a failed attempt
    wait : seconds before the second attempt; doubles each time

    Raises
    ------
    VolumeNotFound : the server has no such file
    VolumeError : no connection, an untrusted certificate, a refused request, or a wrong checksum
    StorageFull : the disk is full; what has arrived is kept
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"url must start with http:// or https://; got {url}")
    path = Path(path)
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    for fresh in (False, True):
        resumed = _fetch_part(url, part, note, tries=tries, timeout=timeout, wait=wait)
        found = file_sha256(part)
        if sha256 is None or found == sha256.lower():
            os.replace(part, path)
            note.unlink(missing_ok=True)
            return found
        part.unlink()
        note.unlink(missing_ok=True)
        if fresh or not resumed:
            break
    raise VolumeError(
        f"the file from {url} has SHA-256 {found}, but {sha256} is published; it was removed, so try again"
    )


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remote_size(url: str, timeout: float = 5.0) -> int | None:
    """Return the size, bytes, that the server states, or None where it states none or does not answer."""
    try:
        with urllib.request.urlopen(_request(url, {}, "HEAD"), timeout=timeout) as answer:
            return _number(answer.headers.get("Content-Length"))
    except (OSError, http.client.HTTPException, ValueError):
        return None


def unpack(archive: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Unpack a zip or tar archive into `folder`; nothing is written if a member would land outside it.

    Raises
    ------
    VolumeError : truncated, neither zip nor tar, or a member with an absolute path, `..` or a link
    StorageFull : the disk is full
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                for entry in tar.getmembers():
                    _check_member(archive, folder, entry.name, plain=entry.isfile() or entry.isdir())
                tar.extractall(folder, filter="data")
        else:
            raise VolumeError(f"{archive} must be a zip or tar archive; it is truncated or something else")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise VolumeError(f"{archive} is damaged ({error}); remove it and download it again") from error
    except OSError as error:
        raise _full(error, folder) from error


def _unpack_zip(archive: str | os.PathLike[str], folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        for entry in entries:
            mode = entry.external_attr >> 16
            _check_member(archive, folder, entry.filename, plain=not stat.S_ISLNK(mode))
        _check_room(folder, sum(entry.file_size for entry in entries))
        content.extractall(folder)


def _check_member(archive: str | os.PathLike[str], folder: Path, name: str, *, plain: bool) -> None:
    root = folder.resolve()
    inside = (root / name.replace("\\", "/")).resolve()
    if not plain or ":" in name or (inside != root and root not in inside.parents):
        raise VolumeError(f"{archive} holds '{name}', which would be written outside {folder}; nothing was unpacked")


def _fetch_part(url: str, part: Path, note: Path, *, tries: int, timeout: float, wait: float) -> bool:
    """Bring `part` to its full length; tell whether it was put together from more than one answer."""
    part.parent.mkdir(parents=True, exist_ok=True)
    failed, resumed = 0, False
    while True:
        have = part.stat().st_size if part.exists() else 0
        validator = _validator(note, url)
        if have and validator is None:
            part.unlink()
            have = 0
        resumed = resumed or have > 0
        try:
            _attempt(url, part, note, have, validator, timeout)
            return resumed
        except _Again as error:
            grown = part.exists() and part.stat().st_size > have
            failed = 1 if grown else failed + 1
            if failed >= tries:
                kept = part.stat().st_size if part.exists() else 0
                raise VolumeError(
                    f"cannot download {url}: {error}; {kept:,} bytes are kept, the same command continues"
                ) from error
            pause = wait * 2 ** (failed - 1)
            log.info("%s; trying again in %.0f s", error, pause)
            time.sleep(pause)


def _attempt(url: str, part: Path, note: Path, have: int, validator: str | None, timeout: float) -> None:
    """One request: the rest of the file, or all of it where the server cannot or may not continue."""
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}
    try:
        with urllib.request.urlopen(_request(url, headers), timeout=timeout) as answer:
            start, total = _extent(answer, have)
            _remember(note, url, answer)
            if total is not None:
                _check_room(part.parent, total - start)
            _receive(answer, part, start, total)
    except urllib.error.HTTPError as error:
        error.close()
        _refuse(error, url, part)
    except urllib.error.URLError as error:
        host = urllib.parse.urlsplit(url).netloc
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise VolumeError(
                f"the certificate of {host} cannot be trusted ({error.reason.verify_message}); "
                f"fetch {url} by other means and save it as {part.with_suffix('')}"
            ) from error
        raise _Again(f"no connection to {host} ({error.reason})") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Again(f"the connection dropped ({error or type(error).__name__})") from error
    except OSError as error:
        raise _full(error, part) from error


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """First byte of the answer within the file, and the file's length where it is stated."""
    length = _number(answer.headers.get("Content-Length"))
    if answer.status != 206:
        return 0, length
    span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = _number(span.partition("-")[0])
    if start != have:
        raise _Again(f"the server sent bytes {span or '?'} where {have}- were asked for")
    return have, _number(total)


def _receive(answer: IO[bytes], part: Path, start: int, total: int | None) -> None:
    progress = Progress(f"download {part.with_suffix('').name}", total or 0, start)
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            progress.advance(len(chunk))
        size = file.tell()
    if total is not None and size < total:
        raise _Again(f"the connection dropped after {size:,} of {total:,} bytes")


def _refuse(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    """Turn an HTTP status into another try or a sentence."""
    if error.code == 416 and part.exists():  # nothing beyond what is here, yet not known to be whole
        total = _number((error.headers.get("Content-Range") or "").partition("/")[2])
        if total == part.stat().st_size:
            return
        part.unlink()
        raise _Again("the file on the server is shorter than what is here") from error
    if error.code in (404, 410):
        raise VolumeNotFound(
            f"there is no file at {url} any more (HTTP {error.code}); see the data set's own page"
        ) from error
    if error.code in (408, 425, 429) or error.code >= 500:
        raise _Again(f"the server is busy (HTTP {error.code})") from error
    raise VolumeError(f"the server refuses {url} (HTTP {error.code} {error.reason})") from error


def _request(url: str, headers: dict[str, str], method: str = "GET") -> urllib.request.Request:
    # Without "identity" a server may compress on the fly; lengths and ranges would then be of compressed bytes.
    return urllib.request.Request(
        url, headers={"User-Agent": "neuropil", "Accept-Encoding": "identity", **headers}, method=method
    )


def _validator(note: Path, url: str) -> str | None:
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    validator = known.get("validator") if isinstance(known, dict) and known.get("url") == url else None
    return validator if isinstance(validator, str) else None


def _remember(note: Path, url: str, answer: http.client.HTTPResponse) -> None:
    tag = answer.headers.get("ETag")
    if tag is None or tag.startswith("W/"):  # weak tags do not promise equal bytes
        tag = answer.headers.get("Last-Modified")
    note.write_text(json.dumps({"url": url, "validator": tag}))


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageFull(f"{folder} has {free / 1e6:,.0f} MB free, but {needed / 1e6:,.0f} MB are needed")


def _full(error: OSError, path: Path) -> OSError:
    """The error itself, or StorageFull where the disk is full."""
    if isinstance(error, (VolumeError, StorageFull)) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return StorageFull(f"the disk is full at {path}; free space and run the same command again, it continues")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None
