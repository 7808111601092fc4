"""From the body of a request to images in memory: counted while they come, and never written to a disk."""

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
    """An image file as it was sent, and what its sender calls it."""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    """The parser of forms, kept from writing temporary files; what it is given is counted before."""

    # Of 0 bytes a spooled file never goes to the disk.
    spool_max_size = 0


class Uploads:
    """Everything that clients have sent and that is not answered yet."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buffered_bytes = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Yield the images of a request, and count them as held until the block ends; or raise Refused."""
        self._check_content_length(request)
        own = _RequestBuffer(self)
        try:
            yield self._check_uploads(await self._read_uploads(request, own))
        finally:
            self.buffered_bytes -= own.n_bytes

    async def _read_uploads(self, request: Request, buffer: "_RequestBuffer") -> list[Upload]:
        kind = request.headers.get("content-type", "")
        try:
            if kind.partition(";")[0].strip().lower() == "multipart/form-data":
                return await self._read_form(request, buffer)
            return [Upload("", b"".join([chunk async for chunk in self._stream_body(request, buffer)]))]
        except ClientDisconnect:
            raise RequestError(400, "The client went away.") from None

    async def _read_form(self, request: Request, buffer: "_RequestBuffer") -> list[Upload]:
        most, options = self.limits.max_images, parse_options_header(request.headers["content-type"])[1]
        # Any codec of Python's would be taken, with whatever it makes of a name.
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise RequestError(400, "The names of a form are in UTF-8; leave its charset out.")
        parser = _InMemoryParser(request.headers, self._stream_body(request, buffer), max_files=most, max_fields=most)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RequestError(413 if "Too many" in error.message else 400, error.message) from None
        except (FormParserError, LookupError, ValueError, UnicodeError):
            raise RequestError(400, "The form is damaged.") from None
        async with _open_files(form.multi_items()) as files:
            return [Upload(_clean_name(one.filename or ""), await one.read()) for one in files]

    async def _stream_body(self, request: Request, buffer: "_RequestBuffer") -> AsyncGenerator[bytes, None]:
        """Yield the body piece by piece; a client that is too slow, or sends too much, is refused."""
        loop = asyncio.get_running_loop()
        started, stream = loop.time(), request.stream()
        while True:
            until = started + self.limits.timeout_seconds + buffer.n_bytes / self.limits.min_bytes_per_second
            try:
                async with asyncio.timeout_at(until):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise RequestError(408, "The upload came too slowly; try again on a faster connection.") from None
            if chunk is None:
                return
            buffer.add(len(chunk))
            yield chunk

    def _check_content_length(self, request: Request) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limits.max_request_bytes:
            raise _request_too_large(self.limits)

    def _check_uploads(self, uploads: list[Upload]) -> list[Upload]:
        if not uploads:
            raise RequestError(422, "The form holds no file. Send images as files of a form, or one as the body.")
        for one in uploads:
            if len(one.data) > self.limits.max_upload_bytes:
                name = f"{one.name}: " if one.name else ""
                raise RequestError(413, f"{name}an image may have {_format_size(self.limits.max_upload_bytes)}.")
        return uploads


class _RequestBuffer:
    """How much of what is held one request has taken."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.n_bytes = 0

    def add(self, count: int) -> None:
        limits = self._uploads.limits
        if self.n_bytes + count > limits.max_request_bytes:
            raise _request_too_large(limits)
        if self._uploads.buffered_bytes + count > limits.max_buffered_bytes:
            raise RequestError(503, "Too many uploads at once; try again in a moment.")
        self._uploads.buffered_bytes += count
        self.n_bytes += count


def _request_too_large(limits: Limits) -> RequestError:
    return RequestError(413, f"A request may have {_format_size(limits.max_request_bytes)}; send fewer images at once.")


def _clean_name(name: str) -> str:
    """Return a name that a client gave, of a sane length and as valid text."""
    return name[:255].encode("utf-8", "replace").decode()


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes >> 20} MiB" if n_bytes >= 1 << 20 else f"{n_bytes} bytes"


@asynccontextmanager
async def _open_files(items: list[tuple[str, UploadFile | str]]) -> AsyncIterator[list[UploadFile]]:
    """Yield the files of a form, and close them after."""
    files = [item for _, item in items if isinstance(item, UploadFile)]
    try:
        yield files
    finally:
        for one in files:
            await one.close()
