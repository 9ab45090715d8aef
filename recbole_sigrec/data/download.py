"""Downloading a published file: resumed where it broke off, and whole or not there."""

from __future__ import annotations

import dataclasses
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from recbole_sigrec.data.writer import sha256
from recbole_sigrec.errors import DataError

_BYTES = 2**18
_SECONDS = 60  # without a byte


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as it is published.

    Attributes:
        name: its name.
        url: where it is, or None if it has no link of its own.
        size: its bytes, or None where not known.
        sha256: of its content, or None where not known.
    """

    name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None


def download(file: Published, folder: Path) -> Path:
    """Fetch a file into a folder, unless it is there.

    It is written as ``<name>.part``; a further call goes on from what that holds. It gets its name
    only when its size (the published one, or else the server's) and checksum are right.

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
        total = _fetch(file.url, part, file.name)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise DataError(f"{file.url}: {getattr(error, 'reason', None) or error}") from None
    size, expected = part.stat().st_size, file.size or total
    if expected is not None and size < expected:
        raise DataError(f"{file.url} broke off after {size} of {expected} bytes")
    if expected is not None and size != expected:
        part.unlink()
        raise DataError(f"{file.url} gave {size} bytes instead of {expected}; they were removed")
    if file.sha256 is not None and sha256(part) != file.sha256:
        part.unlink()
        raise DataError(f"{file.url} gave a file of another SHA-256; it was removed")
    part.replace(path)
    return path


def _fetch(url: str, part: Path, name: str) -> int | None:
    """Append to ``part`` what it lacks of the file; the file's size, where the server tells it."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return _total(error.headers)  # there is nothing after what is here
    with response:
        if response.headers.get_content_type() == "text/html":
            raise OSError("the link leads to a web page, not to the file")
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends all of it
            have = 0
            total = int(length) if (length := response.headers["Content-Length"]) else None
        else:
            total = _total(response.headers)
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name) as bar,
        ):
            while block := response.read(_BYTES):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    return total


def _total(headers) -> int | None:
    """The file's size in ``Content-Range: bytes 5-9/10`` or ``bytes */10``."""
    match = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None
