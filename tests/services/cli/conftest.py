import signal

import pytest

from shoal_gateway.cli.app import run


@pytest.fixture
def shoal(tmp_path, capsys, monkeypatch):
    """Runs a command where there is no fleet; its output and errors, for an exit code."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.delenv("SHOAL_ZOOKEEPER", raising=False)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments, code=0, fleet=tmp_path / "fleet"):
        capsys.readouterr()
        ended = run(["--fleet", str(fleet), *arguments])
        said = capsys.readouterr()
        assert ended == code, said.out + said.err
        return said

    yield call
    signal.signal(signal.SIGTERM, handler)
