"""The upgrade's button: what comes of it is told, and it outlives the dashboard."""

import asyncio
import os
import sys

import pytest

from shoal_gateway.dashboard import actions
from shoal_gateway.dashboard.actions import FleetActor
from shoal_gateway.fleet import Fleet, FleetError


@pytest.fixture
def actor(tmp_path, monkeypatch):
    """Of a fleet whose command is a script that is to be given."""

    def made(script):
        monkeypatch.setattr(actions, "SHOAL", (sys.executable, "-c", script))
        return FleetActor(Fleet(tmp_path))

    return made


async def test_its_last_words_are_told(actor):
    said = "import sys; print('step 1'); print(sys.argv[3:])"
    assert await actor(said).act("upgrade", "api", "1.1") == "['upgrade', 'api', '--to', '1.1']"
    with pytest.raises(FleetError, match=r"^refused / and why$"):
        await actor("import sys; print('refused'); sys.exit('and why')").act("upgrade", "api", "2")
    with pytest.raises(FleetError, match="exit code 3"):
        await actor("raise SystemExit(3)").act("upgrade", "api", "2")


async def test_it_goes_on_when_the_dashboard_ends(actor, tmp_path):
    for name in ("begun", "go", "done"):
        os.mkfifo(tmp_path / name)
    script = f"""
import os
def put(name, text): open("{tmp_path}/" + name, "w").write(text)
put("begun", str(os.getsid(0) == os.getpid()))
open("{tmp_path}/go").read()
print("said where nobody reads", flush=True)
put("done", "yes")
"""
    upgrade = asyncio.create_task(actor(script).act("upgrade", "api", "1.1"))
    assert await asyncio.to_thread((tmp_path / "begun").read_text) == "True"
    upgrade.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upgrade
    await asyncio.to_thread((tmp_path / "go").write_text, "")
    assert await asyncio.to_thread((tmp_path / "done").read_text) == "yes"
    assert "nobody reads" in (tmp_path / "upgrade.log").read_text()
