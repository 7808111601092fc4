"""Serving: images a second for 64 clients at once beside the engine's own rate, and how long one image takes alone.

The server is the command itself in a process of its own, with a freshly trained ResNet-18 at 224 pixels unless a run is
named; the clients, in another process, each send one JPEG of 450 pixels after the other. All share the machine's cores.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from benchmarks.machine import measure_rate, save_results
from parfocal.data.decode import read_image
from parfocal.evaluation.predictor import Predictor
from parfocal.synthetic.dataset import synthesize_smear
from parfocal.training.train import train

BATCH_SIZE = 64
N_DISTINCT = 128


def train_run(folder: Path) -> Path:
    """Train a ResNet-18 for one epoch on a few drawn cells; what it has learnt does not matter."""
    smears = synthesize_smear(folder / "smears", n_images=160)
    (run,) = train(smears, "leukemia", out=folder / "runs", model="resnet18", size=256, crop_size=224, epochs=1)
    return run.folder


def draw_files(folder: Path) -> list[bytes]:
    """Return drawn cells of 450 pixels as JPEG files."""
    found = sorted(synthesize_smear(folder / "sent", n_images=N_DISTINCT, seed=3).glob("new_dataset/*/*.bmp"))
    pictures = [read_image(path)[0][..., ::-1] for path in found]
    return [cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 92))[1].tobytes() for picture in pictures]


@contextmanager
def serve_run(run: Path) -> Iterator[str]:
    """Serve a run by the command and give its address."""
    command = [sys.executable, "-m", "parfocal", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def run_clients(address: str, files: Sequence[bytes], n_clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return images a second and each image's seconds, of so many clients that send one image after another."""
    return asyncio.run(_run_clients(address, files, n_clients, seconds))


async def _run_clients(
    address: str, files: Sequence[bytes], n_clients: int, seconds: float
) -> tuple[float, list[float]]:
    place, took = urlsplit(address), []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        while (started := time.perf_counter()) < until:
            body = files[number % len(files)]
            number += 1
            writer.write(b"POST /v1/grade HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            assert answer["images"][0]["answers"], answer
            took.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(n_clients)))
    return len(took) / (time.perf_counter() - started), took


def measure(run: Path, files: Sequence[bytes], n_rounds: int, seconds: float) -> dict[str, object]:
    """Measure the engine, the crowd and one client alone in turns."""
    answering = Predictor([run])
    looks = [answering.prepare(one) for one in files[:BATCH_SIZE]]

    def batches() -> int:
        return sum(len(answering.predict(looks).labels) for _ in range(4))

    def decoding(one: bytes) -> float:
        started = time.perf_counter()
        answering.prepare(one)
        return time.perf_counter() - started

    engine: list[float] = []
    several: list[tuple[float, list[float]]] = []
    alone: list[float] = []
    with serve_run(run) as address, ProcessPoolExecutor(1, get_context("spawn")) as apart:
        for turn in range(n_rounds + 1):
            first = measure_rate(batches)
            many = apart.submit(run_clients, address, files, 64, seconds).result()
            _, one = apart.submit(run_clients, address, files, 1, seconds / 2).result()
            # The first turn warms everything up.
            if turn:
                engine.append(first)
                several.append(many)
                alone += one
    decoded = statistics.median(decoding(one) for one in files)
    took = np.array([one for _, all_of_them in several for one in all_of_them])
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "engine_images_per_second": [round(one, 1) for one in engine],
        "served_images_per_second_64_clients": [round(one, 1) for one, _ in several],
        "served_over_engine": round(statistics.median(one for one, _ in several) / statistics.median(engine), 3),
        "milliseconds_64_clients": {"p50": round(1000 * float(p50), 1), "p99": round(1000 * float(p99), 1)},
        "p99_over_p50": round(float(p99 / p50), 2),
        "milliseconds_alone": {
            "p50": round(1000 * statistics.median(alone), 1),
            "decoding": round(1000 * decoded, 1),
            "beyond_decoding": round(1000 * (statistics.median(alone) - decoded), 1),
        },
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder to serve instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or train_run(Path(folder))
        save_results("serving", measure(run, draw_files(Path(folder)), given.rounds, given.seconds))


if __name__ == "__main__":
    main()
