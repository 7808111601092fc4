"""Files in, answers out: requests of many clients gathered into batches, for one or several networks side by side.

The way from bytes to an answer is that of `predict`. Images are decoded in a pool of threads, and each network has two
threads of its own, each of which takes what has come meanwhile as one batch: while one is being answered, the next lies
ready. They wait for more only while an image is being decoded, and a few milliseconds at most.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from time import monotonic

import cv2
import numpy as np

from parfocal.data.decode import Pixels
from parfocal.data.headers import TooLarge, at_most
from parfocal.errors import nearest
from parfocal.evaluation.answering import Answering, Look
from parfocal.evaluation.ensemble import MEMBERS
from parfocal.memory import give_back_memory
from parfocal.parts import ImagesPart
from parfocal.run import Run, apart, open_runs
from parfocal.serving.limits import Limits, Refused

BATCH = 32
WORKERS = 2
GATHER = 0.003
"""Seconds that an image waits at most for others that are being decoded."""
_IDLE = 5.0
"""Seconds without work after which freed memory is handed back."""
_SMALL = 8_000_000
"""Pixels of an image that may be decoded beside others; larger ones take turns, so that memory is bounded."""


@dataclass(frozen=True)
class Said:
    """What one network says of one image; None where nothing was asked."""

    label: int
    probabilities: np.ndarray
    positive: bool | None
    referred: bool | None
    unusual: tuple[str, ...]


Graded = Mapping[str, Said]
"""What is said of one image, by network."""


class Network:
    """A loaded run, or an ensemble, and the threads that answer for it."""

    def __init__(self, run: Run) -> None:
        self.folder, self.name = run.folder, run.name
        self.answering = Answering([run.folder], lasting=True)
        self.batches = 0
        self.answered = 0
        self.coming = 0
        # Not a SimpleQueue: where several threads take from one, its timeout may be missed, for ever.
        self._queue: Queue[tuple[Look, Future[Said]] | None] = Queue()
        self._counting = Lock()
        name = f"answering {self.name}"
        self._threads = [Thread(target=self._work, name=name, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def ask(self, look: Look) -> Future[Said]:
        """Put an image that was looked at before the network."""
        future: Future[Said] = Future()
        self._queue.put((look, future))
        return future

    def close(self) -> None:
        """Answer what is waiting, and stop."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (one := self._first()) is not None:
            batch, until = [one], monotonic() + GATHER
            while len(batch) < BATCH and (one := self._another(until)) is not None:
                batch.append(one)
            self._answer(batch)
        # The other threads shall hear of the end too.
        self._queue.put(None)

    def _first(self) -> tuple[Look, Future[Said]] | None:
        """Wait for an image; None says that there will be no more."""
        try:
            return self._queue.get(timeout=_IDLE)
        except Empty:
            give_back_memory()
            return self._queue.get()

    def _another(self, until: float) -> tuple[Look, Future[Said]] | None:
        """Return one more image for the batch, if there is one or one is being decoded."""
        left = until - monotonic()
        try:
            one = self._queue.get(timeout=left) if self.coming and left > 0 else self._queue.get_nowait()
        except Empty:
            return None
        if one is None:
            self._queue.put(None)
        return one

    def _answer(self, batch: Sequence[tuple[Look, Future[Said]]]) -> None:
        try:
            answers = self.answering.answer([look for look, _ in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it
            for _, future in batch:
                future.set_exception(error)
            return
        with self._counting:
            self.batches += 1
            self.answered += len(batch)
        for number, (look, future) in enumerate(batch):
            positive, referred = _told(answers.positive, number), _told(answers.referred, number)
            label, probabilities = int(answers.labels[number]), answers.probabilities[number]
            future.set_result(Said(label, probabilities, positive, referred, look.unusual))


class Engine:
    """Loaded networks by name, ready to grade."""

    def __init__(self, runs: Sequence[Path | str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.networks = {run.name: Network(run) for run in _opened(runs)}
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decoding")
        self._large, self._counting, self.waiting = Lock(), Lock(), 0
        # The first images through a network cost more than those after, and nobody should wait for that.
        for one in self.grade([cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()]):
            one.result()

    def chosen(self, names: Sequence[str]) -> list[Network]:
        """Return the networks of these names, or all if there are none."""
        for name in names:
            if name not in self.networks:
                raise Refused(404, f"There is no network {name!r}. {nearest(name, self.networks)}")
        return [one for name, one in self.networks.items() if not names or name in names]

    def grade(self, images: Sequence[bytes], names: Sequence[str] = ()) -> list[Future[Graded]]:
        """Accept image files for the named networks, all of them or, where the queue is full, none.

        Each future has what was said, or the exception Unreadable.
        """
        networks = self.chosen(names)
        with self._counting:
            if self.waiting + len(images) > self.limits.waiting:
                raise Refused(503, f"{self.waiting} images are waiting already; try again in a moment.")
            self.waiting += len(images)
            for network in networks:
                network.coming += len(images)
        return [self._graded(image, networks) for image in images]

    def _graded(self, image: bytes, networks: Sequence[Network]) -> Future[Graded]:
        whole: Future[Graded] = Future()
        whole.add_done_callback(lambda _: self._count_down())
        heard: dict[str, Future[Said]] = {}

        def hear(name: str, answer: Future[Said]) -> None:
            with self._counting:
                heard[name] = answer
                if len(heard) < len(networks):
                    return
            _settle(whole, lambda: {network.name: heard[network.name].result() for network in networks})

        def look() -> None:
            # Most networks of a server want an image framed alike.
            prepared: dict[ImagesPart, Pixels] = {}
            try:
                looks = [self.look(image, network, prepared) for network in networks]
            except Exception as error:  # Unreadable, or whatever else: the one who waits must hear of it
                self._arrived(networks)
                whole.set_exception(error)
                return
            answers = [network.ask(one) for network, one in zip(networks, looks, strict=True)]
            self._arrived(networks)
            for network, answer in zip(networks, answers, strict=True):
                answer.add_done_callback(partial(hear, network.name))

        self._pool.submit(look)
        return whole

    def look(self, image: bytes, network: Network, prepared: dict[ImagesPart, Pixels]) -> Look:
        """Prepare an image file as a network wants it; or raise Unreadable."""
        try:
            with at_most(min(_SMALL, self.limits.pixels)):
                return network.answering.look(image, prepared)
        except TooLarge:
            with self._large, at_most(self.limits.pixels):
                return network.answering.look(image, prepared)

    def close(self) -> None:
        """Answer everything that was accepted, and stop."""
        self._pool.shutdown()
        for network in self.networks.values():
            network.close()

    def _arrived(self, networks: Sequence[Network]) -> None:
        with self._counting:
            for network in networks:
                network.coming -= 1

    def _count_down(self) -> None:
        with self._counting:
            self.waiting -= 1


def _told(flags: np.ndarray | None, number: int) -> bool | None:
    return None if flags is None else bool(flags[number])


def _settle(future: Future[Graded], result: Callable[[], Graded]) -> None:
    try:
        future.set_result(result())
    except Exception as error:
        future.set_exception(error)


def _opened(paths: Sequence[Path | str]) -> list[Run]:
    """Open runs and ensembles, each by a name of its own; a folder that holds several runs stands for all of them."""
    found: list[Run] = []
    for path in map(Path, paths):
        found += [Run(path)] if (path / MEMBERS).is_file() else open_runs([path])
    return apart(found)
