"""The manifests under deploy/kubernetes: they parse, and agree with the program, its image and each other."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from common.errors import ConfigError
from common.queue.port import Kind, Lane
from common.queue.topology import dead_queue, lane_queue
from common.settings import PREFIX, SECRETS_DIR, Settings, load
from console.cli import COMMANDS
from receiver.intake import MAX_BODY
from receiver.program import GRACE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
Manifest = dict[str, Any]


def documents(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ALL = {
    (document["kind"], document["metadata"]["name"]): document
    for file in FILES
    if file != "kustomization.yaml"
    for document in documents(file)
}
(KUSTOMIZATION,) = documents("kustomization.yaml")
COMPONENTS = ("receiver", "worker")

every_component = pytest.mark.parametrize("component", COMPONENTS)


def pod(component: str) -> Manifest:
    """The pod's specification."""
    spec: Manifest = ALL["Deployment", f"hookmirror-{component}"]["spec"]["template"]["spec"]
    return spec


def container(component: str) -> Manifest:
    (only,) = pod(component)["containers"]
    assert isinstance(only, dict)
    return only


def ports(component: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(component)["ports"]}


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing, and an empty folder."""
    for name in [name for name in os.environ if name.startswith(PREFIX) or name == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.settings.SECRETS_DIR", str(tmp_path / "secrets"))


def settings_in_a_pod(folder: Path, monkeypatch: pytest.MonkeyPatch, component: str) -> Settings:
    """What the program makes of the ConfigMap, the Secret, and its environment."""
    (folder / "hookmirror.toml").write_text(ALL["ConfigMap", "hookmirror"]["data"]["hookmirror.toml"])
    (folder / "secrets").mkdir()
    for name, value in ALL["Secret", "hookmirror"]["stringData"].items():
        (folder / "secrets" / name).write_text(value)
    for variable in container(component)["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    mounted = next(m["mountPath"] for m in container(component)["volumeMounts"] if m["name"] == "config")
    assert os.environ["HOOKMIRROR_CONFIG"] == f"{mounted}/hookmirror.toml"
    return load("hookmirror.toml")


@every_component
def test_the_configuration_and_the_secret_are_accepted(
    component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in_a_pod(tmp_path, monkeypatch, component)
    assert settings.routes
    assert settings.queue.url.startswith("amqp://")
    assert ALL["Secret", "hookmirror"]["stringData"]["KEDA_RABBITMQ"].endswith("/"), "KEDA needs a vhost"
    assert all(store.secret_access_key for store in settings.stores.values())


def test_a_services_variables_would_be_refused_so_they_are_kept_away(monkeypatch: pytest.MonkeyPatch) -> None:
    service = ALL["Service", "hookmirror-receiver"]["metadata"]["name"]
    monkeypatch.setenv(f"{service.upper().replace('-', '_')}_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigError, match=r"Kubernetes sets this variable.*enableServiceLinks: false"):
        load()
    assert [pod(component)["enableServiceLinks"] for component in COMPONENTS] == [False, False]


@every_component
def test_a_pod_runs_a_command_that_there_is_as_the_user_of_the_image(component: str) -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    context = pod(component)["securityContext"]
    assert container(component)["args"] == [component]
    assert component in COMMANDS
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in dockerfile
    assert 'ENTRYPOINT ["hookmirror"]' in dockerfile
    assert f"HOOKMIRROR_METRICS__PORT={ports(component)['metrics']}" in dockerfile


def test_the_image_is_of_this_version_and_the_kustomization_names_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (image,) = KUSTOMIZATION["images"]
    assert image["newTag"] == version
    for component in COMPONENTS:
        assert container(component)["image"] == f"{image['name']}:{version}"


def test_the_kustomization_applies_every_manifest_but_the_secret() -> None:
    assert {*KUSTOMIZATION["resources"], "kustomization.yaml", "secret.example.yaml"} == set(FILES)


def test_everything_is_in_one_namespace_that_enforces_the_restricted_profile() -> None:
    namespace = ALL["Namespace", "hookmirror"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [document for (kind, _), document in ALL.items() if kind != "Namespace"]
    assert {document["metadata"]["namespace"] for document in others} == {namespace["name"]}


@every_component
def test_a_pod_meets_the_restricted_profile_and_writes_nowhere(component: str) -> None:
    context, inner = pod(component)["securityContext"], container(component)["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(component)["automountServiceAccountToken"] is False
    assert container(component)["resources"]["limits"]["memory"]


@every_component
def test_secrets_are_mounted_where_the_settings_look(component: str) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(component)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(component)["volumes"]}
    assert mounts["secrets"] == SECRETS_DIR
    assert volumes.keys() == mounts.keys()
    assert ("Secret", volumes["secrets"]["secret"]["secretName"]) in ALL
    assert ("ConfigMap", volumes["config"]["configMap"]["name"]) in ALL


def test_a_stop_is_waited_for_longer_than_it_takes() -> None:
    settings = Settings()
    pause = int(container("receiver")["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pause + GRACE < 30 < pod("receiver")["terminationGracePeriodSeconds"]
    assert settings.worker.drain < 30 < pod("worker")["terminationGracePeriodSeconds"]


def test_the_receiver_is_asked_where_it_answers() -> None:
    probes = container("receiver")
    assert ports("receiver")["http"] == Settings().receiver.port
    assert probes["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    for probe in ("livenessProbe", "startupProbe"):
        assert probes[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    (exposed,) = ALL["Service", "hookmirror-receiver"]["spec"]["ports"]
    assert exposed["targetPort"] == "http"


def test_a_worker_is_asked_at_its_metrics_port_and_has_no_service() -> None:
    for probe in ("livenessProbe", "startupProbe"):
        assert container("worker")[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert [name for kind, name in ALL if kind == "Service"] == ["hookmirror-receiver"]


@every_component
def test_prometheus_is_told_the_metrics_port(component: str) -> None:
    template = ALL["Deployment", f"hookmirror-{component}"]["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(ports(component)["metrics"])


@every_component
def test_whatever_selects_pods_selects_these(component: str) -> None:
    name = f"hookmirror-{component}"
    labels = ALL["Deployment", name]["spec"]["template"]["metadata"]["labels"]
    assert ALL["Deployment", name]["spec"]["selector"]["matchLabels"] == labels
    assert ALL["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"] == labels
    selected = ALL["NetworkPolicy", "hookmirror"]["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= labels.items()
    if component == "receiver":
        assert ALL["Service", name]["spec"]["selector"] == labels
        assert ALL["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"] == labels


def test_a_rolling_update_takes_no_receiver_away_before_its_successor_is_ready() -> None:
    spec = ALL["Deployment", "hookmirror-receiver"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["replicas"] > ALL["PodDisruptionBudget", "hookmirror-receiver"]["spec"]["minAvailable"]


def test_keda_scales_the_workers_by_what_waits_in_each_lane() -> None:
    scaled = ALL["ScaledObject", "hookmirror-worker"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in ALL
    assert "replicas" not in ALL["Deployment", scaled["scaleTargetRef"]["name"]]["spec"]
    for kind, trigger in zip(Kind, scaled["triggers"], strict=True):
        pattern = trigger["metadata"]["queueName"]
        ours = [lane_queue(Lane(route, other)) for route in ("", "a b") for other in Kind] + [dead_queue()]
        assert [name for name in ours if re.search(pattern, name)] == [
            lane_queue(Lane("", kind)),
            lane_queue(Lane("a b", kind)),
        ]
    for trigger in scaled["triggers"]:
        assert (trigger["type"], trigger["metadata"]["mode"]) == ("rabbitmq", "QueueLength")
        assert trigger["metadata"]["protocol"] == "http", "AMQP lists no queues"
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        auth = ALL["TriggerAuthentication", trigger["authenticationRef"]["name"]]
        (ref,) = auth["spec"]["secretTargetRef"]
        assert ref["key"] in ALL["Secret", ref["name"]]["stringData"]


def test_all_workers_together_stay_below_the_limit_of_an_mcs_project() -> None:
    store = tomllib.loads(ALL["ConfigMap", "hookmirror"]["data"]["hookmirror.toml"])["stores"]["mcs"]
    workers = ALL["ScaledObject", "hookmirror-worker"]["spec"]["maxReplicaCount"]
    assert workers * store["max_requests_per_second"] < 1000


def test_the_ingress_leads_to_the_receiver_and_to_hooks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = settings_in_a_pod(tmp_path, monkeypatch, "receiver").receiver
    ingress = ALL["Ingress", "hookmirror"]
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert receiver.public_url == f"https://{rule['host']}{receiver.path}"
    assert receiver.path.startswith(path["path"] + "/")
    assert path["backend"]["service"] == {"name": "hookmirror-receiver", "port": {"name": "http"}}
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert size == f"{MAX_BODY // 1024}k"
