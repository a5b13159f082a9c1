"""The event stream: counted always, shown to whoever listens."""

from __future__ import annotations

from kvmvfio_emu.engine.clock import Clock
from kvmvfio_emu.engine.trace import Event, Trace


def test_events_are_counted_without_listeners() -> None:
    trace = Trace(Clock())
    trace.event("work", gsi=1)
    trace.event("work", gsi=2)
    assert trace.counters == {"work": 2}
    assert trace.counters["never"] == 0


def test_listeners_see_what_happens_from_then_on_with_its_time() -> None:
    clock = Clock()
    trace, seen = Trace(clock), []
    trace.event("before")
    stop = trace.listen(seen.append)
    clock.advance(7)
    trace.event("work", gsi=3)
    stop()
    trace.event("after")
    assert seen == [Event(7, "work", {"gsi": 3}, number=1)]
    assert trace.counters == {"before": 1, "work": 1, "after": 1}


def test_each_listener_ends_for_itself() -> None:
    trace, one, two = Trace(Clock()), [], []
    stop_one, stop_two = trace.listen(one.append), trace.listen(two.append)
    trace.event("a")
    stop_one()
    trace.event("b")
    stop_two()
    assert ([event.name for event in one], [event.name for event in two]) == (["a"], ["a", "b"])


def test_a_listener_may_end_itself_and_others_still_hear() -> None:
    trace, seen = Trace(Clock()), []
    stop = trace.listen(lambda event: stop())
    trace.listen(lambda event: seen.append(event.name))
    trace.event("a")
    trace.event("b")
    assert seen == ["a", "b"]


def test_an_event_is_counted_before_it_is_shown() -> None:
    trace, counts = Trace(Clock()), []
    trace.listen(lambda event: counts.append(trace.counters[event.name]))
    trace.event("a")
    trace.event("a")
    assert counts == [1, 2]


def test_events_know_the_one_in_whose_handling_they_happened() -> None:
    trace, seen = Trace(Clock()), []
    trace.listen(seen.append)
    outside = trace.begin("a")
    trace.event("b")
    inner = trace.begin("c")
    trace.event("d")
    trace.end(inner)
    trace.event("e")
    trace.end(outside)
    trace.event("f")
    causes = {event.name: event.cause for event in seen}
    numbers = {event.name: event.number for event in seen}
    assert causes == {"a": 0, "b": numbers["a"], "c": numbers["a"], "d": numbers["c"], "e": numbers["a"], "f": 0}


def test_the_cause_of_what_is_put_off_is_found_again() -> None:
    trace, seen = Trace(Clock()), []
    trace.listen(seen.append)
    before = trace.begin("line_up")
    trace.remember("interrupt 34")
    trace.end(before)
    assert trace.origin("interrupt 35") == 0
    before = trace.resume(trace.origin("interrupt 34"))
    trace.event("host_irq")
    trace.end(before)
    assert (seen[1].name, seen[1].cause) == ("host_irq", seen[0].number)
    assert trace.cause == 0


def test_without_listeners_nothing_is_numbered_or_kept() -> None:
    trace = Trace(Clock())
    before = trace.begin("a")
    trace.remember("later")
    assert (trace.number, trace.cause, trace.origin("later")) == (0, 0, 0)
    trace.end(before)
    stop = trace.listen(lambda event: None)
    trace.begin("b")
    trace.remember("later")
    stop()
    assert (trace.listening, trace.cause, trace.origin("later")) == (False, 0, 0)
