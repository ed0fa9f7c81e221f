"""How many calls may wait: by time, not by number."""

from shoal_gateway.appmanager import prefetch
from shoal_gateway.appmanager.prefetch import Prefetch


def filled(room, application):
    """How many find room."""
    count = 0
    while room.room(application):
        room.add(f"{application} {count}", application)
        count += 1
    return count


def test_an_application_that_nothing_is_known_of_has_no_room():
    assert filled(Prefetch(4), "new@1") == 0


def test_room_is_for_so_much_work_as_the_slots_do_in_a_moment():
    room = Prefetch(2)
    room.ended("wait@1", 0.1)
    assert filled(room, "wait@1") == 2 * prefetch.AHEAD / 0.1
    # Whatever it is of: what waits is in the way of all.
    assert filled(room, "wait@1") == 0
    room.remove("wait@1 0")
    assert filled(room, "wait@1") == 1


def test_long_calls_have_none_and_the_shortest_are_bounded_by_number():
    room = Prefetch(2)
    room.ended("long@1", 3600.0)
    room.ended("noop@1", 0.0)
    assert filled(room, "long@1") == 0
    assert filled(room, "noop@1") == prefetch.MOST


def test_what_is_taken_away_leaves_nothing_behind():
    room = Prefetch(1)
    for seconds in (0.0123, 0.1, 0.0007):
        room.ended("odd@1", seconds)
        room.add(f"{seconds}", "odd@1")
    for seconds in (0.0123, 0.1, 0.0007, 0.1):
        room.remove(f"{seconds}")
    fresh = Prefetch(1)
    for seconds in (0.0123, 0.1, 0.0007):
        fresh.ended("odd@1", seconds)
    assert filled(room, "odd@1") == filled(fresh, "odd@1") > 0


def test_the_mean_follows_what_calls_take_now():
    room = Prefetch(1)
    room.ended("import@1", 1.0)
    assert not room.room("import@1")
    for _ in range(50):
        room.ended("import@1", 0.001)
    assert filled(room, "import@1") > 100
