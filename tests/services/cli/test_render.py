"""What others have named is shown as it is."""

from shoal_balancer import Replica
from shoal_gateway.cli import render, replicas, root
from shoal_gateway.cli.context import Where, err, out
from shoal_gateway.fleet.state import FleetState, ReplicaState, StateFile
from shoal_protos.gateway.model.v1 import job_pb2

ODD = "[red]a[/red][/] :bus: [link=x]"


def test_brackets_and_colons_of_others_are_no_markup(capsys, monkeypatch):
    monkeypatch.setattr(out, "_width", 1000)
    monkeypatch.setattr(err, "_width", 1000)
    job = job_pb2.Job(
        id="7", spec=job_pb2.JobSpec(application=ODD, parameters={"x": ODD}), reason=ODD
    )
    job.attempts.add(host=ODD, outcome=ODD)
    replica = Replica(id=ODD, address="::1", port=1, version=ODD)
    rows = [render.replica_json("api", replica)]
    for shown, times in (
        (render.job_table([job]), 2),
        (render.attempt_table(job), 2),
        (render.replica_table(rows, ODD), 3),
        (ODD, 1),
    ):
        out.print(shown, highlight=False)
        assert capsys.readouterr().out.count(ODD) == times
    err.print(ODD, style="red")
    with root.bar() as bar:
        bar.add_task(ODD, total=1)
    assert capsys.readouterr().err.count(ODD) >= 2


def test_states_have_their_colours():
    assert render.coloured("DOWN").style == "red"
    assert (render.coloured("?").plain, render.coloured("?").style) == ("?", "")


def test_a_replica_that_is_down_is_told_as_the_others_are(tmp_path):
    state = FleetState().with_replica(ReplicaState("api-1", "api", "host-1"))
    StateFile(tmp_path).write(state)
    rows = []
    replicas._note_dead(Where(tmp_path), rows)
    (row,) = rows
    assert row["status"] == "DOWN"
    alive = Replica(id="api-1", address="127.0.0.1", port=1)
    assert row.keys() == render.replica_json("api", alive).keys()
