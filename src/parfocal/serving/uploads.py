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

from parfocal.serving.limits import Limits, Refused


@dataclass(frozen=True)
class Upload:
    """An image file as it was sent, and what its sender calls it."""

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """The parser of forms, kept from writing temporary files; what it is given is counted before."""

    # Of 0 bytes a spooled file never goes to the disk.
    spool_max_size = 0


class Uploads:
    """Everything that clients have sent and that is not answered yet."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Yield the images of a request, and count them as held until the block ends; or raise Refused."""
        self._refuse_announced(request)
        own = _Own(self)
        try:
            yield self._checked(await self._read(request, own))
        finally:
            self.held -= own.taken

    async def _read(self, request: Request, own: "_Own") -> list[Upload]:
        kind = request.headers.get("content-type", "")
        try:
            if kind.partition(";")[0].strip().lower() == "multipart/form-data":
                return await self._form(request, own)
            return [Upload("", b"".join([chunk async for chunk in self._body(request, own)]))]
        except ClientDisconnect:
            raise Refused(400, "The client went away.") from None

    async def _form(self, request: Request, own: "_Own") -> list[Upload]:
        most, options = self.limits.images, parse_options_header(request.headers["content-type"])[1]
        # Any codec of Python's would be taken, with whatever it makes of a name.
        if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
            raise Refused(400, "The names of a form are in UTF-8; leave its charset out.")
        parser = _InMemory(request.headers, self._body(request, own), max_files=most, max_fields=most)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Refused(413 if "Too many" in error.message else 400, error.message) from None
        except (FormParserError, LookupError, ValueError, UnicodeError):
            raise Refused(400, "The form is damaged.") from None
        async with _files(form.multi_items()) as files:
            return [Upload(_clean(one.filename or ""), await one.read()) for one in files]

    async def _body(self, request: Request, own: "_Own") -> AsyncGenerator[bytes, None]:
        """Yield the body piece by piece; a client that is too slow, or sends too much, is refused."""
        loop = asyncio.get_running_loop()
        started, stream = loop.time(), request.stream()
        while True:
            until = started + self.limits.patience + own.taken / self.limits.pace
            try:
                async with asyncio.timeout_at(until):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise Refused(408, "The upload came too slowly; try again on a faster connection.") from None
            if chunk is None:
                return
            own.take(len(chunk))
            yield chunk

    def _refuse_announced(self, request: Request) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limits.request:
            raise _too_much(self.limits)

    def _checked(self, uploads: list[Upload]) -> list[Upload]:
        if not uploads:
            raise Refused(422, "The form holds no file. Send images as files of a form, or one as the body.")
        for one in uploads:
            if len(one.data) > self.limits.upload:
                name = f"{one.name}: " if one.name else ""
                raise Refused(413, f"{name}an image may have {_size(self.limits.upload)}.")
        return uploads


class _Own:
    """How much of what is held one request has taken."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.taken = 0

    def take(self, count: int) -> None:
        limits = self._uploads.limits
        if self.taken + count > limits.request:
            raise _too_much(limits)
        if self._uploads.held + count > limits.held:
            raise Refused(503, "Too many uploads at once; try again in a moment.")
        self._uploads.held += count
        self.taken += count


def _too_much(limits: Limits) -> Refused:
    return Refused(413, f"A request may have {_size(limits.request)}; send fewer images at once.")


def _clean(name: str) -> str:
    """Return a name that a client gave, of a sane length and as valid text."""
    return name[:255].encode("utf-8", "replace").decode()


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"


@asynccontextmanager
async def _files(items: list[tuple[str, UploadFile | str]]) -> AsyncIterator[list[UploadFile]]:
    """Yield the files of a form, and close them after."""
    files = [item for _, item in items if isinstance(item, UploadFile)]
    try:
        yield files
    finally:
        for one in files:
            await one.close()
