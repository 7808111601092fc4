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
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.max_request_bytes:
            raise _request_too_large(self.limits)
        body = _RequestBody(self)
        try:
            uploads = await self._read_uploads(request, body.stream(request))
            if not uploads:
                raise RequestError(422, "The form contains no file. Send files in a form, or one image as the body.")
            for upload in uploads:
                if len(upload.data) > self.limits.max_upload_bytes:
                    name = f"{upload.name}: " if upload.name else ""
                    limit = _format_size(self.limits.max_upload_bytes)
                    raise RequestError(413, f"{name}an image may have at most {limit}.")
            yield uploads
        finally:
            self.buffered_bytes -= body.n_bytes

    async def _read_uploads(self, request: Request, chunks: AsyncGenerator[bytes, None]) -> list[Upload]:
        content_type = request.headers.get("content-type", "")
        try:
            if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
                return await self._read_form(request, chunks)
            return [Upload("", b"".join([chunk async for chunk in chunks]))]
        except ClientDisconnect:
            raise RequestError(400, "The client disconnected.") from None

    async def _read_form(self, request: Request, chunks: AsyncGenerator[bytes, None]) -> list[Upload]:
        options = parse_options_header(request.headers["content-type"])[1]
        # The parser would accept any codec of Python, with whatever it makes of a name.
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise RequestError(400, "The names in a form are in UTF-8. Leave the charset out.")
        limit = self.limits.max_images
        parser = _InMemoryParser(request.headers, chunks, max_files=limit, max_fields=limit)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RequestError(413 if "Too many" in error.message else 400, error.message) from None
        except (FormParserError, LookupError, ValueError, UnicodeError):
            raise RequestError(400, "The form is damaged.") from None
        try:
            files = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
            # A name may be long, and contain lone surrogates, which are not valid text.
            names = [(file.filename or "")[:255].encode("utf-8", "replace").decode() for file in files]
            return [Upload(name, await file.read()) for name, file in zip(names, files, strict=True)]
        finally:
            await form.close()


class _RequestBody:
    """The body of a request; `n_bytes` of it are buffered."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.n_bytes = 0

    async def stream(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the body chunk by chunk; raise RequestError if the client is too slow or sends too much."""
        limits = self._uploads.limits
        started = asyncio.get_running_loop().time()
        chunks = request.stream()
        while True:
            deadline = started + limits.timeout_seconds + self.n_bytes / limits.min_bytes_per_second
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise RequestError(408, "The upload was too slow. Try again on a faster connection.") from None
            if chunk is None:
                return
            if self.n_bytes + len(chunk) > limits.max_request_bytes:
                raise _request_too_large(limits)
            if self._uploads.buffered_bytes + len(chunk) > limits.max_buffered_bytes:
                raise RequestError(503, "Too many uploads at once. Try again in a moment.")
            self._uploads.buffered_bytes += len(chunk)
            self.n_bytes += len(chunk)
            yield chunk


def _request_too_large(limits: Limits) -> RequestError:
    limit = _format_size(limits.max_request_bytes)
    return RequestError(413, f"A request may have at most {limit}. Send fewer images at once.")


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB" if n_bytes >= 1 << 20 else f"{n_bytes} bytes"
