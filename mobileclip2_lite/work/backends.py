"""What the kinds of stores do by themselves: look at an object, read it, create it, list a folder.

`ObjectStore` is obstore's client (S3, Google, Azure, HTTP, memory), `Hub` reads `hf://` through fsspec, `SharedFolder`
is a folder that several machines see. All raise the same few errors, and none of these names a credential.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mobileclip2_lite.work.credentials import aws_provider, plain_http, remedy, without_secrets

PIECE = 8 << 20
"""Bytes read from a store at a time."""
LARGEST = 5 * 2**30
"""Bytes that S3 and its like take in one request."""
RETRIES = {
    "max_retries": 6,
    "retry_timeout": datetime.timedelta(seconds=60),
    "backoff": {"init_backoff": datetime.timedelta(milliseconds=100), "max_backoff": datetime.timedelta(seconds=10)},
}
"""obstore's own, for one request; `store.Store` begins whole requests again after these."""
CLIENT = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "15min"}
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What systems say of a hard link on exFAT, SMB, or a bucket that is mounted."""
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestExpired", "InvalidAccessKeyId")


class StoreError(OSError):
    """A store did not do what was asked; the message holds no credential."""


class Exists(StoreError):
    """There is an object of this name already, or another process is just creating it."""


class Refused(StoreError):
    """The store does not accept the credentials, or the machine's clock."""


class Transient(StoreError):
    """The store did not answer, answered 5xx or 429, or the connection broke: worth another try."""


class Facts(NamedTuple):
    """What a store says of an object."""

    size: int
    tag: str
    """Changes when the content does."""


class ObjectStore:
    """A bucket, an HTTP server or memory, through obstore."""

    def __init__(self, root: str) -> None:
        """Make the client; nothing is asked of the store yet.

        Raises:
            ModuleNotFoundError: the extra `scale` is not installed.
            ValueError: the store's own settings (environment variables) are incomplete.
        """
        try:
            import obstore
            import obstore.store
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{root} needs the extra: pip install 'mobileclip2_lite[scale]'") from error

        self.root, self.api, self.writable = root, obstore, not root.startswith("http")
        if root.startswith("memory:"):
            self.client: Any = obstore.store.MemoryStore()
            return
        options = {**CLIENT, "allow_http": root.startswith("http:") or plain_http()}
        known = {"credential_provider": provider} if (provider := aws_provider(root)) else {}
        try:
            self.client = obstore.store.from_url(root, client_options=options, retry_config=RETRIES, **known)
        except obstore.exceptions.BaseError as error:
            raise ValueError(f"{root}: {without_secrets(error)}; see docs/stores.md for what it needs") from None

    def facts(self, key: str) -> Facts | None:
        """Size and tag of an object, None if there is none."""
        try:
            with self._errors(key):
                found = self.api.head(self.client, key)
        except FileNotFoundError:
            return None
        return Facts(found["size"], str(found["e_tag"] or found["last_modified"]))

    def read(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`; the whole object is read where a web server knows no ranges."""
        with self._errors(key):
            try:
                return bytes(self.api.get_range(self.client, key, start=start, end=stop))
            except self.api.exceptions.BaseError as error:
                if self.writable or "range" not in str(error).lower():
                    raise
                return bytes(self.api.get(self.client, key).bytes())[start:stop]

    def pieces(self, key: str) -> Iterator[bytes]:
        """The whole object, from its first byte on."""
        with self._errors(key):
            found = self.api.get(self.client, key)
            if size := found.meta["size"]:  # an empty body ends obstore's stream with an error
                for piece in found.stream(min_chunk_size=PIECE):
                    size -= len(piece)
                    yield bytes(piece)
        if size:
            raise Transient(f"{self.root}/{key} was cut short: {size} bytes are missing")

    def put(self, key: str, data: Any, create: bool = True) -> None:
        """Write an object, in one request if it takes it; with `create` only if there is none of this name."""
        parts = {"use_multipart": not create and len(data) > LARGEST, "chunk_size": 8 * PIECE, "max_concurrency": 4}
        with self._errors(key):
            self.api.put(self.client, key, data, mode="create" if create else "overwrite", **parts)

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        """The keys below a folder, with size and tag.

        Raises:
            StoreError: it is a web server, which lists nothing.
        """
        if self.root.startswith("http"):
            raise StoreError(f"a web server lists no files: name them, as in {self.root}/{folder}/{{000..010}}.tar")
        with self._errors(folder):
            for chunk in self.api.list(self.client, folder):
                for found in chunk:
                    yield found["path"], Facts(found["size"], str(found["e_tag"] or found["last_modified"]))

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """obstore's errors as ours, by the status that the store answered with."""
        wrong = self.api.exceptions
        try:
            yield
        except FileNotFoundError as error:  # its own words hold the request
            if what := remedy(error):  # not the object is missing, but the bucket
                raise StoreError(f"{self.root}/{key}{what}") from None
            raise FileNotFoundError(f"{self.root}/{key} does not exist") from None
        except wrong.AlreadyExistsError:
            raise Exists(f"{self.root}/{key} exists") from None
        except (wrong.BaseError, OSError) as error:
            if isinstance(error, StoreError):
                raise
            raise _kind_of(error)(f"{self.root}/{key}: {without_secrets(error)}{remedy(error, self.root)}") from None
        except ValueError as error:
            raise StoreError(f"{self.root}/{key}: {without_secrets(error)}") from None


def _kind_of(error: Exception) -> type[StoreError]:
    text = str(error)
    status = re.search(r"status code: (\d{3})", text)
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or any(c in text for c in _EXPIRED):
        return Refused
    if status and status[1] == "400" and "<Code>" not in text:  # S3's ExpiredToken to HEAD, which has no body
        return Refused
    wrong = ("InvalidPathError", "NotSupportedError", "UnknownConfigurationKeyError")
    if type(error).__name__ in wrong or "builder error" in text:
        return StoreError
    if status and status[1].startswith("4") and status[1] not in ("408", "409", "412", "429"):
        return StoreError
    return Transient


class Hub:
    """Repositories of the Hugging Face hub, to read, through fsspec."""

    writable = False

    def __init__(self, root: str) -> None:
        """Make the client.

        Raises:
            ModuleNotFoundError: fsspec or huggingface_hub is missing (they come with `datasets`).
        """
        import fsspec

        self.root, self.client = root.rstrip("/"), fsspec.filesystem("hf")

    def facts(self, key: str) -> Facts | None:
        """Size and tag of a file, None if there is none."""
        try:
            with self._errors(key):
                found = self.client.info(key)
        except FileNotFoundError:
            return None
        return Facts(found["size"], str(found.get("blob_id") or found["size"])) if found["type"] == "file" else None

    def read(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`."""
        with self._errors(key):
            return self.client.cat_file(key, start=start, end=stop)

    def pieces(self, key: str) -> Iterator[bytes]:
        """The whole file."""
        with self._errors(key), self.client.open(key, "rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, key: str, data: Any, create: bool = True) -> None:
        """Never: a repository is changed by commits."""
        raise StoreError(f"{self.root}/{key}: the hub is only read; write to a bucket or a folder and push that")

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        """The files below a folder, with size and tag."""
        with self._errors(folder):
            for key, found in self.client.find(folder, detail=True).items():
                yield key, Facts(found["size"], str(found.get("blob_id") or found["size"]))

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.root}/{key} does not exist") from None
        except PermissionError as error:
            raise Refused(f"{self.root}/{key}: {without_secrets(error)}") from None
        except OSError as error:  # requests' and httpx's errors are of this kind
            raise Transient(f"{self.root}/{key}: {without_secrets(error)}") from None


class SharedFolder:
    """A folder that several processes, or machines, write to at once without a lock."""

    writable = True

    def __init__(self, root: str) -> None:
        self.root = root

    def facts(self, key: str) -> Facts | None:
        """Size and time of a file, None if there is none."""
        try:
            found = os.stat(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Facts(found.st_size, str(found.st_mtime_ns)) if os.path.isfile(key) else None

    def read(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`."""
        with open(key, "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def pieces(self, key: str) -> Iterator[bytes]:
        """The whole file."""
        with open(key, "rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def put(self, key: str, data: Any, create: bool = True) -> None:
        """Write beside, then give it the name: all of it or nothing, and with `create` never over another."""
        path = Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(".partial", f".{path.name}.{socket.gethostname()}.", path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)  # mkstemp's own is for this user alone
            if not create:
                os.replace(beside, path)
            elif os.name == "nt":
                os.rename(beside, path)  # fails there if the name is taken
            else:
                os.link(beside, path)
        except FileExistsError:
            raise Exists(f"{path} exists") from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise StoreError(
                f"{path.parent}: its file system has no hard links, without which two workers could write one file: "
                "share a folder of NFS, Lustre or CephFS, or a bucket"
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        """The files below a folder with size and time, those that are being written left out."""
        for path in sorted(Path(folder).rglob("*")):
            if not (path.name.startswith(".") and path.suffix == ".partial") and (found := self.facts(path.as_posix())):
                yield path.as_posix(), found


def open_backend(root: str) -> ObjectStore | Hub | SharedFolder:
    """The client of a store: of a bucket, a server, the hub, or this machine's shared folders."""
    if root == "hf:/":
        return Hub(root)
    return SharedFolder(root) if root == "file://" else ObjectStore(root)
