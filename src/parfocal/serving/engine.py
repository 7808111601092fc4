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
from parfocal.data.image_header import limit_image_size
from parfocal.engine.device import trim_memory
from parfocal.errors import ImageTooLargeError, did_you_mean
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.predictor import Predictor, PreparedViews
from parfocal.run import Run, open_runs, with_unique_names
from parfocal.schema import ImagesConfig
from parfocal.serving.limits import Limits, RequestError

BATCH_SIZE = 32
WORKERS = 2
MAX_QUEUE_DELAY = 0.003
"""Seconds that an image waits at most for others that are being decoded."""
_IDLE_SECONDS = 5.0
"""Seconds without work after which freed memory is handed back."""
_SMALL_PIXELS = 8_000_000
"""Pixels of an image that may be decoded beside others; larger ones take turns, so that memory is bounded."""


@dataclass(frozen=True)
class NetworkPrediction:
    """What one network says of one image; None where nothing was asked."""

    label: int
    probabilities: np.ndarray
    positive: bool | None
    referred: bool | None
    unusual: tuple[str, ...]


ImagePredictions = Mapping[str, NetworkPrediction]
"""What is said of one image, by network."""


class ServedNetwork:
    """A loaded run, or an ensemble, and the threads that answer for it."""

    def __init__(self, run: Run) -> None:
        self.folder, self.name = run.folder, run.name
        self.predictor = Predictor([run.folder], long_lived=True)
        self.n_batches = 0
        self.n_predicted = 0
        self.n_decoding = 0
        # Not a SimpleQueue: where several threads take from one, its timeout may be missed, for ever.
        self._queue: Queue[tuple[PreparedViews, Future[NetworkPrediction]] | None] = Queue()
        self._counter_lock = Lock()
        name = f"answering {self.name}"
        self._threads = [Thread(target=self._run_batches, name=name, daemon=True) for _ in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def submit(self, image: PreparedViews) -> Future[NetworkPrediction]:
        """Put an image that was looked at before the network."""
        future: Future[NetworkPrediction] = Future()
        self._queue.put((image, future))
        return future

    def close(self) -> None:
        """Answer what is waiting, and stop."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run_batches(self) -> None:
        while (one := self._wait_for_image()) is not None:
            batch, until = [one], monotonic() + MAX_QUEUE_DELAY
            while len(batch) < BATCH_SIZE and (one := self._next_image(until)) is not None:
                batch.append(one)
            self._predict_batch(batch)
        # The other threads shall hear of the end too.
        self._queue.put(None)

    def _wait_for_image(self) -> tuple[PreparedViews, Future[NetworkPrediction]] | None:
        """Wait for an image; None says that there will be no more."""
        try:
            return self._queue.get(timeout=_IDLE_SECONDS)
        except Empty:
            trim_memory()
            return self._queue.get()

    def _next_image(self, deadline: float) -> tuple[PreparedViews, Future[NetworkPrediction]] | None:
        """Return one more image for the batch, if there is one or one is being decoded."""
        left = deadline - monotonic()
        try:
            one = self._queue.get(timeout=left) if self.n_decoding and left > 0 else self._queue.get_nowait()
        except Empty:
            return None
        if one is None:
            self._queue.put(None)
        return one

    def _predict_batch(self, batch: Sequence[tuple[PreparedViews, Future[NetworkPrediction]]]) -> None:
        try:
            answers = self.predictor.predict([look for look, _ in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it
            for _, future in batch:
                future.set_exception(error)
            return
        with self._counter_lock:
            self.n_batches += 1
            self.n_predicted += len(batch)
        for number, (look, future) in enumerate(batch):
            positive, referred = _flag_at(answers.is_positive, number), _flag_at(answers.is_referred, number)
            label, probabilities = int(answers.labels[number]), answers.probabilities[number]
            future.set_result(NetworkPrediction(label, probabilities, positive, referred, look.unusual_features))


class Engine:
    """Loaded networks by name, ready to grade."""

    def __init__(self, runs: Sequence[Path | str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.networks = {run.name: ServedNetwork(run) for run in _open_all(runs)}
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decoding")
        self._large_image_lock, self._counter_lock, self.n_waiting = Lock(), Lock(), 0
        # The first images through a network cost more than those after, and nobody should wait for that.
        for one in self.submit([cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()]):
            one.result()

    def select_networks(self, names: Sequence[str]) -> list[ServedNetwork]:
        """Return the networks of these names, or all if there are none."""
        for name in names:
            if name not in self.networks:
                raise RequestError(404, f"There is no network {name!r}. {did_you_mean(name, self.networks)}")
        return [one for name, one in self.networks.items() if not names or name in names]

    def submit(self, images: Sequence[bytes], names: Sequence[str] = ()) -> list[Future[ImagePredictions]]:
        """Accept image files for the named networks, all of them or, where the queue is full, none.

        Each future has what was said, or the exception Unreadable.
        """
        networks = self.select_networks(names)
        with self._counter_lock:
            if self.n_waiting + len(images) > self.limits.max_waiting_images:
                raise RequestError(503, f"{self.n_waiting} images are waiting already; try again in a moment.")
            self.n_waiting += len(images)
            for network in networks:
                network.n_decoding += len(images)
        return [self._submit_image(image, networks) for image in images]

    def _submit_image(self, image: bytes, networks: Sequence[ServedNetwork]) -> Future[ImagePredictions]:
        whole: Future[ImagePredictions] = Future()
        whole.add_done_callback(lambda _: self._count_finished())
        heard: dict[str, Future[NetworkPrediction]] = {}

        def hear(name: str, answer: Future[NetworkPrediction]) -> None:
            with self._counter_lock:
                heard[name] = answer
                if len(heard) < len(networks):
                    return
            _resolve(whole, lambda: {network.name: heard[network.name].result() for network in networks})

        def look() -> None:
            # Most networks of a server want an image framed alike.
            prepared: dict[ImagesConfig, Pixels] = {}
            try:
                looks = [self.prepare(image, network, prepared) for network in networks]
            except Exception as error:  # Unreadable, or whatever else: the one who waits must hear of it
                self._count_decoded(networks)
                whole.set_exception(error)
                return
            answers = [network.submit(one) for network, one in zip(networks, looks, strict=True)]
            self._count_decoded(networks)
            for network, answer in zip(networks, answers, strict=True):
                answer.add_done_callback(partial(hear, network.name))

        self._pool.submit(look)
        return whole

    def prepare(self, image: bytes, network: ServedNetwork, prepared: dict[ImagesConfig, Pixels]) -> PreparedViews:
        """Prepare an image file as a network wants it; or raise Unreadable."""
        try:
            with limit_image_size(min(_SMALL_PIXELS, self.limits.max_pixels)):
                return network.predictor.prepare(image, prepared)
        except ImageTooLargeError:
            with self._large_image_lock, limit_image_size(self.limits.max_pixels):
                return network.predictor.prepare(image, prepared)

    def close(self) -> None:
        """Answer everything that was accepted, and stop."""
        self._pool.shutdown()
        for network in self.networks.values():
            network.close()

    def _count_decoded(self, networks: Sequence[ServedNetwork]) -> None:
        with self._counter_lock:
            for network in networks:
                network.n_decoding -= 1

    def _count_finished(self) -> None:
        with self._counter_lock:
            self.n_waiting -= 1


def _flag_at(flags: np.ndarray | None, index: int) -> bool | None:
    return None if flags is None else bool(flags[index])


def _resolve(future: Future[ImagePredictions], result: Callable[[], ImagePredictions]) -> None:
    try:
        future.set_result(result())
    except Exception as error:
        future.set_exception(error)


def _open_all(paths: Sequence[Path | str]) -> list[Run]:
    """Open runs and ensembles, each by a name of its own; a folder that holds several runs stands for all of them."""
    found: list[Run] = []
    for path in map(Path, paths):
        found += [Run(path)] if (path / MEMBERS_FILE).is_file() else open_runs([path])
    return with_unique_names(found)
