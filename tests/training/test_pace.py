"""The pace of training."""

from parfocal.training.pace import measure_pace


def test_a_deeper_network_trains_on_fewer_pixels_a_second() -> None:
    assert measure_pace("resnet56") < measure_pace("resnet20")
