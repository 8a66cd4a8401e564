"""The container of a saved program: a JSON manifest and sections of bytes, all of it covered by checksums.

    header      64 bytes: magic, version, length and SHA-256 of the manifest, zeros
    manifest    JSON, UTF-8; its key "sections" lists name, offset, size and SHA-256 of each section
    sections    each at a multiple of 64 bytes, zeros between, nothing after the last

Sections are mapped into memory, not read: tensors lie in the file's pages until something writes to them.
"""

import hashlib
import json
import mmap
import os
import re
import secrets
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

from parc.errors import LoadError

VERSION = 2
"""Of the container, the manifest, and the way that entry points are called."""
MAGIC = b"\x89parc\r\n\x1a"
"""Not text: a transfer that changes line ends is noticed."""
ALIGNMENT = 64
_HEADER = struct.Struct("<8sIQ32s12x")
_NAME = re.compile(r"[a-z]+(?: [0-9]+)?")


def write_container(
    path: str | os.PathLike[str], manifest: Mapping[str, object], sections: Mapping[str, object]
) -> None:
    """Write a file at once: another of this name is there whole until it is replaced.

    `sections` are objects with the buffer interface, by name.
    """
    views = {name: memoryview(section).cast("B") for name, section in sections.items()}  # type: ignore[arg-type]
    hashes = {name: hashlib.sha256(view).hexdigest() for name, view in views.items()}

    def encode(start: int) -> tuple[bytes, list[int]]:
        """The manifest where the first section comes after `start` bytes, and the sections' offsets."""
        listed, offsets = [], []
        for name, view in views.items():
            start = _aligned(start)
            listed.append({"name": name, "offset": start, "size": view.nbytes, "sha256": hashes[name]})
            offsets.append(start)
            start += view.nbytes
        return json.dumps({**manifest, "sections": listed}, ensure_ascii=False, allow_nan=False).encode(), offsets

    # The offsets are part of the manifest, whose length they depend on: it only grows towards the right one.
    length = 0
    while True:
        text, offsets = encode(_HEADER.size + length)
        if len(text) <= length:
            break
        length = len(text)
    text = text.ljust(length)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(_HEADER.pack(MAGIC, VERSION, length, hashlib.sha256(text).digest()))
            file.write(text)
            for offset, view in zip(offsets, views.values(), strict=True):
                file.write(bytes(offset - file.tell()))
                file.write(view)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_container(path: str | os.PathLike[str]) -> tuple[dict[str, object], dict[str, memoryview]]:
    """The manifest and the sections of a file, which is mapped into memory: what is written to them stays there.

    LoadError, which says what is wrong, for everything that `write_container` would not have written.
    """
    data = _map(path)
    name = os.fspath(path)
    try:
        magic, version, length, digest = _HEADER.unpack_from(data)
    except struct.error:
        raise LoadError(f"{name} is no saved program: it has {len(data)} bytes") from None
    if magic != MAGIC:
        raise LoadError(f"{name} is no saved program: it does not start as one")
    if version != VERSION:
        raise LoadError(
            f"{name} has version {version} of the format; this parc reads version {VERSION}: compile and save it again"
        )
    end = _HEADER.size + length
    if end > len(data) or any(data[_HEADER.size - 12 : _HEADER.size]):
        raise LoadError(f"{name} is damaged or incomplete: its header is wrong")
    if hashlib.sha256(data[_HEADER.size : end]).digest() != digest:
        raise LoadError(f"{name} is damaged: the manifest does not have its checksum")
    try:
        manifest: dict[str, object] = json.loads(str(data[_HEADER.size : end], "utf-8"))
        listed = [(str(s["name"]), int(s["offset"]), int(s["size"]), str(s["sha256"])) for s in manifest["sections"]]  # type: ignore[attr-defined]
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise LoadError(f"{name} has a manifest that is not valid: {e!r}") from None
    sections: dict[str, memoryview] = {}
    for section, offset, size, checksum in listed:
        if section in sections or not _NAME.fullmatch(section):
            raise LoadError(f"{name} has a manifest that is not valid: a section is called {section!r}")
        if offset != _aligned(end) or size < 0 or offset + size > len(data):
            raise LoadError(f"{name} is damaged or incomplete: the section '{section}' is not where it should be")
        content = data[offset : offset + size]
        if any(data[end:offset]) or hashlib.sha256(content).hexdigest() != checksum:
            raise LoadError(f"{name} is damaged: the section '{section}' does not have its checksum")
        sections[section] = content
        end = offset + size
    if end != len(data):
        raise LoadError(f"{name} is damaged: {len(data) - end} bytes follow its last section")
    return manifest, sections


def _map(path: str | os.PathLike[str]) -> memoryview:
    """The bytes of a regular file; what is written to them is seen by nobody else."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its other end
            raise LoadError(f"{os.fspath(path)} is no file")
        if not status.st_size:
            raise LoadError(f"{os.fspath(path)} is no saved program: it is empty")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as e:
        raise LoadError(f"{os.fspath(path)} cannot be read: {e.strerror}") from None


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
