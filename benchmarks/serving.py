"""`parfocal serve`: images per second with 64 clients, compared with the engine alone, and the latency of one image.

The server runs in its own process, with a ResNet-18 at 224 pixels that is trained first unless a run is passed. The
clients run in another process and each send JPEG files of 450 pixels one after the other. All share the CPU cores.
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

from benchmarks.machine import measure_rate, median_ratio, save_results
from parfocal.data.decode import read_image
from parfocal.evaluation.predictor import Predictor
from parfocal.synthetic.dataset import synthesize_smear
from parfocal.training.train import train

BATCH_SIZE = 64
N_DISTINCT = 128


def train_run(folder: Path) -> Path:
    """Train a ResNet-18 for one epoch on a few synthetic cells. Its accuracy does not matter here."""
    smears = synthesize_smear(folder / "smears", n_images=160)
    (run,) = train(smears, "leukemia", out=folder / "runs", model="resnet18", size=256, crop_size=224, epochs=1)
    return run.folder


def draw_files(folder: Path) -> list[bytes]:
    """Return synthetic cells of 450 pixels as JPEG files."""
    paths = sorted(synthesize_smear(folder / "sent", n_images=N_DISTINCT, seed=3).glob("new_dataset/*/*.bmp"))
    images = [read_image(path)[0][..., ::-1] for path in paths]
    return [cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 92))[1].tobytes() for image in images]


@contextmanager
def serve_run(run: Path) -> Iterator[str]:
    """Serve a run with the command, and yield its address."""
    command = [sys.executable, "-m", "parfocal", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def run_clients(address: str, files: Sequence[bytes], n_clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return the images per second, and the seconds of each image, of clients that send one image after another."""
    return asyncio.run(_run_clients(address, files, n_clients, seconds))


async def _run_clients(
    address: str, files: Sequence[bytes], n_clients: int, seconds: float
) -> tuple[float, list[float]]:
    url = urlsplit(address)
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        while (started := time.perf_counter()) < deadline:
            body = files[number % len(files)]
            number += 1
            writer.write(b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            response = json.loads(await reader.readexactly(length))
            assert response["images"][0]["predictions"], response
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(n_clients)))
    return len(latencies) / (time.perf_counter() - started), latencies


def measure(run: Path, files: Sequence[bytes], n_rounds: int, seconds: float) -> dict[str, object]:
    """Measure in turns: the engine alone, 64 clients, and a single client."""
    predictor = Predictor([run])
    prepared = [predictor.prepare(file) for file in files[:BATCH_SIZE]]

    def predict_batches() -> int:
        return sum(len(predictor.predict(prepared).labels) for _ in range(4))

    def measure_decoding(file: bytes) -> float:
        started = time.perf_counter()
        predictor.prepare(file)
        return time.perf_counter() - started

    engine_rates: list[float] = []
    served_rates: list[float] = []
    latencies: list[float] = []
    single_latencies: list[float] = []
    with serve_run(run) as address, ProcessPoolExecutor(1, get_context("spawn")) as clients:
        for round_number in range(n_rounds + 1):
            engine_rate = measure_rate(predict_batches)
            served_rate, seconds_each = clients.submit(run_clients, address, files, 64, seconds).result()
            _, single = clients.submit(run_clients, address, files, 1, seconds / 2).result()
            # The first round is the warm-up.
            if round_number:
                engine_rates.append(engine_rate)
                served_rates.append(served_rate)
                latencies += seconds_each
                single_latencies += single
    decoding = statistics.median(measure_decoding(file) for file in files)
    single_latency = statistics.median(single_latencies)
    p50, p99 = (float(value) for value in np.percentile(latencies, [50, 99]))
    return {
        "engine_images_per_second": [round(rate, 1) for rate in engine_rates],
        "served_images_per_second_64_clients": [round(rate, 1) for rate in served_rates],
        "served_over_engine": round(median_ratio(served_rates, engine_rates), 3),
        "milliseconds_64_clients": {"p50": round(1000 * p50, 1), "p99": round(1000 * p99, 1)},
        "p99_over_p50": round(p99 / p50, 2),
        "milliseconds_alone": {
            "p50": round(1000 * single_latency, 1),
            "decoding": round(1000 * decoding, 1),
            "beyond_decoding": round(1000 * (single_latency - decoding), 1),
        },
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="serve this run folder instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or train_run(Path(folder))
        save_results("serving", measure(run, draw_files(Path(folder)), arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    main()
