"""A real Prometheus scrapes what the chart's monitors would let it scrape: every query of alerts and dashboard has an
answer, and Prometheus can evaluate every rule."""

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import tempfile
import types
import urllib.parse
import urllib.request
from pathlib import Path

from suite.base import Failed, Skipped, check, equal, run, wait
from suite.product import CHART, CSI_NAMESPACE, NAMESPACE
from suite.runner import ALONE, test
from suite.space import canary, pod

from .authorities import bundle_of, providers

FAST = {"refresh": "1s", "metrics-port": "9102"}
ALERTS = CHART / "files/alerts.yaml"
# What Grafana fills in.
VARIABLES = {"$__rate_interval": "1m", "$namespace": ".*"}


def queries():
    """What the dashboard asks: each query by its panel, with the labels that its legend shows, and what its variable is
    made of."""
    dashboard = json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))
    found = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, text in VARIABLES.items():
                query = query.replace(name, text)
            found[f"{panel['title']}: {query}"] = query, set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = re.match(r"label_values\((\w+), ", variable["definition"])[1]
            found[f"variable {variable['name']}: {query}"] = query, {variable["name"]}
    return found


def target(job, thing, port, container):
    """As the operator's Prometheus has it of a PodMonitor: address, and the labels that it gives to series."""
    metadata = thing["metadata"]
    labels = {"namespace": metadata["namespace"], "pod": metadata["name"], "node": thing["spec"]["nodeName"]}
    labels["container"] = container
    return {
        "job_name": job,
        "static_configs": [{"targets": [f"{thing['status']['podIP']}:{port}"], "labels": labels}],
    }


def by_job(targets):
    """A job has all of its targets, and its name once."""
    jobs = {}
    for each in targets:
        jobs.setdefault(each["job_name"], {**each, "static_configs": []})["static_configs"] += each["static_configs"]
    return list(jobs.values())


class Prometheus:
    """Of Debian's package, on this machine's own address alone."""

    def __init__(self, directory, targets):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        # JSON is YAML.
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "5s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": by_job(targets),
        }
        path = Path(directory, "prometheus.yml")
        path.write_text(json.dumps(config), encoding="utf-8")
        self.log = Path(directory, "log")
        listen = ":".join(map(str, self.address))
        options = [f"--config.file={path}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address={listen}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["prometheus", *options, "--log.level=warn"], stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path, **parameters):
        check(self.process.poll() is None, f"Prometheus ended: {self.log.read_text(errors='replace')[-2000:]}")
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise Failed(f"Prometheus: {path}: {error}") from None
        finally:
            connection.close()
        check(answer.status == 200, f"Prometheus: {path} {parameters}: {answer.status} {text[:500]!r}")
        return json.loads(text)["data"]

    def series(self, query):
        return self.get("query", query=query)["result"]


def linted(targets):
    """What each of them tells, by Prometheus' own rules for names and texts."""
    for each in targets:
        (static,) = each["static_configs"]
        with urllib.request.urlopen(f"http://{static['targets'][0]}/metrics", timeout=10) as page:
            text = page.read().decode()
        result = run("promtool", "check", "metrics", stdin=text, ok=False)
        equal((result.returncode, result.stderr), (0, ""), f"promtool, of {each['job_name']}")


def rules(prometheus):
    """The alerts, as Prometheus has loaded them."""
    return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def throttling(t):
    """Vault answers one request in five seconds to each address, and 429 to all others."""
    t.vault.call("POST", "sys/quotas/rate-limit/hushpod-e2e", {"path": "secret/", "rate": 1, "interval": "5s"})
    try:
        yield
    finally:
        t.vault.delete("sys/quotas/rate-limit/hushpod-e2e")


@contextlib.contextmanager
def trusted_by_bundle(t):
    """The same Vault once more, as `fronted`, whose authorities are in a ClusterTrustBundle: what is told of them."""
    with bundle_of(t) as (name, write):
        write(types.SimpleNamespace(pem=t.vault.ca))
        with t.suite.product.configured(providers=providers(t, caBundle={"name": name})):
            yield


@test(when=ALONE, node=True, long=True)
def metrics_answer_every_query_of_alerts_and_dashboard(t):
    """The processes of both replicas, the driver, and agents of which one has leases, one an application that hears
    nothing, and one a restart before it: Prometheus reads them as the monitors say, and no query is about something that
    nobody tells."""
    if not shutil.which("prometheus"):
        raise Skipped("there is no prometheus: apt-get install --no-install-recommends prometheus")
    t.open()
    product = t.suite.product
    with trusted_by_bundle(t), tempfile.TemporaryDirectory() as directory:
        reference = t.secret(password=canary())
        variables = t.secret(path="variables", TOKEN=canary())
        asks = {"file.password": f"fronted:{reference}#password", "dir.db": t.database(default_ttl="1h", max_ttl="2h")}
        asks["secrets"] = f'[{{file: none, from: "secret/data/{t.namespace}/none#x", optional: true}}]'
        restarts = {"env.TOKEN": f"{variables}#TOKEN", "on-change": "restart-all", "on-change-jitter": "1h"}
        agents = t.start(
            # Nobody listens there.
            pod("web", {**asks, **FAST, "notify": "http://127.0.0.1:9/"}),
            pod("restarts", {**restarts, **FAST}),
            seconds=180,
        )
        t.start(pod("volume", {"file.password": f"{reference}#password", "mode": "csi", "refresh": "1s"}))
        targets = [
            target(f"{NAMESPACE}/hushpod-webhook", each, port, container)
            for each in product.pods()
            for container, port in product.processes(each).items()
        ]
        targets += [target(f"{NAMESPACE}/hushpod-agents", each, 9102, "hushpod") for each in agents]
        targets.append(target(f"{CSI_NAMESPACE}/hushpod-csi", product.driver(), 8081, "csi"))
        with Prometheus(directory, targets) as prometheus:

            def all_up():
                found = [(each["metric"]["pod"], each["value"][1]) for each in prometheus.series("up")]
                equal([pod for pod, up in found if up != "1"], [], "pods with targets that are not up")
                return len(found) == len(targets)

            wait("all targets to be scraped", 60, all_up)
            # Something to tell: a change that is notified in vain, and one for which containers are to be restarted.
            t.secret(password=canary())
            t.secret(path="variables", TOKEN=canary())
            asked = queries()
            check(len(asked) > 40, f"only {len(asked)} queries")

            def answered():
                for name, (query, labels) in asked.items():
                    series = prometheus.series(query)
                    check(series, f"no answer to {name}")
                    lacks = [each["metric"] for each in series if not labels <= each["metric"].keys()]
                    check(not lacks, f"what its legend shows is not in an answer to {name}: {lacks[:1]}")
                return True

            wait("an answer to every query of the dashboard", 90, answered, every=1)
            read = " ".join(rule["query"] for rule in rules(prometheus))
            # Each with the labels that it is asked for by: a word that nobody tells would wake nobody.
            selectors = set(re.findall(r"\b(?:hushpod_\w+|up)\b(?:\{[^}]*\})?", read))
            check(len(selectors) > 20, f"alerts read only {sorted(selectors)}")

            def told():
                untold = [each for each in sorted(selectors) if not prometheus.series(each)]
                check(not untold, f"nobody tells {untold}")
                return True

            with throttling(t):
                wait("what alerts read to be told", 90, told, every=1)

            def evaluated():
                unwell = [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules(prometheus)]
                unwell = [each for each in unwell if each[1] != "ok"]
                check(not unwell, f"rules that Prometheus cannot evaluate: {unwell}")
                return True

            wait("every rule to be evaluated", 30, evaluated, every=1)
            linted(targets)

            def all_is_well():
                """Nothing of what was scraped may wake somebody; one scrape that a busy machine missed is over in a moment."""
                active = {rule["name"]: rule["state"] for rule in rules(prometheus) if rule["state"] != "inactive"}
                woken = [name for name in active if re.search("Down|Missing|Trusted|Certificate|Refused|Exhausted", name)]
                equal(woken, [], f"alerts about what is well, of {active}")
                return True

            wait("no alert about what is well", 60, all_is_well, every=1)
