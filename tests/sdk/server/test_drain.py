"""The order of a drain, decided on a clock that the test holds."""

import json
import threading

import pytest

from shoal.drain import FAREWELL, NOTICE, REFUSING_TIME, Drain, Phase, Roster
from shoal.drainreport import Caller, DrainReport

A, B = "ipv4:10.0.0.1:4001", "ipv4:10.0.0.2:4002"


class Kernel:
    """Who is connected, as the test says."""

    def __init__(self, *peers):
        self.peers = set(peers)

    def __call__(self):
        return self.peers


def leaving(roster, *, linger=5.0, grace=30.0, told=True):
    drain = Drain(roster, 100.0, linger=linger, grace=grace)
    if told:
        drain.told(100.0)
    return drain


def test_a_replica_that_nobody_knows_still_gives_the_notice_time_to_arrive():
    roster = Roster(lambda: None)
    drain = leaving(roster)
    assert drain.step(100.0 + NOTICE - 0.01) is not None
    assert roster.phase is Phase.LEAVING
    assert drain.step(100.0 + NOTICE) is None
    assert roster.phase is Phase.STOPPING


def test_it_serves_on_until_the_last_caller_has_released_it():
    roster = Roster(lambda: None)
    roster.hello("a", A)
    roster.hello("b", B)
    drain = leaving(roster)
    roster.released("a")
    assert drain.step(102.0) is not None
    assert roster.phase is Phase.LEAVING
    roster.released("b")
    assert drain.step(102.1) is None
    assert drain.ended(102.2) == DrainReport(
        confirmed=(Caller("a", A), Caller("b", B)), seconds=pytest.approx(2.2)
    )


def test_a_silent_caller_holds_it_for_the_linger_and_is_refused_after_that():
    roster = Roster(lambda: None)
    roster.hello("a", A)
    drain = leaving(roster, linger=5.0)
    drain.step(104.9)
    assert roster.phase is Phase.LEAVING
    assert drain.step(105.0) is not None
    assert roster.phase is Phase.REFUSING
    assert drain.step(105.0 + REFUSING_TIME) is None
    report = drain.ended(106.0)
    assert report.silent == (Caller("a", A),)


def test_it_refuses_and_keeps_the_port_open_while_a_call_runs():
    roster = Roster(lambda: None)
    roster.begin()
    drain = leaving(roster, grace=30.0)
    assert drain.step(110.0) is not None
    assert roster.phase is Phase.REFUSING
    assert drain.step(139.9) is not None
    roster.end()
    assert drain.step(139.95) is None


def test_the_grace_ends_what_does_not_end():
    roster = Roster(lambda: None)
    roster.begin()
    drain = leaving(roster, grace=30.0)
    drain.step(101.0)
    assert drain.step(131.0) is None
    assert drain.cut(131.0)
    assert drain.ended(132.0).unfinished == 1


def test_health_watches_do_not_hold_it_up_when_no_call_runs_any_more():
    roster = Roster(lambda: None)
    drain = leaving(roster, grace=30.0)
    assert drain.step(101.0) is None
    assert not drain.cut(101.0)
    assert not drain.cut(101.0 + FAREWELL - 0.01)
    assert drain.cut(101.0 + FAREWELL)


def test_a_call_that_begins_late_is_given_the_rest_of_the_grace():
    roster = Roster(lambda: None)
    drain = leaving(roster, grace=30.0)
    drain.step(101.0)
    assert drain.rest(101.0) > 30.0
    drain.cut(101.0)
    roster.begin()
    assert not drain.cut(101.0 + 2 * FAREWELL)
    roster.end()
    assert not drain.cut(110.0)
    assert drain.cut(110.0 + FAREWELL)


def test_a_second_signal_ends_all_waiting():
    roster = Roster(lambda: None)
    roster.hello("a", A)
    roster.begin()
    drain = leaving(roster)
    drain.step(100.1)
    drain.hurry()
    assert drain.step(100.2) is None
    assert drain.rest(100.2) == 0.0
    roster.end()
    assert drain.cut(100.2)
    assert drain.ended(100.3).unfinished == 1


def test_without_the_directory_nobody_is_waited_for_but_refused():
    roster = Roster(lambda: None)
    roster.hello("a", A)
    drain = leaving(roster, told=False)
    assert drain.step(100.0) is not None
    assert roster.phase is Phase.REFUSING
    assert drain.step(100.0 + REFUSING_TIME) is None


def test_a_stranger_that_still_calls_is_given_the_linger():
    roster = Roster(lambda: None)
    drain = leaving(roster, linger=5.0)
    roster.called(B)
    drain.step(103.0)
    assert roster.phase is Phase.LEAVING
    drain.step(105.0)
    assert roster.phase is Phase.REFUSING
    report = drain.ended(105.0)
    assert report.unknown == (B,)


def test_a_call_that_overtook_its_hello_makes_no_stranger():
    roster = Roster(lambda: None)
    leaving(roster)
    roster.called(A)
    assert roster.strangers == 1
    roster.hello("a", A)
    assert roster.strangers == 0


def test_a_caller_whose_connection_has_ended_is_gone():
    kernel = Kernel(A, B)
    roster = Roster(lambda: None, kernel)
    roster.hello("a", A)
    roster.hello("b", B)
    drain = leaving(roster)
    kernel.peers = {B}
    roster.look()
    assert roster.remaining == 1
    roster.released("b")
    assert drain.step(101.0) is None
    report = drain.ended(101.0)
    assert report.confirmed == (Caller("b", B),)
    assert report.gone == (Caller("a", A),)
    assert report.silent == ()


def test_a_caller_that_may_have_connected_anew_is_not_gone():
    kernel = Kernel(A)
    roster = Roster(lambda: None, kernel)
    roster.hello("a", A)
    drain = leaving(roster)
    kernel.peers = {"ipv4:10.0.0.1:4999"}
    roster.look()
    assert roster.remaining == 1
    assert drain.ended(101.0).gone == ()


def test_who_says_hello_while_the_connections_are_read_is_not_gone():
    # The kernel's list is older than the hello: it does not have the connection yet.
    peers = {A}

    def connections():
        if B not in peers:
            before = set(peers)
            peers.add(B)
            roster.hello("b", B)
            return before
        return peers

    roster = Roster(lambda: None, connections)
    roster.hello("a", A)
    drain = leaving(roster)
    roster.look()
    roster.look()
    roster.released("a")
    roster.released("b")
    report = drain.ended(101.0)
    assert report.confirmed == (Caller("a", A), Caller("b", B))
    assert (report.gone, report.unknown) == ((), ())


def test_connections_that_never_said_hello_are_unknown_and_released_ones_are_not():
    kernel = Kernel(A, B)
    roster = Roster(lambda: None, kernel)
    roster.hello("a", A)
    drain = leaving(roster)
    roster.released("a")
    roster.look()
    report = drain.ended(101.0)
    assert report.unknown == (B,)


def test_who_left_before_the_drain_is_not_counted():
    roster = Roster(lambda: None)
    roster.hello("a", A)
    roster.released("a")
    assert leaving(roster).ended(101.0).confirmed == ()


def test_callers_that_died_do_not_pile_up():
    kernel = Kernel(B)
    roster = Roster(lambda: None, kernel)
    roster.hello("b", B)
    for number in range(2000):
        roster.hello(f"dead-{number}", f"ipv4:10.0.0.1:{number}")
    assert roster.remaining < 300
    kernel.peers = {B}
    roster.look()
    assert roster.remaining == 1


def test_looks_are_spaced():
    drain = leaving(Roster(lambda: None))
    assert drain.due(100.0)
    assert not drain.due(100.1)
    assert drain.due(100.3)


def test_ends_wake_the_server_only_while_it_leaves():
    woken = []
    roster = Roster(lambda: woken.append(True))
    roster.begin()
    roster.end()
    assert woken == []
    leaving(roster)
    roster.begin()
    roster.end()
    assert woken == [True]


def test_running_calls_are_counted_exactly_by_many_threads():
    roster = Roster(lambda: None)

    def work():
        for _ in range(20_000):
            roster.begin()
            roster.end()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert roster.running == 0


REPORT = DrainReport(
    confirmed=(Caller("api@web.7.1", A), Caller("api@web.7.2", A)),
    silent=(Caller("locust@box.8.1", B),),
    unknown=(A,),
    refused=3,
    seconds=5.25,
)


def test_a_report_reads_well():
    assert str(REPORT) == (
        "drained in 5.25 s: callers 2 confirmed, 1 silent (locust@box.8.1 at ipv4:10.0.0.2:4002), "
        "0 gone, 1 unknown (ipv4:10.0.0.1:4001); calls 3 refused, 0 cut off"
    )


def test_a_report_goes_through_json_on_one_line():
    line = REPORT.to_json(service="api", replica="api-1")
    assert "\n" not in line
    assert json.loads(line)["replica"] == "api-1"
    assert json.loads(line)["confirmed"][0] == {"id": "api@web.7.1", "peer": A}
    assert DrainReport.from_json(line) == REPORT


@pytest.mark.parametrize("line", ["{}", "[]", '{"confirmed": [{}]}', "no json"])
def test_what_is_no_report_is_not_read_as_one(line):
    with pytest.raises(ValueError, match=r"report|Expecting"):
        DrainReport.from_json(line)
