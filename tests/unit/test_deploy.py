"""What `deploy/` says, held against the program that it deploys and against itself."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service import health
from service.cli import app
from service.server import Server
from service.settings import ServerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
CONTAINERFILES = ("Containerfile", "Containerfile.cuda")
GRPC, HEALTH, METRICS = 50051, 50052, 9464


def manifest(name: str) -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def pod() -> Any:
    return manifest("deployment")["spec"]["template"]["spec"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Return a Containerfile's instructions and their arguments, of its last stage and all before."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1].strip()) for line in text.splitlines() if line.strip()]


def image_environment(name: str) -> dict[str, str]:
    pairs = (word.split("=", 1) for key, value in instructions(name) if key == "ENV" for word in shlex.split(value))
    return dict(pairs)


def unit() -> dict[str, str]:
    """Return the service's settings; the last of a name counts."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "whatwhere.service").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def unit_options() -> dict[str, str]:
    words = shlex.split(unit()["ExecStart"])[2:]
    return dict(zip(words[::2], words[1::2], strict=True))


def served_environments() -> Iterator[dict[str, str]]:
    """Yield what each way of running sets in the environment."""
    yield from map(image_environment, CONTAINERFILES)
    yield compose()["services"]["server"]["environment"]
    yield manifest("configuration")["data"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    chosen = [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    return shown + chosen + [rule["expr"] for rule in rules]


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_every_metric_of_dashboard_and_alerts_is_one_that_a_server_shows(tmp_path: Path) -> None:
    server = Server(ServerSettings(tmp_path, listen="127.0.0.1:0"))
    try:
        scrape = generate_latest(server._metrics.registry).decode()
    finally:
        server.stop(None)
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    families = text_string_to_metric_families(scrape)
    shown = {family.name + suffix for family in families for suffix in suffixes.get(family.type, ())}
    asked = {name for text in expressions() for name in re.findall(r"\b(?:whatwhere|process)_[a-z_]+\b", text)}

    assert len(asked) > 10
    assert asked <= shown


def test_every_option_that_is_set_is_one_of_serve() -> None:
    command: Any = typer.main.get_command(app)
    parameters = command.commands["serve"].params
    flags = {flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)}
    variables = {f"WHATWHERE_SERVE_{parameter.name.upper()}" for parameter in parameters}
    used = {name for each in served_environments() for name in each if name.startswith("WHATWHERE_SERVE_")}

    assert len(used) > 8
    assert used <= variables
    assert set(unit_options()) <= flags


def test_health_can_be_asked_as_the_images_do() -> None:
    command: Any = typer.main.get_command(app)

    assert "--server" in {flag for parameter in command.commands["health"].params for flag in parameter.opts}


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_images_expose_the_ports_that_they_serve(name: str) -> None:
    environment = image_environment(name)
    exposed = [value for key, value in instructions(name) if key == "EXPOSE"]
    check = [value for key, value in instructions(name) if key == "HEALTHCHECK"]

    assert exposed == [f"{GRPC} {HEALTH} {METRICS}"]
    assert port_of(environment["WHATWHERE_SERVE_LISTEN"]) == GRPC
    assert port_of(environment["WHATWHERE_SERVE_HEALTH"]) == HEALTH
    assert port_of(environment["WHATWHERE_SERVE_METRICS"]) == METRICS
    assert f'"127.0.0.1:{HEALTH}"' in check[0]


def test_compose_publishes_grpc_to_all_and_the_rest_to_this_machine_alone() -> None:
    services = compose()["services"]
    targets = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]

    assert services["server"]["ports"] == [f"{GRPC}:{GRPC}"]
    assert port_of(services["server"]["healthcheck"]["test"][-1]) == HEALTH
    assert targets["targets"] == [f"server:{METRICS}"]
    others = [port for name in ("prometheus", "grafana") for port in services[name]["ports"]]
    assert [port for port in others if not port.startswith("127.0.0.1:")] == []


def test_kubernetes_names_the_same_ports_everywhere() -> None:
    container = pod()["containers"][0]
    probes = [container[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "readiness", "liveness")]
    allowed = [port["port"] for rule in manifest("network")["spec"]["ingress"] for port in rule["ports"]]
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]

    assert [port["containerPort"] for port in container["ports"]] == [GRPC, HEALTH, METRICS]
    assert probes == [HEALTH] * 3
    assert [port["port"] for port in manifest("service")["spec"]["ports"]] == [GRPC, METRICS]
    assert sorted(allowed) == sorted([GRPC, METRICS, HEALTH])
    assert annotations["prometheus.io/port"] == str(METRICS)


def test_liveness_asks_what_draining_does_not_change() -> None:
    container = pod()["containers"][0]

    assert container["livenessProbe"]["grpc"]["service"] == health.LIVE
    assert container["readinessProbe"]["grpc"]["service"] == health.ALL


def test_the_unit_serves_the_same_ports() -> None:
    options = unit_options()

    assert [port_of(options[name]) for name in ("--listen", "--health", "--metrics")] == [GRPC, HEALTH, METRICS]


def test_nobody_is_killed_before_drain_delay_and_grace_have_passed() -> None:
    of_unit = unit_options()
    server = compose()["services"]["server"]
    of_compose, of_pods = server["environment"], manifest("configuration")["data"]
    drain, grace = "WHATWHERE_SERVE_DRAIN_DELAY", "WHATWHERE_SERVE_GRACE"

    assert seconds(unit()["TimeoutStopSec"]) > float(of_unit["--drain-delay"]) + float(of_unit["--grace"])
    assert seconds(server["stop_grace_period"]) > float(of_compose[drain]) + float(of_compose[grace])
    assert pod()["terminationGracePeriodSeconds"] > float(of_pods[drain]) + float(of_pods[grace])


def test_threads_are_as_many_as_the_processors_that_are_granted() -> None:
    server = compose()["services"]["server"]
    of_pods = manifest("configuration")["data"]

    assert server["environment"]["WHATWHERE_SERVE_THREADS"] == server["deploy"]["resources"]["limits"]["cpus"]
    assert of_pods["WHATWHERE_SERVE_THREADS"] == pod()["containers"][0]["resources"]["limits"]["cpu"]


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_images_run_as_nobody_in_particular_and_take_signals_themselves(name: str) -> None:
    last = dict(instructions(name))

    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"] == '["whatwhere"]'
    assert last["CMD"] == '["serve"]'
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert image_environment(name)["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("variable", ["HOME", "TORCH_HOME"])
@pytest.mark.parametrize("name", CONTAINERFILES)
def test_images_write_under_tmp_alone(name: str, variable: str) -> None:
    assert Path(image_environment(name)[variable]).is_relative_to("/tmp")


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_images_name_no_index_of_packages(name: str) -> None:
    assert ("ARG", 'TORCH_INDEX=""') in instructions(name)
    assert "://" not in (DEPLOY / name).read_text()


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_the_ignore_file_lets_through_all_that_is_copied(name: str) -> None:
    let_through = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    copied = [value.split()[:-1] for key, value in instructions(name) if key == "COPY" and "--from" not in value]
    sources = {source for line in copied for source in line}

    assert sources == let_through
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_docker_and_podman_ignore_the_same() -> None:
    assert (ROOT / ".containerignore").read_text() == (ROOT / ".dockerignore").read_text()


def test_images_carry_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert [("ARG", f"VERSION={version}") in instructions(name) for name in CONTAINERFILES] == [True, True]
    assert compose()["services"]["server"]["image"] == f"whatwhere:{version}"
    assert pod()["containers"][0]["image"] == f"whatwhere:{version}"
    assert manifest("kustomization")["images"][0]["newTag"] == version


@pytest.mark.parametrize("name", ["server", "prometheus", "grafana"])
def test_compose_gives_each_service_the_least(name: str) -> None:
    service = compose()["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}


def test_compose_mounts_the_collection_for_reading() -> None:
    server = compose()["services"]["server"]

    assert server["user"] == "10001:10001"
    assert [(volume["target"], volume["read_only"]) for volume in server["volumes"]] == [("/collection", True)]


def test_pods_are_given_the_least() -> None:
    container = pod()["containers"][0]

    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {"tmp"}


def test_every_manifest_is_applied_and_none_holds_a_secret() -> None:
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}

    assert set(manifest("kustomization")["resources"]) == there
    assert "Secret" not in {manifest(name.removesuffix(".yaml"))["kind"] for name in there}


def test_what_selects_pods_selects_these() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"].items()

    assert manifest("service")["spec"]["selector"].items() <= labels
    assert manifest("deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest("disruption")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest("network")["spec"]["podSelector"]["matchLabels"].items() <= labels
