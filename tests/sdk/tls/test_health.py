"""``python -m shoal.health`` where the server speaks TLS."""

from __future__ import annotations

from shoal import health


def test_a_server_is_asked_with_its_own_certificate(serve, certificates, tmp_path, capsys):
    tls = certificates.of("echo")
    target = serve(tls).replica.target
    place = str(tls.certificate.parent)
    assert health.main([target, "--tls", place]) == 0
    assert f"{target} SERVING" in capsys.readouterr().out
    assert health.main([target]) == 1
    # Another's is no proof that this one is well.
    other = str(certificates.of("api").certificate.parent)
    assert health.main([target, "--tls", other]) == 1
    assert health.main([target, "--tls", str(tmp_path)]) == 1
    assert "was not asked" in capsys.readouterr().out


def test_the_environment_names_the_certificate(serve, certificates, monkeypatch, capsys):
    tls = certificates.of("echo")
    target = serve(tls).replica.target
    monkeypatch.setenv("SHOAL_TLS", str(tls.certificate.parent))
    assert health.main([target]) == 0
