"""The queue ahead of a resting order, judged from levels and prints in either order."""

from hypothesis import given
from hypothesis import strategies as st

from pmkit.exchanges.paper.queue import GRACE_NS, QueueModel, QueuePlace

MODELS = list(QueueModel)
LATER = GRACE_NS + 1


def test_a_print_first_uses_up_the_queue_and_only_then_reaches_us() -> None:
    for model in MODELS:
        place = QueuePlace(model, 100)
        assert place.on_print(60, 0) == 0 and place.ahead == 40
        place.on_level(40, 1)
        assert place.on_print(70, 2) == 30 and place.ahead == 0


def test_the_book_may_tell_of_a_print_before_the_print_comes() -> None:
    for model in MODELS:
        place = QueuePlace(model, 100)
        place.on_level(40, 0)
        assert place.ahead == 100, "not yet: the print may still come"
        assert place.on_print(60, GRACE_NS // 2) == 0
        place.settle(LATER)
        assert place.ahead == 40, "one trade, counted once"


def test_whose_cancels_is_the_difference_between_the_models() -> None:
    ahead = {}
    for model in MODELS:
        place = QueuePlace(model, 100)
        place.on_level(160, 0)  # 60 join behind us
        place.on_level(80, 1)  # 80 cancel
        place.settle(LATER)
        ahead[model] = place.ahead
    assert ahead[QueueModel.PESSIMISTIC] == 80, "at most 60 of 80 can have been behind us"
    assert ahead[QueueModel.OPTIMISTIC] == 20
    assert ahead[QueueModel.MIDDLE] == 50


EVENTS = st.lists(st.tuples(st.sampled_from(("level", "print")), st.integers(0, 200)), max_size=40)


@given(st.integers(0, 200), EVENTS)
def test_the_models_are_a_band(start: int, events: list[tuple[str, int]]) -> None:
    """Pessimistic is never ahead of middle, middle never of optimistic; nothing goes below zero or reaches us too
    early.
    """
    reached = dict.fromkeys(MODELS, 0)
    places = {model: QueuePlace(model, start) for model in MODELS}
    for step, (kind, size) in enumerate(events):
        now = step * GRACE_NS // 3
        for model, place in places.items():
            before = place.ahead
            if kind == "level":
                place.on_level(size, now)
            else:
                got = place.on_print(size, now)
                assert 0 <= got <= size and (got == 0 or place.ahead == 0)
                reached[model] += got
            assert 0 <= place.ahead <= before
        assert (
            places[QueueModel.PESSIMISTIC].ahead
            >= places[QueueModel.MIDDLE].ahead
            >= places[QueueModel.OPTIMISTIC].ahead
        )
    assert reached[QueueModel.PESSIMISTIC] <= reached[QueueModel.MIDDLE] <= reached[QueueModel.OPTIMISTIC]
