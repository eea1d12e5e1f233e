"""What the broker does to us is in the log once."""

import pytest

from common.queue.rabbitmq.notices import QUIET, Notices


def test_the_same_words_are_written_again_only_after_a_silence(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    notices = Notices(lambda: now)
    for _ in range(4):  # each connection hears them
        notices.say("shut down")
        now += QUIET - 1
    notices.say("another")
    now += 2
    notices.say("shut down")
    assert caplog.messages == ["shut down", "another", "shut down"]
