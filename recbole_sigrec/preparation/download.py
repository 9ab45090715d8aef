"""Downloading a published file: resumed where it broke off, and whole or not there."""

from __future__ import annotations

import dataclasses
import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import DataError

_BYTES = 2**18
_SECONDS = 60  # without a byte


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as it is published.

    Attributes:
        name: its name.
        url: where it is, or None if it has no link of its own.
    """

    name: str
    url: str | None = None


def download(file: Published, folder: Path) -> Path:
    """Fetch a file into a folder, unless it is there.

    It is written as ``<name>.part``; a further call goes on from what that holds, unless the
    server has another version by then (its ETag or date is kept in ``<name>.version``). It gets its
    name only when its size is the one that the server tells; where there is nothing to tell a whole
    file by, the log says so.

    Returns:
        The file's path.

    Raises:
        DataError: the link is dead or broke off (what came is kept, for the next call), or what
            came is not the file (it is removed).
    """
    path = folder / file.name
    if path.is_file():
        return path
    if file.url is None:
        raise DataError(f"{file.name} has no link of its own")
    part = path.with_name(f"{file.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        total = _fetch(file, part)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise DataError(f"{file.url}: {getattr(error, 'reason', None) or error}") from None
    size = part.stat().st_size
    if total is not None and size < total:
        raise DataError(f"{file.url} broke off after {size} of {total} bytes")
    if total is not None and size > total:
        _remove(part)
        raise DataError(f"{file.url} gave {size} bytes instead of {total}; they were removed")
    part.replace(path)
    _remove(part)
    return path


def _fetch(file: Published, part: Path) -> int | None:
    """Append to ``part`` what it lacks of the file; the file's size, where the server tells it."""
    have, version = part.stat().st_size if part.is_file() else 0, part.with_suffix(".version")
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and version.is_file():  # of another version the server then sends all
        headers["If-Range"] = version.read_text("latin-1")
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(str(file.url), headers=headers), timeout=_SECONDS
        )
    except urllib.error.HTTPError as error:
        if not have or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if (total := _total(error.headers)) is not None:
            return total  # there is nothing after what is here
        _remove(part)
        return _fetch(file, part)
    with response:
        if response.headers.get_content_type() == "text/html":
            raise OSError("the link leads to a web page, not to the file")
        total = None
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            total = _total(response.headers)
        else:  # the server sends all of it
            _remove(part)
            have = 0
            if tag := _validator(response.headers):
                version.write_text(tag, "latin-1")
        if total is None and (length := response.headers["Content-Length"]):
            total = have + int(length)
        if total is None and not response.headers["Transfer-Encoding"]:  # chunks have an end
            logging.getLogger().warning(
                f"{file.url} does not tell its size: whether it arrives whole cannot be checked"
            )
        with (
            open(part, "ab") as written,
            progress(file.name, unit="B", total=total, initial=have) as bar,
        ):
            while block := response.read(_BYTES):
                written.write(block)
                bar.update(len(block))
            written.flush()
            os.fsync(written.fileno())
    return total


def _remove(part: Path) -> None:
    """Remove what came of a file, and the version that it is of."""
    for path in (part, part.with_suffix(".version")):
        path.unlink(missing_ok=True)


def _validator(headers: Message) -> str | None:
    """What tells a version of a file from others (RFC 9110, 13.1.5: no weak ETag)."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _total(headers: Message) -> int | None:
    """The file's size in ``Content-Range: bytes 5-9/10`` or ``bytes */10``."""
    match = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None
