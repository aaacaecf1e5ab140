"""Values that contradict each other are refused with one sentence that names the value and the next step."""

from __future__ import annotations

import re

import pytest

from tests.charts.rendering import CHARTS, needs_helm, refusal

pytestmark = needs_helm
Q = "auth: {existingSecret: k}\n"
C = Q + "replicas: 3\nconfig: {storage: {collection: {replication_factor: 2}}}\n"
P = "auth: {existingSecret: k}\n"
L = "qdrant: {targets: ['q:6333']}\nlogin: {existingSecret: l}\n"
M = L + "grafana: {existingSecret: g}\n"
A = "alertmanager: {existingSecret: a, "
G = L + "grafana: {existingSecret: g, copy: {enabled: true, "
B = "image: {repository: plinth}\nqdrant: {urls: ['http://q:6333']}\n"
R = "repository: {location: 's3:b', existingSecret: k}\n"
W = "image: {repository: plinth}\n"
S = "postgres: {existingSecret: k}\n"
T = "tokens: {jwks: 'https://id.test/keys'}\n"
LOGINS = (
    *("rest:https://u:p@h:8000/b", "rest:https://token@h/b", "s3:AK:SK@h/b", "s3:AK:S/K@h/b", "s3:https://AK:SK@h/b"),
    *("b2:i:k@b:p", "sftp:u:p@h:/b", "rclone:r,pass=x:b"),
)
CASES = [
    ("gateway", S + T, "image.repository is empty"),
    ("gateway", W + T, "postgres.existingSecret is empty"),
    ("gateway", W + S, "tokens.jwks is empty, so nobody could call"),
    ("gateway", W + S + "tokens: {jwks: 'https://id.test/keys', existingSecret: k}", "are both set"),
    ("gateway", W + S + T + "qdrant: {caSecret: c}", "which is reached without TLS"),
    ("gateway", W + S + T + "provider: {name: http, url: 'http://m.test/v1'}", "has a url and a model"),
    ("gateway", W + S + T + "provider: {name: mock, model: m}", "which asks no address"),
    ("gateway", W + S + T + "qdrant: {collectionTokens: true}", "no key would sign them"),
    ("gateway", W + S + T + "tracing: {existingSecret: s}", "so nothing is traced"),
    ("gateway", W + S + T + "provider: {dimension: 8}", "makes vectors of 384 values"),
    ("gateway", W + S + T + "autoscaling: {enabled: true, maxReplicas: 1}", "below autoscaling.minReplicas"),
    ("gateway", W + S + T + "service: {grpcPort: 8000}", "are both 8000"),
    ("gateway", W + S + T + "networkPolicy: {enabled: false, egress: {ports: [443]}}", "keep nobody out"),
    ("monitoring", M + "gateway: {name: g, caSecret: c}", "gateway.tls is false"),
    ("monitoring", M + "gateway: {tls: true}", "gateway.name is empty"),
    (
        "monitoring",
        "qdrant: {targets: ['q:6333']}\nmode: operator\ngateway: {name: g}",
        "what mode operator does not run",
    ),
    ("qdrant", "", "auth.existingSecret is empty"),
    ("qdrant", Q + "replicas: 2", "replicas is 2"),
    ("qdrant", Q + "replicas: 3", "replication_factor is 1"),
    ("qdrant", Q + "config: {storage: {collection: {replication_factor: 2}}}", "no more than 1 nodes"),
    ("qdrant", Q + "config: {service: {api_key: x}}", "config.service.api_key would show a key"),
    ("qdrant", Q + "config: {service: {alt_api_key: x}}", "config.service.alt_api_key would show a key"),
    ("qdrant", Q + "config: {service: {http_port: 1}}", "set service.httpPort"),
    ("qdrant", Q + "config: {cluster: {enabled: true}}", "follow from replicas and tls"),
    ("qdrant", Q + "config: {storage: {snapshots_config: {s3_config: {secret_key: x}}}}", "extraEnvFrom"),
    ("qdrant", "auth: {enabled: false, existingSecret: k}", "auth.enabled is false"),
    ("qdrant", "auth: {enabled: false}\nservice: {type: LoadBalancer}", "the service is published"),
    (
        "qdrant",
        "auth: {enabled: false}\nhttpRoute: {enabled: true, parentRefs: [{name: g}]}",
        "the service is published",
    ),
    ("qdrant", Q + "tls: {enabled: true}", "tls.existingSecret is empty"),
    ("qdrant", Q + "tls: {existingSecret: t}", "tls.enabled is false"),
    ("qdrant", C + "tls: {enabled: true, existingSecret: t, caKey: ''}", "tls.caKey is empty"),
    ("qdrant", Q + "service: {grpcPort: 6333}", "are both 6333"),
    ("qdrant", Q + "service: {grpcPort: 6335}", "port 6335 is the nodes' own"),
    ("qdrant", Q + "ingress: {enabled: true}", "ingress.host is empty"),
    ("qdrant", Q + "ingress: {enabled: true, host: h}", "ingress.tlsSecret is empty"),
    ("qdrant", Q + "httpRoute: {enabled: true}", "httpRoute.parentRefs is empty"),
    ("qdrant", Q + "grpcRoute: {enabled: true}", "grpcRoute.parentRefs is empty"),
    ("qdrant", Q + "serviceMonitor: {enabled: true}\npodMonitor: {enabled: true}", "scraped twice"),
    ("qdrant", Q + "preStopSeconds: 70", "preStopSeconds is 70 of the 70"),
    ("qdrant", Q + "updateStrategy: {partition: 4}", "updateStrategy.partition is 4"),
    ("qdrant", Q + "image: {tag: latest}", "has the tag latest"),
    ("qdrant", Q + "config: {service: {host: '::'}}", "set networkPolicy.clients"),
    ("qdrant", Q + "config: {storage: {storage_path: /x}}", "config.storage.storage_path is where"),
    ("qdrant", "auth: {existingSecret: k, readOnlyApiKeyKey: api-key}", "are both api-key"),
    (
        "qdrant",
        Q + "service: {loadBalancerSourceRanges: [10.0.0.0/8]}",
        "keep nobody out of a service of type ClusterIP",
    ),
    ("qdrant", Q + "podAntiAffinity: hard\naffinity: {nodeAffinity: {}}", "which affinity replaces"),
    ("qdrant", C + "podDisruptionBudget: {maxUnavailable: 2}", "lets 2 of 3 nodes go"),
    ("qdrant", C + "podDisruptionBudget: {maxUnavailable: 34%}", "lets 2 of 3 nodes go"),
    ("redis", "", "auth.existingSecret is empty"),
    ("redis", P + "image: {tag: latest}", "has the tag latest"),
    ("postgres", "", "auth.existingSecret is empty"),
    ("postgres", P + "databases: [{name: a}]", "a has no passwordKey"),
    ("postgres", P + "databases: [{name: a, passwordKey: a}, {name: a, passwordKey: b}]", "names a twice"),
    ("postgres", P + "databases: [{name: postgres, passwordKey: a}]", "would belong to the superuser"),
    ("postgres", "operator: {enabled: true}\ndatabases: [{name: a}]", "a has no passwordSecret"),
    ("postgres", "operator: {enabled: true, instances: 2}", "operator.instances is 2"),
    ("postgres", P + "operator: {enabled: true}", "auth is for the chart's own server"),
    ("postgres", P + "config: {port: 5433}", "config.port is not yours to set"),
    ("monitoring", "", "qdrant.targets is empty"),
    ("monitoring", "qdrant: {targets: ['q:6333']}", "login.existingSecret is empty"),
    ("monitoring", L, "grafana.existingSecret is empty"),
    ("monitoring", "qdrant: {targets: ['q:6333']}\nlogin: {existingSecret: l}\nmode: operator", "does not run"),
    ("monitoring", M + A + "heartbeatTokenKey: t}", "no address of alertmanager.heartbeatKey"),
    ("monitoring", M + A + "ticketWebhookTokenKey: t}", "no address of alertmanager.ticketWebhookKey"),
    ("monitoring", M + "alertmanager: {webhookTokenKey: t}", "no address of alertmanager.webhookKey"),
    ("monitoring", M + A + "image: {tag: v0.25.1}}", "reads no address from a file"),
    ("monitoring", "qdrant: {targets: ['q:1'], caSecret: t}\ngrafana: {existingSecret: g}", "qdrant.tls is false"),
    ("monitoring", M + "redisExporter: {enabled: true}", "redisExporter.existingSecret is empty"),
    ("monitoring", M + "postgresExporter: {enabled: true}", "postgresExporter.existingSecret is empty"),
    ("monitoring", M + "plinthExporter: {enabled: true}", "plinthExporter.image.repository is empty"),
    ("monitoring", M + "rules: {leaveOut: [nothing.yml]}", "no such file of rules"),
    ("monitoring", M + "plinthExporter: {enabled: true, url: 'https://q:1', image: {repository: p}}", "set them alike"),
    ("monitoring", M + "mode: operator", "does not run"),
    (
        "monitoring",
        L + "grafana: {enabled: false, lokiUrl: 'http://l:1'}",
        "nobody would read it",
    ),
    ("monitoring", M + "alertmanager: {heartbeatKey: h}", "lead nowhere"),
    ("monitoring", G + "image: {repository: ''}}}", "grafana.copy.image.repository is empty"),
    ("monitoring", G + "image: {repository: p}, port: 3000}}", "are both 3000"),
    (
        "monitoring",
        G.replace("existingSecret: g", "enabled: false") + "image: {repository: p}}}",
        "no Grafana runs",
    ),
    ("backup", "", "image.repository is empty"),
    ("backup", B, "repository.location is empty"),
    ("backup", B + "repository: {location: /data}", "repository.claim is empty"),
    ("backup", B + "repository: {location: /data, claim: c}", "set repository.location to that"),
    ("backup", B + "repository: {location: 's3:b'}\npersistence: {repository: {size: 1Gi}}", "leave the claim out"),
    (
        "backup",
        B + "repository: {location: /data, claim: c}\npersistence: {repository: {size: 1Gi}}",
        "are both set, and one repository",
    ),
    *(
        ("backup", B + f"repository: {{location: '{address}', existingSecret: k}}", "has a secret in its address")
        for address in LOGINS
    ),
    ("backup", B + "repository: {location: 's3:b'}", "repository.existingSecret is empty"),
    (
        "backup",
        B + "repository: {location: 's3:b', existingSecret: k, environment: {AWS_SECRET_ACCESS_KEY: x}}",
        "would put a secret into a ConfigMap",
    ),
    ("backup", "image: {repository: plinth}\n" + R, "nothing is taken"),
    ("backup", B + R + "postgres: {enabled: true}", "postgres.existingSecret is empty"),
    ("backup", B + R + "grafana: {enabled: true}", "grafana.existingSecret is empty"),
    ("backup", B + R + "schedules: {run: '', check: '', drill: ''}", "would ever run"),
    ("backup", B + R + "postgres: {existingSecret: k}", "set postgres.enabled"),
    (
        "backup",
        "image: {repository: p}\n" + R + "qdrant: {existingSecret: k}\nredis: {enabled: true, existingSecret: k}",
        "set qdrant.urls",
    ),
    ("backup", B.replace("]", "], caSecret: c") + R, "give it as https"),
    (
        "backup",
        B + "repository: {location: 's3:b', existingSecret: k, environment: {A: b}, secretEnvironment: {A: c}}",
        "both set A",
    ),
]
POLICIES = [
    ("networkPolicy: {allowAnyClient: true, clients: [{podSelector: {}}]}", "lets everyone in"),
    ("networkPolicy: {enabled: false, allowAnyClient: true}", "keep nobody out"),
]
OF_EACH = [
    ("podLabels: {app.kubernetes.io/name: x}", "podLabels has the label"),
    ("commonLabels: {app.kubernetes.io/component: x}", "commonLabels has the label"),
    ("serviceAccount: {create: false, annotations: {a: b}}", "no account would have them"),
]
WHOLE = {"gateway": W + S + T, "qdrant": Q, "redis": P, "postgres": P, "monitoring": M, "backup": B + R}
SHARED = [
    (chart, whole + given, words)
    for chart, whole in WHOLE.items()
    for given, words in (*OF_EACH, *(POLICIES if chart != "backup" else ()))
]


@pytest.mark.parametrize(
    ("chart", "values", "words"), CASES + SHARED, ids=[f"{chart}: {words}" for chart, _, words in CASES + SHARED]
)
def test_a_contradiction_is_refused_with_one_sentence(chart: str, values: str, words: str) -> None:
    said = refusal(chart, values)
    assert words in said
    sentence = said[said.index(": ", said.index("execution error")) + 2 :].strip().splitlines()[0]
    assert sentence.endswith("."), sentence
    assert ";" in sentence or ":" in sentence or "," in sentence, "it names no next step"


@pytest.mark.parametrize(
    ("chart", "values", "kind"),
    [
        ("qdrant", Q + "serviceMonitor: {enabled: true}", "ServiceMonitor"),
        ("qdrant", Q + "podMonitor: {enabled: true}", "PodMonitor"),
        ("qdrant", Q + "prometheusRule: {enabled: true}", "PrometheusRule"),
        ("qdrant", Q + "httpRoute: {enabled: true, parentRefs: [{name: g}]}", "HTTPRoute"),
        ("qdrant", Q + "grpcRoute: {enabled: true, parentRefs: [{name: g}]}", "GRPCRoute"),
        ("postgres", "operator: {enabled: true}", "Cluster"),
        ("monitoring", "qdrant: {targets: ['q:6333']}\nmode: operator", "PrometheusRule"),
    ],
)
def test_a_kind_that_the_cluster_does_not_know_is_refused(chart: str, values: str, kind: str) -> None:
    said = refusal(chart, values, apis=())
    assert f"the kind {kind}, which this cluster does not know" in said
    assert "--api-versions" in said


@pytest.mark.parametrize(
    ("chart", "values", "words"),
    [
        ("qdrant", "replicas: 0", "/replicas"),
        ("qdrant", "tier: huge", "/tier"),
        ("qdrant", "persistence: {storage: {size: 10GB}}", "/persistence/storage/size"),
        ("qdrant", "service: {httpPort: 70000}", "/service/httpPort"),
        ("qdrant", "image: {tagg: v1}", "additional properties 'tagg' not allowed"),
        ("qdrant", "podAntiAffinity: maybe", "/podAntiAffinity"),
        ("redis", "maxmemoryPolicy: none", "/maxmemoryPolicy"),
        ("postgres", "databases: [{name: Upper}]", "/databases/0/name"),
        ("monitoring", "mode: both", "/mode"),
        ("backup", "schedules: {run: daily}", "/schedules/run"),
        ("backup", "qdrant: {urls: ['qdrant-0:6333']}", "/qdrant/urls/0"),
        ("monitoring", "qdrant: {targets: ['http://qdrant-0:6333']}", "/qdrant/targets/0"),
        ("qdrant", "podDisruptionBudget: {maxUnavailable: 0}", "/podDisruptionBudget/maxUnavailable"),
        ("qdrant", "podDisruptionBudget: {maxUnavailable: most}", "/podDisruptionBudget/maxUnavailable"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_the_schema(chart: str, values: str, words: str) -> None:
    assert words in refusal(chart, values)


def test_every_refusal_of_the_charts_is_tried() -> None:
    written = 0
    for path in CHARTS.glob("*/templates/_*.tpl"):
        if path.name != "_plinth.tpl":
            written += len(re.findall(r"\bfail \(?", path.read_text()))
    # Some are within a loop, and are tried more than once.
    assert written <= len(CASES)
