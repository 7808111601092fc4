"""Decode images in separate threads for small, medium and large images, so that none waits for a larger one.

The threads of all sizes share the processors fairly. Large images are decoded in turn, to limit memory.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from parfocal.data.image_header import limit_image_size
from parfocal.errors import ImageTooLargeError

Result = TypeVar("Result")

_SMALL_PIXELS = 1_000_000
_MEDIUM_PIXELS = 8_000_000


class DecodingThreads:
    """Threads that decode images of at most `max_pixels` pixels."""

    def __init__(self, max_pixels: int) -> None:
        n_threads = min(8, os.cpu_count() or 1)
        self._pools = [
            (min(limit, max_pixels), ThreadPoolExecutor(n, f"decoding {name} images"))
            for name, limit, n in (
                ("small", _SMALL_PIXELS, n_threads),
                ("medium", _MEDIUM_PIXELS, n_threads),
                ("large", max_pixels, 1),
            )
        ]

    def submit(self, decode: Callable[[], Result]) -> Future[Result]:
        """Call a function that decodes an image, in the threads for its size.

        The function is called again with larger images allowed if it raises ImageTooLargeError, so it should read the
        image first. That takes little time: the header of the file declares the size.
        """
        result: Future[Result] = Future()
        # From here on the future cannot be canceled, and setting its result cannot fail.
        result.set_running_or_notify_cancel()
        self._submit_to(0, decode, result)
        return result

    def close(self) -> None:
        """Decode all submitted images, and stop."""
        # A thread passes an image on to the next size, so smaller sizes end first.
        for _, pool in self._pools:
            pool.shutdown()

    def _submit_to(self, size: int, decode: Callable[[], Result], result: Future[Result]) -> None:
        max_pixels, pool = self._pools[size]

        def run() -> None:
            try:
                with limit_image_size(max_pixels):
                    decoded = decode()
            except Exception as error:  # Whatever it is, the client that waits must receive it.
                if isinstance(error, ImageTooLargeError) and size + 1 < len(self._pools):
                    self._submit_to(size + 1, decode, result)
                else:
                    result.set_exception(error)
                return
            result.set_result(decoded)

        pool.submit(run)
