"""Read the images of a request into memory. Their size is checked while they arrive; nothing is written to disk."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from parfocal.serving.limits import Limits, RequestError


@dataclass(frozen=True)
class Upload:
    """An image file, and the name under which it was sent."""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    """A form parser that writes no temporary files. Its input is limited before it gets here."""

    # With 0, a spooled file never goes to disk.
    spool_max_size = 0


class Uploads:
    """The uploads of all clients that are not yet processed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buffered_bytes = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Yield the images of a request, and count them as buffered until the block ends; raise RequestError."""
        self._check_content_length(request)
        buffer = _RequestBuffer(self)
        try:
            yield self._check_uploads(await self._read_uploads(request, buffer))
        finally:
            self.buffered_bytes -= buffer.n_bytes

    async def _read_uploads(self, request: Request, buffer: "_RequestBuffer") -> list[Upload]:
        content_type = request.headers.get("content-type", "")
        try:
            if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
                return await self._read_form(request, buffer)
            return [Upload("", b"".join([chunk async for chunk in self._stream_body(request, buffer)]))]
        except ClientDisconnect:
            raise RequestError(400, "The client disconnected.") from None

    async def _read_form(self, request: Request, buffer: "_RequestBuffer") -> list[Upload]:
        options = parse_options_header(request.headers["content-type"])[1]
        # The parser would accept any codec of Python, with whatever it makes of a name.
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise RequestError(400, "The names in a form are in UTF-8. Leave the charset out.")
        limit = self.limits.max_images
        body = self._stream_body(request, buffer)
        parser = _InMemoryParser(request.headers, body, max_files=limit, max_fields=limit)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RequestError(413 if "Too many" in error.message else 400, error.message) from None
        except (FormParserError, LookupError, ValueError, UnicodeError):
            raise RequestError(400, "The form is damaged.") from None
        async with _open_files(form.multi_items()) as files:
            return [Upload(_clean_name(file.filename or ""), await file.read()) for file in files]

    async def _stream_body(self, request: Request, buffer: "_RequestBuffer") -> AsyncGenerator[bytes, None]:
        """Yield the body chunk by chunk; raise RequestError if the client is too slow or sends too much."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        stream = request.stream()
        while True:
            deadline = started + self.limits.timeout_seconds + buffer.n_bytes / self.limits.min_bytes_per_second
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise RequestError(408, "The upload was too slow. Try again on a faster connection.") from None
            if chunk is None:
                return
            buffer.add(len(chunk))
            yield chunk

    def _check_content_length(self, request: Request) -> None:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.max_request_bytes:
            raise _request_too_large(self.limits)

    def _check_uploads(self, uploads: list[Upload]) -> list[Upload]:
        if not uploads:
            raise RequestError(422, "The form contains no file. Send files in a form, or one image as the body.")
        for upload in uploads:
            if len(upload.data) > self.limits.max_upload_bytes:
                name = f"{upload.name}: " if upload.name else ""
                limit = _format_size(self.limits.max_upload_bytes)
                raise RequestError(413, f"{name}an image may have at most {limit}.")
        return uploads


class _RequestBuffer:
    """How many bytes one request has buffered."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.n_bytes = 0

    def add(self, n_bytes: int) -> None:
        limits = self._uploads.limits
        if self.n_bytes + n_bytes > limits.max_request_bytes:
            raise _request_too_large(limits)
        if self._uploads.buffered_bytes + n_bytes > limits.max_buffered_bytes:
            raise RequestError(503, "Too many uploads at once. Try again in a moment.")
        self._uploads.buffered_bytes += n_bytes
        self.n_bytes += n_bytes


def _request_too_large(limits: Limits) -> RequestError:
    limit = _format_size(limits.max_request_bytes)
    return RequestError(413, f"A request may have at most {limit}. Send fewer images at once.")


def _clean_name(name: str) -> str:
    """Return a file name sent by a client, shortened and as valid text."""
    return name[:255].encode("utf-8", "replace").decode()


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB" if n_bytes >= 1 << 20 else f"{n_bytes} bytes"


@asynccontextmanager
async def _open_files(items: list[tuple[str, UploadFile | str]]) -> AsyncIterator[list[UploadFile]]:
    """Yield the files of a form, and close them afterwards."""
    files = [item for _, item in items if isinstance(item, UploadFile)]
    try:
        yield files
    finally:
        for file in files:
            await file.close()
