"""The engine predicts the same as `predict`, in batches, within its limits, and loses no image."""

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import parfocal
from parfocal.data.decode import ImageInfo, Pixels, prepare_image
from parfocal.data.image_header import read_header
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.evaluation.ensemble import build_ensemble
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.predictor import PredictedBatch, Predictor, PreparedViews
from parfocal.recipe_schema import ImagesConfig
from parfocal.run import Run
from parfocal.serving.engine import Engine
from parfocal.serving.heatmaps import Explainer
from parfocal.serving.limits import Limits, RequestError
from tests.data.example_files import encode_with_pillow


@pytest.fixture(scope="module")
def engine(runs: list[Path]) -> Iterator[Engine]:
    engine = Engine(runs)
    yield engine
    engine.close()


@pytest.fixture
def resume(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Pause all networks until the event is set."""
    event = Event()
    original = Predictor.predict

    def predict(self: Predictor, images: list[PreparedViews]) -> PredictedBatch:
        event.wait()
        return original(self, images)

    monkeypatch.setattr(Predictor, "predict", predict)
    yield event
    event.set()


def test_the_server_predicts_what_predict_and_the_evaluation_report(
    engine: Engine, runs: list[Path], trained: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    results = [future.result() for future in engine.submit(list(images.values()))]
    for run in runs:
        predictor = engine.networks[run.name].predictor
        predictions = [result[run.name] for result in results]
        probabilities = [prediction.probabilities for prediction in predictions]
        table = parfocal.predict(run, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv").path
        rows = pd.read_csv(table, keep_default_na=False).set_index("id").loc[list(images)]
        columns = [f"probability:{name}" for name in predictor.classes]
        np.testing.assert_allclose(probabilities, rows[columns], atol=1e-6)
        labels = [predictor.classes[prediction.label] for prediction in predictions]
        assert labels == rows["predicted"].tolist()
        for name in ("positive", "referred"):
            if name in rows:
                flags = [getattr(prediction, name) for prediction in predictions]
                assert flags == rows[name].astype(bool).tolist()
        assert [" ".join(prediction.unusual) for prediction in predictions] == rows["unusual"].tolist()
        evaluated = Predictions.load(Run(run).predictions_path("test"))
        calibrated = predictor.decision.calibrate(evaluated).probabilities
        order = [evaluated.ids.index(image_id) for image_id in images]
        np.testing.assert_allclose(probabilities, calibrated[order], atol=1e-6)


def test_images_that_arrive_meanwhile_are_one_batch(engine: Engine, resume: Event, images: dict[str, bytes]) -> None:
    network = engine.networks["resnet20"]
    n_batches, n_predicted = network.n_batches, network.n_predicted
    futures = engine.submit(list(images.values()) * 8, ["resnet20"])
    resume.set()
    wait(futures)
    assert network.n_predicted - n_predicted == len(futures) == 96
    assert network.n_batches - n_batches <= 6


def test_a_full_queue_rejects_images_and_loses_none(
    runs: list[Path], images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(runs, Limits(max_waiting_images=8))
    event = Event()
    original = Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, images: (event.wait(), original(self, images))[1])
    files = list(images.values())
    accepted = engine.submit(files[:6])
    with pytest.raises(RequestError, match="6 images are waiting already") as error:
        engine.submit(files[:3])
    assert error.value.status == 503
    accepted += engine.submit(files[:2])
    event.set()
    engine.close()
    assert all(set(future.result()) == {"resnet20", "plain20"} for future in accepted)
    assert engine.n_waiting == 0


def test_only_the_named_networks_predict(engine: Engine, images: dict[str, bytes]) -> None:
    (future,) = engine.submit([images["./new_dataset/test/0.bmp"]], ["plain20"])
    assert set(future.result()) == {"plain20"}
    with pytest.raises(RequestError, match=r"There is no network 'resnet2'\. Did you mean 'resnet20'"):
        engine.submit([b""], ["resnet2"])
    assert engine.n_waiting == 0


def test_networks_with_the_same_preprocessing_prepare_an_image_once(
    engine: Engine, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[ImagesConfig] = []

    def prepare_and_count(source: bytes, config: ImagesConfig) -> tuple[Pixels, ImageInfo]:
        prepared.append(config)
        return prepare_image(source, config)

    monkeypatch.setattr("parfocal.evaluation.predictor.prepare_image", prepare_and_count)
    (future,) = engine.submit([next(iter(images.values()))])
    assert len(future.result()) == len(engine.networks) > 1
    assert len(prepared) == 1


def test_an_unreadable_image_has_its_reason_and_the_others_are_predicted(
    engine: Engine, images: dict[str, bytes]
) -> None:
    good = images["./new_dataset/test/0.bmp"]
    first, bad, last = engine.submit([good, b"nonsense", good])
    with pytest.raises(UnreadableImageError, match="text, not an image"):
        bad.result()
    np.testing.assert_array_equal(first.result()["plain20"].probabilities, last.result()["plain20"].probabilities)
    assert engine.n_waiting == 0
    assert all(network.n_decoding == 0 for network in engine.networks.values())


def test_an_error_in_a_network_reaches_the_client(
    engine: Engine, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "predict", lambda self, images: 1 / 0)
    (future,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    with pytest.raises(ZeroDivisionError):
        future.result()
    monkeypatch.undo()
    (future,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    assert future.result()


def test_large_images_are_read_and_huge_ones_rejected(runs: list[Path]) -> None:
    engine = Engine(runs[:1], Limits(max_pixels=9_000_000))
    large, huge = (encode_with_pillow(Image.new("L", (3000, side)), "PNG") for side in (2900, 3100))
    first, second = engine.submit([large, huge])
    assert first.result()
    with pytest.raises(UnreadableImageError, match="declares 3000 × 3100 pixels, more than 9 million"):
        second.result()
    engine.close()


def test_small_images_do_not_wait_for_large_ones(
    engine: Engine, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_large = Event()

    def prepare_slowly(source: bytes, config: ImagesConfig) -> tuple[Pixels, ImageInfo]:
        if read_header(source).width > 1000:
            assert decode_large.wait(60)
        return prepare_image(source, config)

    monkeypatch.setattr("parfocal.evaluation.predictor.prepare_image", prepare_slowly)
    monkeypatch.setattr("parfocal.serving.heatmaps.prepare_image", prepare_slowly)
    explainer = Explainer(engine.decoding)
    network = engine.networks["plain20"]
    small = images["./new_dataset/test/0.bmp"]
    large, medium = (encode_with_pillow(Image.new("L", (3000, side)), "PNG") for side in (2900, 2000))

    async def explain() -> None:
        waiting = [asyncio.create_task(explainer.compute_maps(large, network)) for _ in range(12)]
        try:
            assert await asyncio.wait_for(explainer.compute_maps(small, network), 30)
        finally:
            decode_large.set()
            await asyncio.gather(*waiting)

    futures = engine.submit([large] * 12 + [medium] * 12)
    try:
        assert engine.submit([small])[0].result(30)
        asyncio.run(explain())
    finally:
        decode_large.set()
    assert all(future.result() for future in futures)
    assert engine.n_waiting == 0


def test_an_ensemble_is_one_network_and_a_folder_stands_for_its_runs(
    trained: Path, runs: list[Path], images: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    build_ensemble([Run(tmp_path / "runs" / run.name) for run in runs], tmp_path / "both")
    engine = Engine([tmp_path / "runs", tmp_path / "both"])
    assert list(engine.networks) == ["plain20", "resnet20", "both"]
    (future,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    assert future.result()["both"].probabilities.sum() == pytest.approx(1)
    engine.close()


def test_a_run_that_is_named_twice_is_rejected(runs: list[Path]) -> None:
    with pytest.raises(ParfocalError, match="resnet20 is named twice"):
        Engine([runs[0], runs[0]])
