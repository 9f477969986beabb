"""The files in deploy/ match the server: settings, metrics, ports and shutdown time."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from medserve_server.config import Settings
from medserve_server.process.flags import read_settings
from medserve_server.telemetry.metrics import Metrics

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
YAML_FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")])
DASHBOARDS = sorted(DEPLOY.rglob("*.json"))
CLIENT_VARIABLES = {"MEDSERVE_SERVER"}

Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def document(name: str, kind: str) -> Document:
    (found,) = (each for each in documents(name) if each["kind"] == kind)
    return found


def container(pod: Document) -> Document:
    """Returns the only container of a pod."""
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def deployment_pod() -> Document:
    pod = document("kubernetes.yaml", "Deployment")["spec"]["template"]["spec"]
    assert isinstance(pod, dict)
    return pod


def runtime_pod() -> Document:
    pod = document("kserve.yaml", "ServingRuntime")["spec"]
    assert isinstance(pod, dict)
    return pod


def settings_of(server: Document) -> Settings:
    """Returns the settings that a server with these arguments and environment would read."""
    return read_settings(server["args"])


def series_names() -> Iterator[str]:
    """Returns the names of all exported metrics."""
    for family in Metrics().registry.collect():
        match family.type:
            case "counter":
                yield f"{family.name}_total"
            case "histogram":
                yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
            case _:
                yield family.name


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_well_formed(path: Path) -> None:
    assert all(isinstance(each, dict) for each in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_use_existing_metrics(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    names = {name for query in queries for name in re.findall(r"\b(?:medserve|grpc_server)_\w+", query)}
    assert names
    assert names <= set(series_names())


@pytest.mark.parametrize(
    "path", [REPOSITORY / "Dockerfile", *YAML_FILES, DEPLOY / "README.md"], ids=lambda path: path.name
)
def test_environment_variables_are_settings(path: Path) -> None:
    variables = set(re.findall(r"MEDSERVE_[A-Z_]+\b", path.read_text()))
    known = {f"MEDSERVE_{name.upper()}" for name in Settings.model_fields}
    assert variables <= known | CLIENT_VARIABLES


def test_flags_are_settings() -> None:
    assert settings_of(container(deployment_pod())).drain_delay == 10
    assert settings_of(container(runtime_pod())).models == Path("/mnt/models")


def test_ports_match_the_server() -> None:
    grpc, metrics = Settings.model_fields["port"].default, Settings.model_fields["metrics_port"].default
    assert [port["containerPort"] for port in container(deployment_pod())["ports"]] == [grpc, metrics]
    assert [port["containerPort"] for port in container(runtime_pod())["ports"]] == [grpc]
    (compose,) = documents("compose.yaml")
    assert compose["services"]["medserve"]["ports"] == [f"127.0.0.1:{grpc}:{grpc}"]
    (prometheus,) = documents("prometheus.yml")
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == [f"medserve:{metrics}"]
    assert f"EXPOSE {grpc} {metrics}\n" in (REPOSITORY / "Dockerfile").read_text()


def test_grace_period_covers_draining() -> None:
    def needs(settings: Settings) -> float:
        return settings.drain_delay + settings.grace

    pod = deployment_pod()
    assert pod["terminationGracePeriodSeconds"] > needs(settings_of(container(pod)))
    predictor = document("kserve.yaml", "InferenceService")["spec"]["predictor"]
    assert predictor["terminationGracePeriodSeconds"] > needs(settings_of(container(runtime_pod())))
    (compose,) = documents("compose.yaml")
    assert int(compose["services"]["medserve"]["stop_grace_period"].removesuffix("s")) > needs(read_settings([]))


@pytest.mark.parametrize("pod", [deployment_pod(), runtime_pod()], ids=["kubernetes", "kserve"])
def test_pods_are_hardened(pod: Document) -> None:
    security = pod.get("securityContext", {}) | container(pod)["securityContext"]
    assert security == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } | {name: 65532 for name in ("runAsGroup",) if name in security}


@pytest.mark.parametrize("pod", [deployment_pod(), runtime_pod()], ids=["kubernetes", "kserve"])
def test_writable_folder_for_envoys_files_is_mounted(pod: Document) -> None:
    """Everything else is read-only."""
    (mount,) = container(pod)["volumeMounts"]
    assert mount["mountPath"] == "/tmp"  # noqa: S108 - of the container
    (volume,) = pod["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("pod", [deployment_pod(), runtime_pod()], ids=["kubernetes", "kserve"])
def test_readiness_probes_use_the_metrics_port(pod: Document) -> None:
    """The metrics port requires neither a client certificate nor a token."""
    for probe in ("startupProbe", "readinessProbe"):
        request = container(pod)[probe]["httpGet"]
        named = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        assert request["path"] == "/readyz"
        assert named.get(request["port"], request["port"]) == Settings.model_fields["metrics_port"].default


def test_kubernetes_service_variables_are_not_read_as_settings() -> None:
    """For a service named medserve, Kubernetes would set MEDSERVE_PORT to a URL."""
    assert deployment_pod()["enableServiceLinks"] is False
    assert document("kserve.yaml", "InferenceService")["metadata"]["name"] != "medserve"


def test_compose_services_are_hardened() -> None:
    (compose,) = documents("compose.yaml")
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "a pinned version"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
