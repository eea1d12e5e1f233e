"""When a queue of RabbitMQ is called dead."""

import asyncio
from contextlib import suppress

from common.queue.rabbitmq.silence import DEAD_AFTER, FORGET_AFTER, Silence, sentence


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def hang(silence: Silence, clock: Clock, seconds: float, queue: str = "q") -> None:
    with suppress(asyncio.CancelledError), silence.awaiting(queue):
        clock.now += seconds
        raise asyncio.CancelledError


def test_a_queue_that_confirms_nothing_for_so_long_is_dead_and_alive_with_its_first_confirm() -> None:
    clock = Clock()
    silence = Silence(clock)
    hang(silence, clock, 2)
    assert silence.dead() == ()
    clock.now += DEAD_AFTER - 4
    hang(silence, clock, 2)
    assert silence.dead() == ("q",)
    with silence.awaiting("other"):
        pass
    assert silence.dead() == ("q",), "another queue's confirm says nothing of this one"
    with silence.awaiting("q"):
        pass
    assert silence.dead() == ()


def test_a_refusal_is_an_answer() -> None:
    clock = Clock()
    silence = Silence(clock)
    hang(silence, clock, DEAD_AFTER)
    with suppress(RuntimeError), silence.awaiting("q"):
        raise RuntimeError("the broker is away, or refuses")
    assert silence.dead() == ()


def test_two_failures_that_lie_far_apart_are_no_silence_and_one_of_long_ago_is_forgotten() -> None:
    clock = Clock()
    silence = Silence(clock)
    hang(silence, clock, 2)
    clock.now += FORGET_AFTER
    hang(silence, clock, 2)
    assert silence.dead() == ()
    silence.broke("q")
    assert silence.dead() == ("q",)
    clock.now += FORGET_AFTER
    assert silence.dead() == ()


def test_what_is_said_names_the_queue_and_the_command_that_mends_it() -> None:
    assert "hookmirror.live takes nothing" in sentence(("hookmirror.live",))
    assert "revive.erl" in sentence(("hookmirror.live",))
