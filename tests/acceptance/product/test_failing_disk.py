"""A disk that fails under the whole product: probe, `status` and every page say what, since when and what to do."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.parse
import urllib.request

import confluent_kafka

from tests.acceptance.log import strace
from tests.acceptance.product.test_start_and_stop import wait_until
from tests.running_product import PASSWORD, Product, running_product

WRITES = "pwritev,pwrite64,pwritev2"


class Visitor:
    """Somebody signed in to the console, without a browser."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        page = self.get("/sign-in/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token
        fields = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
        request = urllib.request.Request(f"{product.url}/sign-in/", urllib.parse.urlencode(fields).encode())
        request.add_header("Referer", f"{product.url}/sign-in/")
        self._opener.open(request, timeout=60).close()

    def get(self, path: str) -> str:
        with self._opener.open(f"{self._product.url}{path}", timeout=60) as answer:
            return str(answer.read().decode())


def sent(product: Product) -> str:
    """One record; the name of the error that came instead of the acknowledgement, or ""."""
    told: list[str] = []
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": product.kafka, "retries": 0, "message.timeout.ms": 60_000}
    )
    producer.produce("mqtt.messages", b"x", on_delivery=lambda error, _: told.append(error.name() if error else ""))
    producer.flush(90)
    return told[0]


@strace.needed
def test_a_failing_disk_is_told_of_everywhere_until_it_is_well_again() -> None:
    with running_product() as product:
        visitor = Visitor(product)
        assert 'class="note bad"' not in visitor.get("/")
        with strace.injected(product.pid_of("broker"), WRITES, "error=ENOSPC"):
            assert sent(product) == "KAFKA_STORAGE_ERROR"
            wait_until(lambda: "No space left" in product.health()[1], "/healthz does not tell")
            assert product.health()[0] == 503
            status = product.manage("status")
            assert status.returncode == 1
            assert "No space left" in status.stderr
            for page in ("/", "/topics/", "/devices/"):
                found = visitor.get(page)
                assert "No space left" in found
                assert "Free some space" in found
                assert "<time" in found[found.index('id="storage"') : found.index('id="main"')]
            assert "Free some space" in visitor.get("/storage/?shown=")
        wait_until(lambda: product.health()[0] == 200, "it does not heal")
        assert sent(product) == ""
        assert "Free some space" not in visitor.get("/")
        with strace.injected(product.pid_of("broker"), "fdatasync", "error=EIO"):
            assert sent(product) == "KAFKA_STORAGE_ERROR"
            wait_until(lambda: "until a restart" in product.health()[1], "/healthz does not tell")
        assert sent(product) == "KAFKA_STORAGE_ERROR"
        assert "restart the broker" in visitor.get("/groups/")
        product.kill("broker")
        wait_until(lambda: product.health()[0] == 200, "the restart does not heal it", within=60)
        assert sent(product) == ""
        assert 'class="note bad"' not in visitor.get("/")
