"""Each option of `whatwhere serve` arrives in the settings, from the command line and from the environment."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from whatwhere.indexer.images.limits import ImageLimits
from whatwhere.service import server
from whatwhere.service.cli.app import app
from whatwhere.service.observability import logs
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.settings import Batching, Limits, ServerSettings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """Give what servers were asked for, in place of running them."""
    settings: list[ServerSettings] = []
    monkeypatch.setattr(server, "serve", lambda wanted, _: settings.append(wanted))
    monkeypatch.setattr(logs, "logging_to_stderr", lambda _: nullcontext())
    return settings


def invoke(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["serve", *arguments], env=environment)
    return result.exit_code, result.output


def test_without_options_it_is_the_settings_own_defaults(asked: list[ServerSettings]) -> None:
    """One place has the numbers."""
    code, output = invoke("--collection", "c.ww")

    assert code == 0, output
    assert asked == [ServerSettings("c.ww")]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (("--listen", "127.0.0.1:7"), {"listen": "127.0.0.1:7"}),
        (("--device", "cpu"), {"device": "cpu"}),
        (("--weights", "own.pth"), {"weights": Path("own.pth")}),
        (("--refresh", "5"), {"refresh_s": 5.0}),
        (("--tls-certificate", "c", "--tls-key", "k"), {"tls": TlsFiles(Path("c"), Path("k"))}),
        (
            ("--tls-certificate", "c", "--tls-key", "k", "--tls-client-ca", "a"),
            {"tls": TlsFiles(Path("c"), Path("k"), Path("a"))},
        ),
        (("--tokens", "t.json"), {"tokens": Path("t.json")}),
        (("--allow-insecure",), {"allow_insecure": True}),
        (("--no-reflection",), {"reflection": False}),
        (("--web", "127.0.0.1:15"), {"web_listen": "127.0.0.1:15"}),
        (("--web-host", "a.org", "--web-host", "b.org"), {"web_hosts": ("a.org", "b.org")}),
        (("--web-path", "/photos"), {"web_path": "/photos"}),
        (
            ("--trusted-proxies", "10.0.0.1", "--trusted-proxies", "10.1.0.0/16"),
            {"trusted_proxies": ("10.0.0.1", "10.1.0.0/16")},
        ),
        (("--threads", "3"), {"threads": 3}),
        (("--remembered-uploads", "4"), {"remembered_uploads": 4}),
        (("--max-concurrent", "5"), {"limits": Limits(image=Limits().image, max_concurrent=5)}),
        (("--max-concurrent-per-client", "6"), {"limits": Limits(max_concurrent_per_client=6)}),
        (("--max-connections", "600"), {"limits": Limits(max_connections=600)}),
        (("--max-connections-per-client", "61"), {"limits": Limits(max_connections_per_client=61)}),
        (("--max-connection-age", "62"), {"max_connection_age_s": 62.0}),
        (("--max-queue", "7"), {"limits": Limits(max_queued_uploads=7)}),
        (
            ("--max-image-mib", "8"),
            {"limits": Limits(image=ImageLimits(max_bytes=8 * 1024 * 1024, max_pixels=100_000_000))},
        ),
        (("--batch-size", "9"), {"batching": Batching(9)}),
        (("--batch-delay", "10"), {"batching": Batching(None, 0.01)}),
        (("--drain-delay", "11"), {"drain_s": 11.0}),
        (("--grace", "12"), {"grace_s": 12.0}),
        (("--health", "127.0.0.1:13"), {"health_listen": "127.0.0.1:13"}),
        (("--metrics", "127.0.0.1:14"), {"metrics_listen": "127.0.0.1:14"}),
        (("--traces",), {"traces": True}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_option_arrives(asked: list[ServerSettings], options: tuple[str, ...], settings: dict[str, object]) -> None:
    """And changes nothing else."""
    code, output = invoke("--collection", "c.ww", *options)

    assert code == 0, output
    assert asked == [ServerSettings("c.ww", **settings)]  # type: ignore[arg-type] # by name


def test_options_can_stand_in_the_environment(asked: list[ServerSettings]) -> None:
    """As containers have them."""
    environment = {
        "WHATWHERE_COLLECTION": "c.ww",
        "WHATWHERE_SERVE_LISTEN": "127.0.0.1:9",
        "WHATWHERE_SERVE_MAX_QUEUE": "3",
        "WHATWHERE_SERVE_ALLOW_INSECURE": "1",
        "WHATWHERE_SERVE_WEB": "127.0.0.1:10",
        "WHATWHERE_SERVE_WEB_HOST": "a.org b.org",
    }

    code, output = invoke(**environment)

    assert code == 0, output
    limits = Limits(max_queued_uploads=3)
    assert asked == [
        ServerSettings(
            "c.ww",
            listen="127.0.0.1:9",
            web_listen="127.0.0.1:10",
            web_hosts=("a.org", "b.org"),
            allow_insecure=True,
            limits=limits,
        )
    ]


def test_the_page_is_announced_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the line that programs read; as https where there is a certificate."""
    addresses = {"listen": "127.0.0.1:1", "web": "127.0.0.1:2"}
    monkeypatch.setattr(server, "serve", lambda _, on_ready: on_ready(addresses))
    monkeypatch.setattr(logs, "logging_to_stderr", lambda _: nullcontext())

    _, plain = invoke("--collection", "c.ww", "--web", "127.0.0.1:0")
    _, guarded = invoke("--collection", "c.ww", "--web", "127.0.0.1:0", "--tls-certificate", "c", "--tls-key", "k")

    assert plain == "serving c.ww on 127.0.0.1:1\npage: http://127.0.0.1:2/\n"
    assert guarded == "serving c.ww on 127.0.0.1:1\npage: https://127.0.0.1:2/\n"

    _, under = invoke("--collection", "c.ww", "--web", "127.0.0.1:0", "--web-path", "/photos/")
    addresses["web"] = "unix:/run/page"
    _, local = invoke("--collection", "c.ww", "--web", "unix:/run/page")

    assert under.endswith("page: http://127.0.0.1:2/photos/\n")
    assert local.endswith("page: unix:/run/page\n")


@pytest.mark.parametrize("half", [("--tls-key", "k"), ("--tls-certificate", "c"), ("--tls-client-ca", "a")])
def test_half_of_a_certificate_is_wrong_usage(asked: list[ServerSettings], half: tuple[str, str]) -> None:
    """Better than to serve without TLS."""
    code, _ = invoke("--collection", "c.ww", *half)

    assert code == 2
    assert asked == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WHATWHERE_SERVE_TOKEN", "did you mean WHATWHERE_SERVE_TOKENS?"),
        ("WHATWHERE_SERVE_TLS_CLIENT_CAS", "did you mean WHATWHERE_SERVE_TLS_CLIENT_CA?"),
        ("WHATWHERE_SERVE_NO_REFLECTION", "did you mean WHATWHERE_SERVE_REFLECTION?"),
        ("WHATWHERE_SERVE_COLLECTION", "did you mean WHATWHERE_COLLECTION?"),
        ("WHATWHERE_SERVE_XYZZY_PLUGH_QUUX", "see `whatwhere serve --help`"),
    ],
)
def test_a_misspelled_variable_is_wrong_usage(asked: list[ServerSettings], name: str, meant: str) -> None:
    """As a misspelled option is: a server without its client certificates would start."""
    code, output = invoke("--collection", "c.ww", **{name: "1"}, COLUMNS="400")

    assert code == 2
    assert f"{name} is in the environment, and there is no such option: {meant}" in output
    assert asked == []


def test_variables_of_kubernetes_are_none_of_ours(asked: list[ServerSettings]) -> None:
    """It sets them in each container for a Service of this name."""
    links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT_GRPC": "50051",
        "PORT": "tcp://10.0.0.1:1",
        "PORT_1_TCP_ADDR": "x",
    }

    code, output = invoke("--collection", "c.ww", **{f"WHATWHERE_SERVE_{name}": text for name, text in links.items()})

    assert code == 0, output
    assert asked == [ServerSettings("c.ww")]
