"""The plan of a capacity run, its meters' sums, its report and its pictures."""

import json

import pytest

from shoal_gateway.experiments import capacity_meters, capacity_plan, capacity_plots
from shoal_gateway.experiments.capacity import expected
from shoal_gateway.experiments.capacity_analysis import OTHERS, Load, Result
from shoal_gateway.experiments.capacity_meters import JOBS, Sample, summary
from shoal_gateway.experiments.capacity_plan import BURN, NOOP, WAIT, Step
from shoal_gateway.experiments.capacity_report import line, report


def test_steps_have_names_of_their_own_and_both_fleets_the_same_kinds():
    steps = capacity_plan.full(50)

    assert len({each.name for each in steps}) == len(steps)
    kinds = [{each.kind for each in steps if each.replicas == of} for of in capacity_plan.FLEETS]
    assert kinds[0] == kinds[1] == {WAIT, BURN, NOOP}
    # Rates alike for both fleets where the machine and not the fleet is the limit.
    for kind in (BURN, NOOP):
        rates = [
            [each.rate for each in steps if (each.kind, each.replicas) == (kind, of)]
            for of in capacity_plan.FLEETS
        ]
        assert rates[0] == rates[1]


def test_a_reduced_run_has_as_many_jobs_as_asked_for():
    steps = capacity_plan.reduced(31)
    assert sum(each.jobs for each in steps) == 31
    assert [bool(each.rate) for each in steps] == [True, False]


def test_each_kind_is_told_what_its_application_takes_and_promises_what_that_writes():
    by_kind = {each.kind: each for each in capacity_plan.full(10)}
    assert by_kind[BURN].parameters == {"seconds": "0.5"}
    assert by_kind[NOOP].parameters == {}
    assert set(expected(by_kind[BURN].application, by_kind[BURN].parameters)) == {"burn.json"}
    assert expected(by_kind[NOOP].application, by_kind[NOOP].parameters) == {}


@pytest.mark.parametrize("plan", [capacity_plan.full, capacity_plan.reduced])
def test_too_few_jobs_are_refused(plan):
    with pytest.raises(ValueError, match="or more"):
        plan(4)


def test_processor_time_is_summed_by_service_and_the_rest_is_others():
    first = Sample(10.0, 100.0, {"api-1": 5.0, "api-2": 5.0, JOBS: 2.0}, running=1, queued=0)
    last = Sample(14.0, 106.0, {"api-1": 6.0, "api-2": 7.0, JOBS: 4.0}, running=3, queued=8)

    found = summary([first, last], {"api-1": "api", "api-2": "api"}, slots=4, cores=2)

    assert found.machine == 1.5
    assert found.services == {"api": 0.75, JOBS: 0.5, OTHERS: 0.25}
    assert found.busiest == ("api-2", 0.5)
    assert (found.slots_used, found.queued, found.most_queued) == (0.5, 4.0, 8)


def test_what_has_ended_by_the_last_look_counts_until_then():
    looks = [
        Sample(at, 0.0, {"api-1": 1.0, capacity_meters.LOAD: used}, running=0, queued=0)
        for at, used in ((0.0, 0.5), (1.0, 1.5), (2.0, 0.0))
    ]
    found = summary(looks, {"api-1": "api"}, slots=1, cores=2)
    assert found.services[capacity_meters.LOAD] == 0.5


def test_one_look_says_nothing_of_a_rate():
    with pytest.raises(ValueError, match="needs two"):
        summary([Sample(1.0, 1.0, {}, 0, 0)], {}, slots=1, cores=1)


def measured(kind, replicas, rate, achieved, *, jobs=20, failed=0, machine=0.5, slots_used=0.3):
    step = Step(kind, replicas, jobs, rate)
    latency = {"p50": 0.6, "p95": 0.9, "p99": 1.0, "max": 1.2}
    failures = {"later than 20 s": failed} if failed else {}
    found = Result(rate, achieved, jobs, jobs, jobs - failed, failures, latency, (0.0, 9.0))
    services = {"registry": 0.2, JOBS: machine - 0.2}
    seen = Load(machine, 2, services, ("registry-1", 0.2), slots_used, 6, 0.0, 3)
    return step, found, seen, [{"service": "api", "replica": "api-1", "calls": jobs}]


SETTINGS = {"patience_seconds": 20.0, "slots_of_each_manager": 2, "seed": 1}


def rows():
    found = []
    for replicas in (1, 3):
        top = 2.0 * replicas
        found += [
            measured(WAIT, replicas, top * 0.5, top * 0.5),
            measured(WAIT, replicas, top * 2.0, top, slots_used=0.9),
            measured(WAIT, replicas, 0.0, top, jobs=20),
            measured(WAIT, replicas, 0.0, top, jobs=80, failed=4 if replicas == 1 else 0),
            measured(BURN, replicas, 1.0, 1.0),
            measured(BURN, replicas, 5.0, 3.0, machine=1.98),
            measured(NOOP, replicas, 4.0, 4.0),
        ]
    return found


def test_the_report_names_the_knee_the_first_failing_n_and_what_is_full():
    made = report(rows(), SETTINGS)

    wait = made["series"]["wait-1"]
    assert wait["knee"] == {"below": 1.0, "above": 4.0, "ceiling": 2.0}
    assert wait["saturated"][0].startswith("appmanager")
    assert (wait["first_failing_n"], wait["most_n"]) == (80, 80)
    assert made["series"]["wait-3"]["first_failing_n"] is None
    assert made["series"]["burn-3"]["saturated"][0].startswith("the machine")
    assert made["series"]["noop-1"]["knee"]["above"] is None
    said = "\n".join(made["findings_of_load"])
    assert "jobs that wait 0.5 s: 3 replicas of each service do 3.00 times what 1 does" in said
    assert "jobs that compute for 0.5 s: 3 replicas of each service do 1.00 times" in said
    assert "jobs fail from N = 80 on" in said
    assert "no job failed up to N = 80" in said
    assert "no knee was reached" in said
    assert made["not_in_time"] == {"later than 20 s": 4}
    assert made["succeeded_in_time"] == made["offered"] - 4
    # Two that kept up with all they were offered can't be compared.
    assert "functions that do nothing, in warm workers: 3" not in said
    assert json.dumps(made, allow_nan=False)


def test_a_step_that_others_disturbed_is_named():
    step, found, seen, spread = measured(WAIT, 1, 2.0, 1.5)
    seen.services[OTHERS] = 0.7

    made = report([(step, found, seen, spread), measured(WAIT, 1, 1.0, 1.0)], SETTINGS)

    first, second = made["series"]["wait-1"]["by_rate"]
    assert (first["disturbed"], second["disturbed"]) == (True, False)
    assert "1 of 2 steps" in made["findings_of_load"][-1]
    assert made["findings_of_load"][-1].endswith("wait-1-rate-2")


def test_a_step_is_one_line():
    step, found, _, _ = measured(WAIT, 1, 2.0, 1.5, failed=3)
    assert line(step, found) == (
        "wait-1-rate-2: offered 2.00/s, achieved 1.50/s, p95 0.90 s, 3 failed"
    )


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    whole = report(rows(), SETTINGS)
    drawn = capacity_plots.draw_all(tmp_path, whole)
    assert sorted(path.name for path in drawn) == [
        "capacity-ceilings.png",
        "capacity-latency.png",
        "capacity-n.png",
        "capacity-processors.png",
        "capacity-throughput.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)

    waiting = report([row for row in rows() if row[0].kind == WAIT], SETTINGS)
    assert len(capacity_plots.draw_all(tmp_path, waiting)) == 4


def test_each_part_of_the_machine_has_a_colour():
    parts = {capacity_meters.JOBS, capacity_meters.LOAD, capacity_meters.ZOOKEEPER, OTHERS}
    assert parts < set(capacity_plots.PARTS)
