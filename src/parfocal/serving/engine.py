"""Predict images for many clients: their requests are collected into batches, for one network or more.

An image takes the same way as in `predict`. Threads decode the images. Each network has two threads; each of
them takes the images that have arrived meanwhile as a batch, so that the next batch is ready while the network
computes. A thread waits for more images only while any is being decoded, and a few milliseconds at most.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from time import monotonic

import numpy as np

from parfocal.data.decode import Pixels
from parfocal.data.encode import encode_image
from parfocal.engine.device import trim_memory
from parfocal.errors import ParfocalError, did_you_mean
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.predictor import Predictor, PreparedViews
from parfocal.recipe_schema import ImagesConfig
from parfocal.run import Run, open_runs, with_unique_names
from parfocal.serving.decoding import DecodingThreads
from parfocal.serving.limits import Limits, RequestError

BATCH_SIZE = 32
N_THREADS = 2
MAX_QUEUE_DELAY = 0.003
"""Seconds that an image waits at most for others that are being decoded."""
_IDLE_SECONDS = 5.0
"""Seconds without work after which freed memory is returned to the system."""


@dataclass(frozen=True)
class NetworkPrediction:
    """The prediction of a network for an image. A flag is None where the network has no such decision."""

    label: int
    probabilities: np.ndarray
    positive: bool | None
    referred: bool | None
    unusual: tuple[str, ...]


ImagePredictions = Mapping[str, NetworkPrediction]
"""The predictions for an image, by network."""


class ServedNetwork:
    """A loaded run, or an ensemble, and the threads that predict with it."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder
        self.name = run.name
        self.predictor = Predictor([run.folder], long_lived=True)
        self.n_batches = 0
        self.n_predicted = 0
        self.n_decoding = 0
        # Not a SimpleQueue: with two consumers, its timeout may be missed and a thread would wait forever.
        self._queue: Queue[tuple[PreparedViews, Future[NetworkPrediction]] | None] = Queue()
        self._counter_lock = Lock()
        name = f"predicting {self.name}"
        self._threads = [Thread(target=self._run_batches, name=name, daemon=True) for _ in range(N_THREADS)]
        for thread in self._threads:
            thread.start()

    def submit(self, image: PreparedViews) -> Future[NetworkPrediction]:
        """Add a prepared image to the queue of the network."""
        future: Future[NetworkPrediction] = Future()
        self._queue.put((image, future))
        return future

    def close(self) -> None:
        """Predict all images that wait, and stop the threads."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run_batches(self) -> None:
        while (item := self._wait_for_image()) is not None:
            batch = [item]
            deadline = monotonic() + MAX_QUEUE_DELAY
            while len(batch) < BATCH_SIZE and (item := self._next_image(deadline)) is not None:
                batch.append(item)
            self._predict_batch(batch)
        # Pass the end on to the other threads.
        self._queue.put(None)

    def _wait_for_image(self) -> tuple[PreparedViews, Future[NetworkPrediction]] | None:
        """Wait for an image. None means that no more will come."""
        try:
            return self._queue.get(timeout=_IDLE_SECONDS)
        except Empty:
            trim_memory()
            return self._queue.get()

    def _next_image(self, deadline: float) -> tuple[PreparedViews, Future[NetworkPrediction]] | None:
        """Return another image for the batch if there is one; wait until the deadline while any is being decoded."""
        left = deadline - monotonic()
        try:
            item = self._queue.get(timeout=left) if self.n_decoding and left > 0 else self._queue.get_nowait()
        except Empty:
            return None
        if item is None:
            self._queue.put(None)
        return item

    def _predict_batch(self, batch: Sequence[tuple[PreparedViews, Future[NetworkPrediction]]]) -> None:
        try:
            predictions = self.predictor.predict([image for image, _ in batch])
        except Exception as error:  # Whatever it is, the clients that wait must receive it.
            for _, future in batch:
                future.set_exception(error)
            return
        with self._counter_lock:
            self.n_batches += 1
            self.n_predicted += len(batch)
        positive, referred = (
            [None] * len(batch) if flags is None else flags.tolist()
            for flags in (predictions.is_positive, predictions.is_referred)
        )
        is_finite = predictions.is_finite
        for index, (image, future) in enumerate(batch):
            if not is_finite[index]:
                future.set_exception(
                    RequestError(500, f"{self.name} gives a probability that is not finite (NaN). Train it again.")
                )
                continue
            future.set_result(
                NetworkPrediction(
                    label=int(predictions.labels[index]),
                    probabilities=predictions.probabilities[index],
                    positive=positive[index],
                    referred=referred[index],
                    unusual=image.unusual_features,
                )
            )


class Engine:
    """Loaded runs and ensembles under unique names, ready to predict. A folder of runs stands for all of them."""

    def __init__(self, runs: Sequence[Path | str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        opened: list[Run] = []
        for path in map(Path, runs):
            opened += [Run(path)] if (path / MEMBERS_FILE).is_file() else open_runs([path])
        self.networks = {run.name: ServedNetwork(run) for run in with_unique_names(opened)}
        self.n_waiting = 0
        self.decoding = DecodingThreads(self.limits.max_pixels)
        self._counter_lock = Lock()
        # The first images through a network take longer than later ones, and no client should wait for that.
        for future in self.submit([encode_image(np.zeros((64, 64, 3), np.uint8), ".png")]):
            try:
                future.result()
            except RequestError as error:
                raise ParfocalError(error.reason) from None

    def select_networks(self, names: Sequence[str]) -> list[ServedNetwork]:
        """Return the networks with these names, or all networks if there are no names."""
        for name in names:
            if name not in self.networks:
                raise RequestError(404, f"There is no network {name!r}. {did_you_mean(name, self.networks)}")
        return [network for name, network in self.networks.items() if not names or name in names]

    def submit(self, images: Sequence[bytes], names: Sequence[str] = ()) -> list[Future[ImagePredictions]]:
        """Accept image files for the named networks: all of them, or none if the queue is full.

        Each future holds the predictions, or the exception UnreadableImageError.
        """
        networks = self.select_networks(names)
        with self._counter_lock:
            if self.n_waiting + len(images) > self.limits.max_waiting_images:
                raise RequestError(503, f"{self.n_waiting} images are waiting already. Try again in a moment.")
            self.n_waiting += len(images)
            for network in networks:
                network.n_decoding += len(images)
        return [self._submit_image(image, networks) for image in images]

    def _submit_image(self, image: bytes, networks: Sequence[ServedNetwork]) -> Future[ImagePredictions]:
        result: Future[ImagePredictions] = Future()
        # From here on the future cannot be canceled, and setting its result cannot fail.
        result.set_running_or_notify_cancel()
        finished: dict[str, Future[NetworkPrediction]] = {}

        def count_finished(_: Future[ImagePredictions]) -> None:
            with self._counter_lock:
                self.n_waiting -= 1

        def finish(name: str, prediction: Future[NetworkPrediction]) -> None:
            with self._counter_lock:
                finished[name] = prediction
                if len(finished) < len(networks):
                    return
            try:
                result.set_result({network.name: finished[network.name].result() for network in networks})
            except Exception as error:
                result.set_exception(error)

        def prepare() -> list[PreparedViews]:
            # Most networks of a server need the same preprocessing, which is then done once.
            prepared: dict[ImagesConfig, Pixels] = {}
            return [network.predictor.prepare(image, prepared) for network in networks]

        def predict(decoded: Future[list[PreparedViews]]) -> None:
            if error := decoded.exception():
                self._count_decoded(networks)
                result.set_exception(error)
                return
            views = decoded.result()
            predictions = [network.submit(view) for network, view in zip(networks, views, strict=True)]
            self._count_decoded(networks)
            for network, prediction in zip(networks, predictions, strict=True):
                prediction.add_done_callback(partial(finish, network.name))

        result.add_done_callback(count_finished)
        self.decoding.submit(prepare).add_done_callback(predict)
        return result

    def close(self) -> None:
        """Predict all accepted images, and stop."""
        self.decoding.close()
        for network in self.networks.values():
            network.close()

    def _count_decoded(self, networks: Sequence[ServedNetwork]) -> None:
        with self._counter_lock:
            for network in networks:
                network.n_decoding -= 1
