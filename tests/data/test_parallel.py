"""Files are processed in threads, with the results in order; an unreadable image yields its reason."""

from collections.abc import Iterator
from itertools import count

from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.errors import UnreadableImageError


def test_results_come_in_order_and_only_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def take() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    results = map_ordered(take(), lambda number: number**2, "Squaring", workers=2)
    assert [next(results) for _ in range(100)] == [number**2 for number in range(100)]
    results.close()
    assert len(taken) < 150


def test_an_unreadable_image_yields_its_reason() -> None:
    def read(name: str) -> int:
        if name == "bad":
            raise UnreadableImageError("the file is empty")
        return len(name)

    assert list(map_ordered(["good", "bad"], catch_unreadable(read), "Reading")) == [4, "the file is empty"]
