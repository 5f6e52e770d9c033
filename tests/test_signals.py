"""common/signals.py: noted in a block, raised where nothing is lost; at once elsewhere."""

import signal

import pytest

from common import signals


@pytest.fixture(autouse=True)
def handled():
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.getsignal(number) for number in numbers]
    signals.install()
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def kill(number=signal.SIGTERM):
    signal.raise_signal(number)


def test_outside_a_block_a_signal_ends_the_script_at_once():
    with pytest.raises(signals.Stopped) as stopped:
        kill(signal.SIGINT)
    assert stopped.value.code == 130
    signals.check()  # nothing is noted


def test_in_a_block_it_is_noted_until_the_end():
    done = []
    with pytest.raises(signals.Stopped) as stopped, signals.held():
        kill()
        kill(signal.SIGINT)  # the first one counts
        done.append("all")
    assert (stopped.value.code, done) == (143, ["all"])
    signals.check()
    with signals.held():
        signals.check()


def test_in_a_block_it_stops_where_it_may():
    with pytest.raises(signals.Stopped), signals.held():
        kill()
        signals.check()
        raise AssertionError("check() should have stopped it")


def test_an_error_in_a_block_is_the_one_that_is_heard():
    with pytest.raises(ZeroDivisionError), signals.held():
        kill()
        _ = 1 / 0
    with pytest.raises(signals.Stopped):  # and signals stop it at once again
        kill()


def test_a_second_signal_stops_what_hangs_but_no_saving(monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", -1.0)
    with pytest.raises(signals.Stopped), signals.held():
        kill()
        kill()
        raise AssertionError("the second one should have stopped it")
    saved = []
    with pytest.raises(signals.Stopped), signals.held():
        signals.hold_to_the_end()
        kill()
        kill()
        saved.append("all")
    assert saved
