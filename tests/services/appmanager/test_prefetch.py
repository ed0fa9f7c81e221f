"""How many calls may wait: by time, not by number."""

from shoal_gateway.appmanager import prefetch
from shoal_gateway.appmanager.prefetch import Prefetch


def kind(name):
    application, _, function = name.partition(" ")
    return application, function or "functions:it"


def filled(room, name, slots=1, now=0.0):
    """How many find room."""
    count = 0
    while room.room(kind(name), slots, now):
        room.add(f"{name} {count}", kind(name))
        count += 1
    return count


def known(*calls):
    room = Prefetch()
    for name, seconds in calls:
        room.ended(kind(name), seconds)
    return room


def test_a_function_that_nothing_is_known_of_has_no_room():
    assert filled(Prefetch(), "new@1", 4) == 0
    assert filled(known(("old@1 a:quick", 0.001)), "old@1 a:other", 4) == 0


def test_room_is_for_so_much_work_as_the_slots_do_in_a_moment():
    room = known(("wait@1", 0.1))
    assert filled(room, "wait@1", 2) == 2 * prefetch.AHEAD / 0.1
    # Whatever it is of: what waits is in the way of all.
    assert filled(room, "wait@1", 2) == 0
    room.remove("wait@1 0")
    assert filled(room, "wait@1", 2) == 1


def test_what_one_function_takes_says_nothing_of_another_of_its_application():
    room = known(*[("app@1 f:long", 60.0)], *[("app@1 f:short", 0.001)] * 50)
    assert filled(room, "app@1 f:long", 2) == 0
    assert filled(room, "app@1 f:short", 2) > 100
    room = known(*[("app@1 f:short", 0.001)], *[("app@1 f:long", 60.0)] * 50)
    assert filled(room, "app@1 f:short", 2) > 100


def test_long_calls_have_none_and_the_shortest_are_bounded_by_number():
    room = known(("long@1", 3600.0), ("noop@1", 0.0))
    assert filled(room, "long@1", 2) == 0
    assert filled(room, "noop@1", 2) == prefetch.MOST


def test_nothing_waits_for_a_slot_that_will_not_be_free():
    room = known(("long@1", 60.0), ("wait@1", 0.1))
    # Commands have all.
    assert filled(room, "wait@1", 0) == 0
    room.called("a", kind("long@1"), 0.0)
    assert filled(room, "wait@1", 1) == 0
    assert filled(room, "wait@1", 2) == prefetch.AHEAD / 0.1
    room.remove("a")
    assert filled(room, "wait@1", 2) == prefetch.AHEAD / 0.1


def test_a_call_that_is_nearly_done_or_unexpectedly_long_is_seen():
    room = known(("odd@1", 1.0), ("wait@1", 0.1))
    room.called("a", kind("odd@1"), 0.0)
    assert not room.room(kind("wait@1"), 1, 0.1)
    assert room.room(kind("wait@1"), 1, 0.5)
    room.remove("a")
    room.called("b", kind("wait@1"), 0.0)
    assert room.room(kind("wait@1"), 1, 0.1)
    assert not room.room(kind("wait@1"), 1, 0.7)
    room.remove("b")
    room.called("c", kind("new@1"), 0.0)
    assert not room.room(kind("wait@1"), 1, 0.1)


def test_what_is_taken_away_leaves_nothing_behind():
    room = Prefetch()
    for seconds in (0.0123, 0.1, 0.0007):
        room.ended(kind("odd@1"), seconds)
        room.add(f"{seconds}", kind("odd@1"))
    room.called("0.1", kind("odd@1"), 0.0)
    for seconds in (0.0123, 0.1, 0.0007, 0.1):
        room.remove(f"{seconds}")
    fresh = known(*[("odd@1", seconds) for seconds in (0.0123, 0.1, 0.0007)])
    assert filled(room, "odd@1") == filled(fresh, "odd@1") > 0


def test_the_mean_follows_what_calls_take_now():
    room = known(("import@1", 1.0))
    assert not room.room(kind("import@1"), 1, 0.0)
    for _ in range(50):
        room.ended(kind("import@1"), 0.001)
    assert filled(room, "import@1") > 100
