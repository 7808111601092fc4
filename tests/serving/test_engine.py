"""Files in, answers out: the same as predicting, gathered into batches, bounded, and none lost."""

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
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.evaluation.ensemble import build_ensemble
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.predictor import PredictedBatch, Predictor, PreparedViews
from parfocal.run import Run
from parfocal.schema import ImagesConfig
from parfocal.serving.engine import Engine
from parfocal.serving.limits import Limits, RequestError
from tests.data.example_files import encode_with_pillow


@pytest.fixture(scope="module")
def engine(runs: list[Path]) -> Iterator[Engine]:
    made = Engine(runs)
    yield made
    made.close()


@pytest.fixture
def held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Keep networks from answering until the event is set."""
    go, plain = Event(), Predictor.predict

    def answer(self: Predictor, images: list[PreparedViews]) -> PredictedBatch:
        go.wait()
        return plain(self, images)

    monkeypatch.setattr(Predictor, "predict", answer)
    yield go
    go.set()


def test_serving_says_what_predicting_and_the_evaluation_said(
    engine: Engine, runs: list[Path], trained: Path, images: dict[str, bytes], tmp_path: Path
) -> None:
    asked = [one.result() for one in engine.submit(list(images.values()))]
    for run in runs:
        said = [one[run.name] for one in asked]
        table = parfocal.predict(run, [trained / "cells" / "resnet_18_test.csv"], tmp_path / "out.csv").path
        rows = pd.read_csv(table, keep_default_na=False).set_index("id").loc[list(images)]
        columns = [f"probability:{name}" for name in engine.networks[run.name].predictor.classes]
        np.testing.assert_allclose([one.probabilities for one in said], rows[columns], atol=1e-6)
        classes = np.array(engine.networks[run.name].predictor.classes)
        assert [classes[one.label] for one in said] == rows["predicted"].tolist()
        for name in ("positive", "referred"):
            if name in rows:
                assert [getattr(one, name) for one in said] == rows[name].astype(bool).tolist()
        assert [" ".join(one.unusual) for one in said] == rows["unusual"].tolist()
        judged = Predictions.load(Run(run).predictions_path("test"))
        calibrated = engine.networks[run.name].predictor.decision.calibrate(judged).probabilities
        order = [judged.ids.index(one) for one in images]
        np.testing.assert_allclose([one.probabilities for one in said], calibrated[order], atol=1e-6)


def test_what_comes_meanwhile_is_one_batch(engine: Engine, held: Event, images: dict[str, bytes]) -> None:
    network = engine.networks["resnet20"]
    before, answered = network.n_batches, network.n_predicted
    asked = engine.submit(list(images.values()) * 8, ["resnet20"])
    held.set()
    wait(asked)
    assert network.n_predicted - answered == len(asked) == 96
    assert network.n_batches - before <= 6


def test_a_full_queue_refuses_and_loses_nothing(
    runs: list[Path], images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Engine(runs, Limits(max_waiting_images=8))
    go, plain = Event(), Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, images: (go.wait(), plain(self, images))[1])
    some = list(images.values())
    accepted = small.submit(some[:6])
    with pytest.raises(RequestError, match="6 images are waiting already") as refused:
        small.submit(some[:3])
    assert refused.value.status == 503
    accepted += small.submit(some[:2])
    go.set()
    small.close()
    assert all(set(one.result()) == {"resnet20", "plain20"} for one in accepted)
    assert small.n_waiting == 0


def test_only_the_named_networks_answer(engine: Engine, images: dict[str, bytes]) -> None:
    (one,) = engine.submit([images["./new_dataset/test/0.bmp"]], ["plain20"])
    assert set(one.result()) == {"plain20"}
    with pytest.raises(RequestError, match=r"There is no network 'resnet2'\. Did you mean 'resnet20'"):
        engine.submit([b""], ["resnet2"])
    assert engine.n_waiting == 0


def test_networks_that_want_an_image_alike_have_it_prepared_once(
    engine: Engine, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[ImagesConfig] = []

    def counted(source: bytes, part: ImagesConfig) -> tuple[Pixels, ImageInfo]:
        prepared.append(part)
        return prepare_image(source, part)

    monkeypatch.setattr("parfocal.evaluation.predictor.prepare_image", counted)
    (future,) = engine.submit([next(iter(images.values()))])
    assert len(future.result()) == len(engine.networks) > 1
    assert len(prepared) == 1


def test_one_that_cannot_be_read_says_so_and_the_others_are_answered(engine: Engine, images: dict[str, bytes]) -> None:
    good = images["./new_dataset/test/0.bmp"]
    first, bad, last = engine.submit([good, b"nonsense", good])
    with pytest.raises(UnreadableImageError, match="text, not an image"):
        bad.result()
    np.testing.assert_array_equal(first.result()["plain20"].probabilities, last.result()["plain20"].probabilities)
    assert engine.n_waiting == 0
    assert all(network.n_decoding == 0 for network in engine.networks.values())


def test_what_goes_wrong_in_a_network_reaches_the_one_who_asked(
    engine: Engine, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "predict", lambda self, images: 1 / 0)
    (one,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    with pytest.raises(ZeroDivisionError):
        one.result()
    monkeypatch.undo()
    (one,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    assert one.result()


def test_large_pictures_are_read_and_absurd_ones_refused(runs: list[Path]) -> None:
    engine = Engine(runs[:1], Limits(max_pixels=9_000_000))
    large, absurd = (encode_with_pillow(Image.new("L", (3000, side)), "PNG") for side in (2900, 3100))
    first, second = engine.submit([large, absurd])
    assert first.result()
    with pytest.raises(UnreadableImageError, match="declares 3000 × 3100 pixels, more than 9 million"):
        second.result()
    engine.close()


def test_an_ensemble_answers_as_one_and_a_folder_stands_for_its_runs(
    trained: Path, runs: list[Path], images: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    build_ensemble([Run(tmp_path / "runs" / run.name) for run in runs], tmp_path / "both")
    engine = Engine([tmp_path / "runs", tmp_path / "both"])
    assert list(engine.networks) == ["plain20", "resnet20", "both"]
    (one,) = engine.submit([images["./new_dataset/test/0.bmp"]])
    assert one.result()["both"].probabilities.sum() == pytest.approx(1)
    engine.close()


def test_a_run_that_is_named_twice_is_refused(runs: list[Path]) -> None:
    with pytest.raises(ParfocalError, match="resnet20 is named twice"):
        Engine([runs[0], runs[0]])
