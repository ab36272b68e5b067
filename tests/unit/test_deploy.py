"""What `deploy/` says, held against the program that it deploys and against itself."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import typer
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from ray.scripts.scripts import start as ray_start

from whatwhere.indexer.collection.cache import CACHE, CACHE_BYTES
from whatwhere.indexer.collection.stores import Stores
from whatwhere.indexer.vectors.address import MilvusAddress
from whatwhere.service.api import health
from whatwhere.service.cli.app import app
from whatwhere.service.security.connections import limit_at_accept
from whatwhere.service.security.tls_files import TlsFiles
from whatwhere.service.server import Server
from whatwhere.service.settings import Limits, ServerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
CONTAINERFILES = ("Containerfile", "Containerfile.cuda")
GRPC, HEALTH, METRICS = 50051, 50052, 9464


def manifest(name: str) -> Any:
    folder = DEPLOY / "kubernetes"
    shared = folder / "server" / f"{name}.yaml"
    return yaml.safe_load(
        (shared if shared.exists() and name != "kustomization" else folder / f"{name}.yaml").read_text()
    )


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def compose(name: str = "compose") -> Any:
    return yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())


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


def big_objects() -> list[Any]:
    """Return what the big shape has beside the servers."""
    folder = DEPLOY / "kubernetes" / "big"
    applied = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [each for name in applied if name.endswith(".yaml") for each in documents(folder / name)]


def big(kind: str, name: str) -> Any:
    return next(each for each in big_objects() if each["kind"] == kind and each["metadata"]["name"] == name)


def big_patch(name: str) -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / "big" / "patches" / f"{name}.yaml").read_text())


def big_templates() -> dict[str, Any]:
    """Return the pods of the big shape beside the servers, by what makes them."""
    running = [each for each in big_objects() if each["kind"] in ("Deployment", "StatefulSet", "CronJob")]
    specs = {each["metadata"]["name"]: each["spec"] for each in running}
    return {name: spec.get("jobTemplate", {}).get("spec", spec)["template"] for name, spec in specs.items()}


def big_pods() -> dict[str, Any]:
    """Return the specifications of all pods that are patched for the big shape or are there for it alone."""
    pods = {name: template["spec"] for name, template in big_templates().items()}
    return {**pods, "whatwhere": big_patch("deployment")["spec"]["template"]["spec"]}


def options(words: list[str]) -> dict[str, str]:
    """Return `--name=value` of a command line, "" where there is no value."""
    parted = (word.partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in parted}


def index_commands() -> list[list[str]]:
    """Return how each way of running the big shape indexes."""
    return [
        big_pods()["index"]["containers"][0]["args"],
        compose("compose.big")["services"]["index"]["command"],
    ]


def ray_commands() -> dict[str, dict[str, str]]:
    """Return the options that Ray is started with, by place and kind."""
    services = compose("compose.big")["services"]
    composed = {kind: shlex.split(services[f"ray-{kind}"]["command"][0]) for kind in ("head", "worker")}
    pods = {kind: big_pods()[f"ray-{kind}"]["containers"][0]["args"] for kind in ("head", "worker")}
    composed["index"] = shlex.split(services["index"]["entrypoint"][2].partition(">")[0])
    pods["index"] = shlex.split(big_pods()["index"]["containers"][0]["command"][2].partition(">")[0])
    return {
        **{f"compose {kind}": options(words) for kind, words in composed.items()},
        **{f"pod {kind}": options(words) for kind, words in pods.items()},
    }


def index_flags() -> set[str]:
    command: Any = typer.main.get_command(app)
    return {flag for parameter in command.commands["index"].params for flag in (*parameter.opts, "--help")}


def quantity(text: str) -> int:
    """Return the bytes of Kubernetes' `2Gi`."""
    return int(text[:-2]) * {"Mi": 1024**2, "Gi": 1024**3}[text[-2:]]


def in_the_environment(container: Any) -> dict[str, Any]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def named_secrets() -> set[tuple[str, str | None]]:
    """Return the secrets that pods of both shapes want, each with its key, None for all of its keys."""
    specs = [*big_pods().values(), pod()]
    containers = [container for spec in specs for container in spec["containers"]]
    sources = [entry.get("valueFrom", {}) for container in containers for entry in container.get("env", [])]
    keys = [source["secretKeyRef"] for source in sources if "secretKeyRef" in source]
    whole = [
        each["secretRef"]["name"] for each in chain(*(c.get("envFrom", []) for c in containers)) if "secretRef" in each
    ]
    mounted = [volume["secret"]["secretName"] for spec in specs for volume in spec["volumes"] if "secret" in volume]
    return {(key["name"], key["key"]) for key in keys} | {(name, None) for name in (*whole, *mounted)}


def allows(policy: Any, labels: dict[str, str], port: int) -> bool:
    """Tell whether a policy lets pods with these labels in, at a port."""
    return any(
        any(selects(peer.get("podSelector"), labels) for peer in rule["from"])
        for rule in policy["spec"]["ingress"]
        if "from" in rule and port in {each["port"] for each in rule.get("ports", [{"port": port}])}
    )


def selects(selector: Any, labels: dict[str, str]) -> bool:
    if selector is None:
        return False
    expressions = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


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
    certificate = trustme.CA().issue_cert("localhost")
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(files.certificate))
    certificate.private_key_pem.write_to_path(str(files.key))
    server = Server(ServerSettings(tmp_path, listen="127.0.0.1:0", tls=files))
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


def test_the_unit_has_descriptors_for_all_connections() -> None:
    limits = Limits()

    assert int(unit()["LimitNOFILE"]) > limit_at_accept(limits.max_connections) + 128


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


@pytest.mark.parametrize("shape", [".", "server", "big"])
def test_every_manifest_is_applied_and_none_holds_a_secret(shape: str) -> None:
    folder = DEPLOY / "kubernetes" / shape
    there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    applied = yaml.safe_load((folder / "kustomization.yaml").read_text())
    patches = {str(path.relative_to(folder)) for path in folder.glob("patches/*.yaml")}

    assert {name for name in applied["resources"] if name.endswith(".yaml")} == there
    assert {patch["path"] for patch in applied.get("patches", [])} == patches
    assert "Secret" not in {each["kind"] for name in there for each in documents(folder / name)}


def test_what_selects_pods_selects_these() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"].items()

    assert manifest("service")["spec"]["selector"].items() <= labels
    assert manifest("deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest("disruption")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest("network")["spec"]["podSelector"]["matchLabels"].items() <= labels


# --- the big shape: the stores, Ray, and servers without a volume ---------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["pod", "compose"])
def test_every_option_of_indexing_is_one_of_index(place: int) -> None:
    """Only options that `whatwhere index` has are given to it."""
    words = index_commands()[place]

    assert words[0] == "index"
    assert options(words).keys() >= {"--catalog", "--vectors", "--engine"}
    assert options(words).keys() <= index_flags()


@pytest.mark.parametrize("place", [0, 1], ids=["pod", "compose"])
def test_the_stores_that_a_collection_is_made_with_are_addresses_of_stores(place: int) -> None:
    """What the program refuses, such as a password in an address, is in none of them."""
    given = options(index_commands()[place])

    assert Stores(given["--catalog"], given["--vectors"]) != Stores()
    assert MilvusAddress.parse(given["--vectors"]).replicas == 1  # of Milvus as it is here, which is one process


def test_both_places_index_into_the_same_stores() -> None:
    """The pods and the composed services differ in what is around them alone."""
    in_pod, composed = (options(words) for words in index_commands())

    assert in_pod.items() - {("--json", "")} == composed.items()


def test_the_stores_that_indexing_names_are_services_of_the_cluster() -> None:
    """Host and port of each address are those of a Service whose pods listen there."""
    given = options(index_commands()[0])
    places = [urlsplit(given[name]) for name in ("--catalog", "--vectors")]

    for place, port in zip(places, (5432, 19530), strict=True):
        service = big("Service", str(place.hostname))["spec"]
        template = next(
            each
            for each in big_templates().values()
            if selects({"matchLabels": service["selector"]}, each["metadata"]["labels"])
        )
        container = template["spec"]["containers"][0]
        named = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert place.port in (None, port)
        assert named[next(each["targetPort"] for each in service["ports"] if each["port"] == port)] == port


def test_the_stores_that_are_named_are_composed_services() -> None:
    """Each host in an address is the name of a service, on the stores' network."""
    composed = compose("compose.big")
    given = options(index_commands()[1])
    addresses = [given["--catalog"], given["--vectors"]]
    hosts = {urlsplit(address).hostname for address in [*addresses, composed["x-environment"]["AWS_ENDPOINT_URL"]]}

    assert hosts == {"postgresql", "milvus", "minio"}
    assert [host for host in hosts if composed["services"][host]["networks"] != ["stores"]] == []


def test_every_option_of_ray_is_one_of_its_start() -> None:
    """Only options that `ray start` has are given to it."""
    known = {flag for parameter in ray_start.params for flag in parameter.opts}

    assert len(ray_commands()) == 6
    assert [name for name, given in ray_commands().items() if not given.keys() <= known] == []


@pytest.mark.parametrize("place", ["compose", "pod"])
def test_ray_is_called_where_it_listens(place: str) -> None:
    """Workers and indexing join the head's port, indexing lends no processor and speaks to what it has joined."""
    head, worker, index = (ray_commands()[f"{place} {kind}"] for kind in ("head", "worker", "index"))
    engine = options(index_commands()[place == "compose"])["--engine"]

    assert worker["--address"] == index["--address"] == f"ray-head:{head['--port']}"
    assert engine == "ray://auto"
    assert head["--num-cpus"] == index["--num-cpus"] == "0"


def test_workers_of_ray_count_the_processors_that_are_granted() -> None:
    """A worker takes on as many images at once as it has processors."""
    composed = compose("compose.big")["services"]["ray-worker"]["deploy"]["resources"]["limits"]["cpus"]
    granted = big_pods()["ray-worker"]["containers"][0]["resources"]["limits"]["cpu"]

    assert ray_commands()["compose worker"]["--num-cpus"] == composed
    assert ray_commands()["pod worker"]["--num-cpus"] == granted


def test_what_is_set_for_the_collection_is_read_by_the_program() -> None:
    """A name of ours in the environment is one that the program looks at."""
    read = {CACHE, CACHE_BYTES, "WHATWHERE_COLLECTION"}
    of_pods, composed = big("ConfigMap", "collection")["data"], compose("compose.big")["x-environment"]

    assert {name for name in of_pods if name.startswith("WHATWHERE_")} == read
    assert {name for name in composed if name.startswith("WHATWHERE_")} == read
    assert of_pods["WHATWHERE_COLLECTION"] == composed["WHATWHERE_COLLECTION"]
    assert composed.keys() >= {"PGPASSWORD", "MILVUS_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_whoever_opens_the_collection_is_told_where_everything_is() -> None:
    """Servers and indexing reach all stores, Ray's processes all but the vectors."""
    containers = {name: big_pods()[name]["containers"][0] for name in ("whatwhere", "index", "ray-head", "ray-worker")}
    told = {name: in_the_environment(container).keys() for name, container in containers.items()}

    assert [name for name, names in told.items() if "PGPASSWORD" not in names] == []
    assert {name for name, names in told.items() if "MILVUS_TOKEN" in names} == {"whatwhere", "index"}
    assert {name for name, names in told.items() if "RAY_AUTH_TOKEN" in names} == {"index", "ray-head", "ray-worker"}
    for container in containers.values():
        assert {"configMapRef": {"name": "collection"}} in container["envFrom"]


@pytest.mark.parametrize("name", ["whatwhere", "index", "ray-head", "ray-worker"])
def test_a_full_cache_evicts_no_pod(name: str) -> None:
    """The volume is larger than the cache may grow, and the pod may hold its volumes."""
    data = big("ConfigMap", "collection")["data"]
    spec = big_pods()[name]
    limit = quantity(spec["containers"][0]["resources"]["limits"]["ephemeral-storage"])
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume}
    on_disk = [quantity(each["sizeLimit"]) for each in volumes.values() if each.get("medium") != "Memory"]
    mounts = {mount["mountPath"]: mount.get("name") for mount in spec["containers"][0]["volumeMounts"]}

    assert mounts[data[CACHE]] == "cache"
    assert quantity(volumes["cache"]["sizeLimit"]) > 1.2 * int(data[CACHE_BYTES])
    assert limit >= sum(on_disk)


def test_every_secret_is_one_that_the_page_makes() -> None:
    """Whoever follows the page has all secrets, with the keys that are asked for."""
    text = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"create secret (?:generic|tls) (\S+) (.*)", text)
    made = {name: set(re.findall(r"--from-literal (\w+)=", rest)) for name, rest in commands}

    assert {name for name, _ in named_secrets()} == made.keys()
    assert [name for name, key in named_secrets() if key is not None and key not in made[name]] == []
    assert made["whatwhere-s3"] == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_every_variable_that_compose_wants_is_one_that_the_page_makes() -> None:
    """Whoever follows the page has all of compose.big.yaml's passwords."""
    wanted = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.big.yaml").read_text()))
    loop = re.findall(r"for name in ([A-Z0-9_ ]+); do", (DEPLOY / "README.md").read_text())

    assert [set(names.split()) for names in loop] == [wanted]


def test_the_same_images_run_in_both_places() -> None:
    """A tag is changed everywhere or nowhere."""
    services = compose("compose.big")["services"]
    composed = {service["image"] for service in services.values()} - {services["minio"]["image"]}
    pods = {
        container["image"] for spec in big_pods().values() for container in spec["containers"] if "image" in container
    }
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "big" / "kustomization.yaml").read_text())
    tag = kustomization["images"][0]["newTag"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert tag == f"{version}-big"
    assert composed == pods - {f"whatwhere:{version}"} | {f"whatwhere:{tag}"}
    assert [image for image in composed if image.rpartition(":")[2] in ("", "latest")] == []


def test_the_image_has_what_the_stores_want() -> None:
    """The extras that the image is built with exist, and are those that the page says."""
    extras = compose("compose.big")["services"]["server-1"]["build"]["args"]["EXTRAS"]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert set(extras.split(",")) <= known.keys()
    assert set(extras.split(",")) >= {"s3", "postgresql", "milvus", "ray"}
    assert f"EXTRAS={extras}" in (DEPLOY / "README.md").read_text()


def test_users_are_the_same_in_both_places_and_own_their_volumes() -> None:
    """A volume that Docker makes gets the owner that the service runs as."""
    services = compose("compose.big")["services"]
    users = {name: service["user"] for name, service in services.items()}
    owned = re.findall(r"chown (\S+) /volumes/(\w+)", services["owners"]["command"][0])

    for name in ("postgresql", "milvus", "index", "ray-head", "ray-worker"):
        context = big_pods()[name]["securityContext"]
        assert users[name] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert {place: user for user, place in owned} == {
        "cache": users["server-1"],
        "minio": users["minio"],
        "milvus": users["milvus"],
    }


@pytest.mark.parametrize("name", ["postgresql", "milvus", "ray-head", "ray-worker", "index"])
def test_pods_of_the_big_shape_are_given_the_least(name: str) -> None:
    """No root, no writing beside volumes, no capabilities, no more memory than said."""
    spec = big_pods()[name]
    container = spec["containers"][0]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize("name", list(compose("compose.big")["services"]))
def test_composed_services_of_the_big_shape_are_given_the_least(name: str) -> None:
    """Each is as confined as those of the small shape; one may change owners, and ends."""
    service = compose("compose.big")["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "owners" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}


def test_three_composed_servers_are_reached_at_ports_of_their_own() -> None:
    """The stores publish no port; the page asks all servers."""
    composed = compose("compose.big")
    published = [port for service in composed["services"].values() for port in service.get("ports", [])]
    asked = ",".join(f"localhost:{port.partition(':')[0]}" for port in published)

    assert [port_of(port) for port in published] == [GRPC] * 3
    assert len(set(published)) == 3
    assert asked in (DEPLOY / "README.md").read_text()
    assert composed["networks"]["stores"]["internal"] is True


def test_composed_servers_of_the_big_shape_end_and_compute_as_those_of_the_small_one() -> None:
    """Nobody is killed before its grace, and threads are as many as processors."""
    server = compose("compose.big")["services"]["server-1"]
    environment = server["environment"]
    drained = float(environment["WHATWHERE_SERVE_DRAIN_DELAY"]) + float(environment["WHATWHERE_SERVE_GRACE"])

    assert seconds(server["stop_grace_period"]) > drained
    assert environment["WHATWHERE_SERVE_THREADS"] == server["deploy"]["resources"]["limits"]["cpus"]


def test_servers_of_the_big_shape_have_no_volume_of_the_collection() -> None:
    """What the small shape mounts is taken away, by the names that it has there."""
    spec = big_patch("deployment")["spec"]["template"]["spec"]
    gone = [volume["name"] for volume in spec["volumes"] if volume.get("$patch") == "delete"]
    unmounted = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"] if "$patch" in mount]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod()["containers"][0]["volumeMounts"]}

    assert gone == ["collection"]
    assert unmounted == [mounts["collection"]]
    assert big_patch("deployment")["spec"]["replicas"] == 3
    assert "PersistentVolumeClaim" not in {each["kind"] for each in big_objects()}


def test_whoever_is_let_out_to_a_store_is_let_in_there() -> None:
    """Both ends of each connection in the namespace have a policy that allows it; everything else is denied."""
    policies = [each for each in big_objects() if each["kind"] == "NetworkPolicy"]
    everybody = next(each for each in policies if each["spec"]["podSelector"] == {})
    named = [each for each in policies if each is not everybody]
    server = {"spec": {**manifest("network")["spec"], **big_patch("network")["spec"]}}
    connections = 0
    for policy in [*named, server]:
        labels = policy["spec"]["podSelector"]["matchLabels"]
        for rule in policy["spec"]["egress"]:
            for peer in (peer for peer in rule.get("to", []) if "namespaceSelector" not in peer):
                other = next(each for each in named if each["spec"]["podSelector"] == peer["podSelector"])
                for port in rule.get("ports", [{"port": 6379}]):
                    connections += 1
                    assert allows(other, labels, port["port"]), (labels, peer, port)

    assert connections == 8
    assert everybody["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert everybody["spec"].keys() == {"podSelector", "policyTypes"}


def test_what_selects_pods_of_the_big_shape_selects_these() -> None:
    """Each Service and each policy has pods, and each probe a port."""
    labels = [template["metadata"]["labels"] for template in big_templates().values()]
    services = [each["spec"]["selector"] for each in big_objects() if each["kind"] == "Service"]
    policies = [
        each["spec"]["podSelector"]["matchLabels"]
        for each in big_objects()
        if each["kind"] == "NetworkPolicy"
        if each["spec"]["podSelector"]
    ]

    assert [each for each in services + policies if not any(each.items() <= own.items() for own in labels)] == []
    for name, spec in big_pods().items():
        container = spec["containers"][0]
        ports = {port["name"] for port in container.get("ports", [])}
        probes = [container[key] for key in container if key.endswith("Probe")]
        asked = {probe[kind]["port"] for probe in probes for kind in ("httpGet", "tcpSocket") if kind in probe}
        assert asked <= ports, name


def test_milvus_has_one_etcd_in_both_places() -> None:
    """What the etcd inside of Milvus is told stands in one file."""
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "big" / "kustomization.yaml").read_text())
    files = kustomization["configMapGenerator"][0]["files"]
    milvus = compose("compose.big")["services"]["milvus"]
    target = f":{milvus['environment']['ETCD_CONFIG_PATH']}:ro"
    mounted = [volume.removesuffix(target) for volume in milvus["volumes"] if volume.endswith(target)]
    variables = {entry["name"]: entry.get("value") for entry in big_pods()["milvus"]["containers"][0]["env"]}

    assert mounted == [f"./kubernetes/big/{name}" for name in files]
    assert (DEPLOY / mounted[0]).is_file()
    assert milvus["environment"].keys() == variables.keys()
    assert all(value is None or milvus["environment"][name] == value for name, value in variables.items())
