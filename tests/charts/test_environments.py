"""Every environment on Kubernetes as real Helm renders it: Restricted, and called what the target calls it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plinth.backup.config import Config, LentGrafana
from plinth.exporter.config import Config as ExporterConfig
from plinth.load import remote_run
from plinth.load.resource_needs import limits
from plinth.load.slo import load_slo
from plinth.services.backup import NAME as BACKUPS
from plinth.services.project_files import collection_specs
from plinth.services.secrets import secrets
from plinth.settings import Settings
from plinth.settings.loader import load_settings, parse
from plinth.targets.kubernetes import load
from plinth.targets.kubernetes.backup_values import repository_ports
from plinth.targets.kubernetes.naming import object_name
from plinth.targets.kubernetes.target import KubernetesTarget
from tests.charts.rendering import VERSIONS, check, containers, needs_helm, parsed, pods, text
from tests.charts.restricted import violations
from tests.conftest import ROOT
from tests.services import plan_of

pytestmark = needs_helm
SLO = load_slo(ROOT / "load" / "slo.yaml")
DATABASES = {"databases": [{"name": "digi_core"}]}
SETTINGS: dict[str, Settings] = {
    **{env: load_settings(ROOT, env) for env in ("staging", "prod")},
    "small-with-tls": parse(
        {
            "target": "kubernetes",
            "qdrant": {"tls": {}},
            "postgres": DATABASES,
            "monitoring": {"alertmanager": {"webhook_url": "https://page.test", "heartbeat_url": "https://beat.test"}},
        },
        source="x",
    ),
    "with-backups-in-a-bucket": parse(
        {
            "target": "kubernetes",
            "kubernetes": {"images": {"plinth": "registry.test/plinth:0.1.0"}, "storage_class": "fast"},
            "qdrant": {"nodes": 3, "replication_factor": 2, "tls": {}},
            "postgres": DATABASES,
            "backup": {
                "repository": "s3:https://s3.test/bucket",
                "s3": {"access_key_id": "id", "secret_access_key": "key", "region": "eu", "path_style": True},
                "ca_cert": "s3-ca.pem",
                "upload_kib": 2048,
            },
            "gateway": {"enabled": True, "tls": {}, "replicas": 2, "replicas_max": 5, "worker_replicas": 2},
        },
        source="x",
    ),
    "with-backups-in-a-claim": parse(
        {
            "target": "kubernetes",
            "kubernetes": {"registry_mirror": "registry.test/hub"},
            "redis": {"enabled": False},
            "backup": {"disk_gib": 40},
        },
        source="x",
    ),
    "managed": parse(
        {
            "target": "kubernetes",
            "kubernetes": {
                "managed": {
                    "qdrant_url": "https://x.test:6333",
                    "qdrant_grpc_url": "https://x.test:6334",
                    "postgres_url": "postgresql://admin@pg.test:5432",
                }
            },
            "qdrant": {"api_key": "a", "read_only_api_key": "b"},
            "postgres": {"superuser_password": "c"},
            "monitoring": {"grafana": {"enabled": False}},
        },
        source="x",
    ),
}


def target(settings: Settings) -> KubernetesTarget:
    return plan_of(settings, ROOT).kubernetes_target


def objects(made: KubernetesTarget) -> list[dict[str, Any]]:
    """Everything that the charts of an environment make; tests of the charts' own are Helm's to run."""
    rendered = [text(chart, yaml.safe_dump(made.values(chart)), chart) for chart in made.charts()]
    found = [found for one in rendered for found in parsed(one)]
    return [found for found in found if "helm.sh/hook" not in (found["metadata"].get("annotations") or {})]


def of(kind: str, made: KubernetesTarget) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in objects(made) if found["kind"] == kind}


@pytest.fixture(params=sorted(SETTINGS))
def made(request: pytest.FixtureRequest) -> KubernetesTarget:
    return target(SETTINGS[request.param])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_of_that_kubernetes(made: KubernetesTarget, version: str) -> None:
    for found in objects(made):
        check(found, version)


@pytest.mark.requirement("S1-14")
def test_every_pod_keeps_to_restricted(made: KubernetesTarget) -> None:
    for name, pod in pods(objects(made)):
        assert violations(pod) == [], name


def test_the_bound_of_the_namespace_has_room_for_every_pod_and_one_in_its_place(made: KubernetesTarget) -> None:
    found = objects(made)
    count = {f"{o['kind']}/{o['metadata']['name']}": o.get("spec", {}).get("replicas", 1) for o in found}
    for scaled in of("HorizontalPodAutoscaler", made).values():
        spec = scaled["spec"]
        count[f"{spec['scaleTargetRef']['kind']}/{spec['scaleTargetRef']['name']}"] = spec["maxReplicas"]
    written = [
        count[name] * int(container["resources"]["limits"]["ephemeral-storage"].removesuffix("Gi"))
        for name, pod in pods(found)
        for container in containers(pod)
    ]
    # Beside a run of the load gate, which writes less than one GiB.
    assert 0 < 2 * sum(written) + 1 <= made.ephemeral_gib()


def test_volumes_are_called_and_sized_as_the_target_grows_them(made: KubernetesTarget) -> None:
    sizes = {
        name: {
            claim["metadata"]["name"]: int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
            for claim in found["spec"].get("volumeClaimTemplates", [])
        }
        for name, found in of("StatefulSet", made).items()
    }
    assert {name: claims for name, claims in sizes.items() if claims} == made.claims()


def test_every_way_in_leads_to_pods_that_there_are(made: KubernetesTarget) -> None:
    running = [
        {
            **found["spec"]["template"]["metadata"]["labels"],
            **({"statefulset.kubernetes.io/pod-name": f"{name}-{number}"} if kind == "StatefulSet" else {}),
            "ports": {
                port["containerPort"]
                for container in found["spec"]["template"]["spec"]["containers"]
                for port in container["ports"]
            },
        }
        for kind in ("StatefulSet", "Deployment")
        for name, found in of(kind, made).items()
        for number in range(found["spec"].get("replicas", 1) if kind == "StatefulSet" else 1)
    ]
    for route in made.routes():
        wanted = dict(part.split("=") for part in route.selector.split(","))
        led = [pod for pod in running if wanted.items() <= pod.items()]
        assert len(led) == 1, route
        assert route.port in led[0]["ports"], route


def test_every_service_has_the_name_and_the_port_that_others_call(made: KubernetesTarget) -> None:
    named = of("Service", made)
    for service in made.services.values():
        if service.name == BACKUPS:
            # Its pods come and go, and nobody calls them.
            continue
        ports = {port["port"] for port in named[object_name(service.name)]["spec"]["ports"]}
        assert ports == set(service.ports.values()), service.name


@pytest.mark.requirement("S1-14")
def test_every_secret_that_a_pod_reads_is_made_first(made: KubernetesTarget) -> None:
    told = made.secrets()
    for found in objects(made):
        for name, key in secrets_read(found):
            assert key in told[name], (found["metadata"]["name"], name, key)
    assert not of("Secret", made)


def secrets_read(found: Any) -> set[tuple[str, str]]:
    """Each Secret and key that an object names, wherever in it."""
    if isinstance(found, list):
        return set().union(*map(secrets_read, found))
    if not isinstance(found, dict):
        return set()
    read = set().union(*map(secrets_read, found.values()))
    if "secretKeyRef" in found:
        read.add((found["secretKeyRef"]["name"], found["secretKeyRef"]["key"]))
    for about in (found.get("secret"), found):
        if isinstance(about, dict) and "items" in about and ("secretName" in about or found.get("secret") is about):
            name = about.get("secretName") or about["name"]
            read |= {(name, item["key"]) for item in about["items"]}
    return read


def load_job(name: str) -> dict[str, Any]:
    """The Job of a run of the load gate in an environment, with eight workers."""
    settings = SETTINGS[name]
    profile = SLO.profile("release").model_copy(update={"processes": 8})
    shipped = next(spec for spec in collection_specs(settings, ROOT) if "embeddings" in spec.aliases)
    job = remote_run.job_of("release", SLO, shipped, url="http://x", grpc=None, protocol="rest")
    return load.job_of(settings, "registry.test/plinth:0.1.0", job, limits(profile))


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"managed"}))
def test_a_load_run_keeps_to_the_rules_of_the_namespace_and_is_let_in_to_qdrant(name: str) -> None:
    made, job = target(SETTINGS[name]), load_job(name)
    for version in VERSIONS:
        check(job, version)
    ((_, pod),) = pods([job])
    assert violations(pod) == []
    ways = of("NetworkPolicy", made)["qdrant"]["spec"]["ingress"]
    allowed = [
        peer["podSelector"]["matchLabels"]
        for way in ways
        if {port["port"] for port in way["ports"]} == {"http", "grpc"}
        for peer in way["from"]
    ]
    assert any(labels.items() <= pod["metadata"]["labels"].items() for labels in allowed)
    # No policy of a chart, each of which says what its own pods may, is about it; no Service leads to it.
    for kind in ("NetworkPolicy", "Service"):
        for about in of(kind, made).values():
            spec = about["spec"]
            selector = spec["podSelector"]["matchLabels"] if kind == "NetworkPolicy" else spec["selector"]
            assert not selector.items() <= pod["metadata"]["labels"].items(), about["metadata"]["name"]
    for secret, key in secrets_read(job):
        assert key in made.secrets()[secret], (secret, key)
    read = {key for _, key in secrets_read(job)}
    assert read == {"api-key"} | ({"ca.crt"} if SETTINGS[name].qdrant.tls else set())


def test_a_load_run_gets_what_its_workers_need_and_is_tried_once() -> None:
    job = load_job("small-with-tls")
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"] > 0) == (0, True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["cpu"] == "9"
    assert container["resources"]["requests"]["cpu"] == "4"
    assert container["command"] == ["python3", "-m", "plinth.load"]
    assert load_job("small-with-tls")["metadata"]["name"] != job["metadata"]["name"]


BACKED_UP = ["with-backups-in-a-bucket", "with-backups-in-a-claim"]


@pytest.mark.requirement("S1-06")
@pytest.mark.parametrize("name", BACKED_UP)
def test_backups_take_every_store_at_its_address_with_its_secret(name: str) -> None:
    settings = SETTINGS[name]
    made = target(settings)
    config = Config.model_validate(yaml.safe_load(of("ConfigMap", made)["backup-config"]["data"]["config.yaml"]))
    scheme = "https" if settings.qdrant.tls else "http"
    assert config.qdrant is not None
    assert config.postgres is not None
    assert config.qdrant.urls == tuple(f"{scheme}://{at}" for at in made.addresses("qdrant", "http"))
    assert f"{config.postgres.host}:{config.postgres.port}" == made.address("postgres", "sql")
    assert (config.redis is not None) == settings.redis.enabled
    assert (config.qdrant.ca_file is not None) == (settings.qdrant.tls is not None)
    assert config.schedule.backup == settings.backup.schedule
    assert config.repository.limit_upload_kib == settings.backup.upload_kib
    assert (config.repository.ca_file is not None) == (settings.backup.ca_cert is not None)
    jobs = of("CronJob", made)
    assert {job: about["spec"]["schedule"] for job, about in jobs.items()} == {
        "backup-run": settings.backup.schedule,
        "backup-check": settings.backup.check_schedule,
        "backup-drill": settings.backup.drill_schedule,
    }


@pytest.mark.requirement("S1-06")
@pytest.mark.parametrize("name", BACKED_UP)
def test_backups_take_grafanas_database_from_beside_it_and_nobody_else_is_let_in(name: str) -> None:
    made = target(SETTINGS[name])
    told = Config.model_validate(yaml.safe_load(of("ConfigMap", made)["backup-config"]["data"]["config.yaml"]))
    service = of("Service", made)["monitoring-grafana-copy"]
    (port,) = service["spec"]["ports"]
    assert isinstance(told.grafana, LentGrafana)
    assert told.grafana.url == f"http://monitoring-grafana-copy.{made.namespace}.svc:{port['port']}/database"
    ((_, pod),) = pods([of("StatefulSet", made)["monitoring-grafana"]])
    grafana, lender = pod["spec"]["containers"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    data = {each["name"]: {m["name"]: m for m in each["volumeMounts"]}["data"] for each in (grafana, lender)}
    assert [("readOnly" in mount, mount["mountPath"]) for mount in data.values()] == [
        (False, "/var/lib/grafana"),
        (True, "/var/lib/grafana"),
    ]
    ((_, run),) = pods([of("CronJob", made)["backup-run"]])
    assert lender["image"] == run["spec"]["containers"][0]["image"]
    assert {"secrets", "config"}.isdisjoint(mount["name"] for mount in lender["volumeMounts"])
    (way,) = of("NetworkPolicy", made)["monitoring-grafana-copy"]["spec"]["ingress"]
    (peer,) = way["from"]
    assert way["ports"] == [{"port": "copy", "protocol": "TCP"}]
    for _, job in pods(list(of("CronJob", made).values())):
        assert peer["podSelector"]["matchLabels"].items() <= job["metadata"]["labels"].items()
    (others,) = of("NetworkPolicy", made)["monitoring-grafana"]["spec"]["ingress"]
    assert others["ports"] == [{"port": "http", "protocol": "TCP"}]
    shared = {name: keys["copy-password"] for name, keys in made.secrets().items() if "copy-password" in keys}
    assert shared == dict.fromkeys(("monitoring-grafana", "backup-keys"), "grafana_copy_password")


@pytest.mark.requirement("S1-06")
@pytest.mark.parametrize("without", ["backup", "monitoring"])
def test_without_backups_or_grafana_nothing_is_lent(without: str) -> None:
    off = {"backup": {"enabled": False}, "monitoring": {"grafana": {"enabled": False}}}[without]
    settings = parse({"target": "kubernetes", without: off}, source="x")
    made = target(settings)
    assert "monitoring-grafana-copy" not in of("Service", made)
    assert "monitoring-grafana-copy" not in of("NetworkPolicy", made)
    assert not [name for name, keys in made.secrets().items() if "copy-password" in keys]
    assert "grafana_copy_password" not in secrets(settings)
    for name, pod in pods(objects(made)):
        assert "copy" not in [each["name"] for each in pod["spec"]["containers"]], name


@pytest.mark.requirement("S1-06")
def test_a_repository_that_is_named_nowhere_is_a_claim_of_its_own() -> None:
    made = target(SETTINGS["with-backups-in-a-claim"])
    claims = of("PersistentVolumeClaim", made)
    assert set(claims) == {"backup-work", "backup-state", "backup-repository"}
    sizes = {
        name: int(claims[name]["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
        for name in made.claims_alone()
    }
    assert sizes == made.claims_alone() == {"backup-work": 40 << 30, "backup-repository": 40 << 30}
    config = of("ConfigMap", made)["backup-config"]["data"]["config.yaml"]
    location = Config.model_validate(yaml.safe_load(config)).repository.location
    for _, pod in pods(list(of("CronJob", made).values())):
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes[mounts[location]]["persistentVolumeClaim"]["claimName"] == "backup-repository"
    elsewhere = target(SETTINGS["with-backups-in-a-bucket"])
    assert set(of("PersistentVolumeClaim", elsewhere)) == {"backup-work", "backup-state"}
    assert set(elsewhere.claims_alone()) == {"backup-work"}


@pytest.mark.parametrize("name", BACKED_UP)
def test_a_backup_is_let_in_to_every_store_and_is_where_the_exporter_is(name: str) -> None:
    made = target(SETTINGS[name])
    stores = [store for store in ("qdrant", "postgres", "redis") if store in made.services]
    exporter = of("Deployment", made)["monitoring-plinth-exporter"]["spec"]["template"]["metadata"]["labels"]
    for job, pod in pods(list(of("CronJob", made).values())):
        labels = pod["metadata"]["labels"]
        for store in stores:
            ways = of("NetworkPolicy", made)[store]["spec"]["ingress"]
            peers = [peer for way in ways for peer in way.get("from", []) if "podSelector" in peer]
            assert any(peer["podSelector"]["matchLabels"].items() <= labels.items() for peer in peers), (job, store)
        (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"].items() <= exporter.items()


@pytest.mark.requirement("S1-09")
@pytest.mark.parametrize("name", BACKED_UP)
def test_the_exporter_reads_what_the_backups_leave_and_prometheus_scrapes_it(name: str) -> None:
    settings = SETTINGS[name]
    made = target(settings)
    told = yaml.safe_load(of("ConfigMap", made)["monitoring-plinth-exporter-config"]["data"]["config.yaml"])
    config = ExporterConfig.model_validate(told)
    assert config.qdrant.url == f"{'https' if settings.qdrant.tls else 'http'}://{made.address('qdrant', 'http')}"
    assert config.qdrant.peers == settings.qdrant.nodes
    assert config.qdrant.memory_limit_bytes == settings.size.memory_mib << 20
    assert list(config.collections) == collection_specs(settings, ROOT)
    backups = Config.model_validate(yaml.safe_load(of("ConfigMap", made)["backup-config"]["data"]["config.yaml"]))
    assert config.backup_state == backups.state
    ((_, watcher),) = pods([of("Deployment", made)["monitoring-plinth-exporter"]])
    ((_, job),) = pods([of("CronJob", made)["backup-run"]])
    claims = [claim_at(pod, str(backups.state.parent)) for pod in (watcher, job)]
    assert claims == ["backup-state", "backup-state"]
    scrapes = yaml.safe_load(of("ConfigMap", made)["monitoring-prometheus-config"]["data"]["prometheus.yml"])
    (scrape,) = (scrape for scrape in scrapes["scrape_configs"] if scrape["job_name"] == "plinth-exporter")
    assert scrape["static_configs"] == [{"targets": ["monitoring-plinth-exporter:9188"]}]


def claim_at(pod: dict[str, Any], path: str) -> str:
    """The claim that a pod has at a path."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["mountPath"] == path]
    name: str = volumes[mount["name"]]["persistentVolumeClaim"]["claimName"]
    return name


def ways_out(policy: dict[str, Any]) -> tuple[set[int], bool]:
    """The ports at which a policy lets pods reach any address, but for the name service, and whether the namespace."""
    anywhere = [way["ports"] for way in policy["spec"]["egress"] if "to" not in way]
    peers = [peer for way in policy["spec"]["egress"] for peer in way.get("to", [])]
    return {port["port"] for ports in anywhere for port in ports} - {53, 5353}, peers == [{"podSelector": {}}]


@pytest.mark.parametrize("name", BACKED_UP)
def test_nothing_leaves_the_namespace_but_backups_to_their_repository_and_alerts(name: str) -> None:
    made = target(SETTINGS[name])
    for policy_name, policy in of("NetworkPolicy", made).items():
        if policy_name.endswith("-copy"):
            continue  # the container beside Grafana, whose pod has Grafana's policy
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], policy_name
        if policy_name.startswith("monitoring-") or policy_name == "backup":
            ports, namespace = ways_out(policy)
            assert namespace, policy_name
            repository = {443} if SETTINGS[name].backup.repository else set()
            assert ports == (repository if policy_name == "backup" else set()), policy_name


def test_alerts_leave_at_the_ports_of_their_webhooks_alone() -> None:
    settings = parse(
        {
            "target": "kubernetes",
            "monitoring": {
                "alertmanager": {"webhook_url": "https://pager.test/x", "heartbeat_url": "http://beat.test:8080/y"}
            },
        },
        source="x",
    )
    policies = of("NetworkPolicy", target(settings))
    assert ways_out(policies["monitoring-alertmanager"]) == ({443, 8080}, True)
    assert ways_out(policies["monitoring-prometheus"]) == (set(), True)


@pytest.mark.parametrize(
    ("location", "ports"),
    [
        (None, []),
        ("/var/backups", []),
        ("s3:https://s3.test/bucket", [443]),
        ("s3:s3.test/bucket", [443]),
        ("s3:http://minio.test:9000/bucket", [9000]),
        ("rest:https://backup.test:8000/", [8000]),
        ("rest:http://[::1]/", [80]),
        ("sftp:user@host.test:/srv", [22]),
        ("sftp://user@host.test:2222//srv", [2222]),
    ],
)
def test_the_port_of_a_repository(location: str | None, ports: list[int]) -> None:
    assert list(repository_ports(location)) == ports
