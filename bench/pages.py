"""Page times of the console with many topics: the product as it is started, asked over HTTP by one signed-in client."""

from __future__ import annotations

import http.cookiejar
import re
import statistics
import time
import urllib.parse
import urllib.request

from confluent_kafka.admin import AdminClient, NewTopic

from bench.machine import usage
from bench.tables import table
from tests.running_product import PASSWORD, Product, running_product

TOPICS = 500
PATHS = ("/", "/topics/", "/topics/?q=bench-1&sort=-in", "/topics/bench-000/", "/groups/", "/dead-letters/", "/audit/")
SEEN_SECONDS = 60.0


class Browser:
    """Signs in and fetches pages, keeping cookies."""

    def __init__(self, product: Product) -> None:
        self._url = product.url
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)
        body = self.get("/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', body)
        if not token:
            raise RuntimeError("the sign-in page has no form")
        fields = {"csrfmiddlewaretoken": token[1], "username": "admin", "password": PASSWORD}
        path = self.last_path  # where the redirect to the sign-in page ended
        request = urllib.request.Request(
            self._url + path, urllib.parse.urlencode(fields).encode(), headers={"Referer": self._url + path}
        )
        with self._opener.open(request, timeout=30) as answer:
            if answer.url.endswith(path):
                raise RuntimeError("not signed in")

    def get(self, path: str) -> str:
        with self._opener.open(self._url + path, timeout=30) as answer:
            self.last_path = urllib.parse.urlsplit(answer.url).path
            return answer.read().decode()


def section(scale: float) -> None:
    """Print the page times."""
    rounds = max(20, int(100 * scale))
    rows: list[list[object]] = []
    with running_product() as product:
        admin = AdminClient({"bootstrap.servers": product.kafka})
        made = admin.create_topics([NewTopic(f"bench-{number:03d}", 4, 1) for number in range(TOPICS)])
        for future in made.values():
            future.result(60)
        browser = Browser(product)
        deadline = time.monotonic() + SEEN_SECONDS
        while f"/topics/bench-{TOPICS - 1:03d}/" not in browser.get(f"/topics/?q=bench-{TOPICS - 1:03d}"):
            if time.monotonic() > deadline:
                raise RuntimeError("the topics did not appear in the list")
            time.sleep(0.5)
        for path in PATHS:
            times, size = [], 0
            for _ in range(rounds):
                started = time.perf_counter()
                size = len(browser.get(path))
                times.append((time.perf_counter() - started) * 1000)
            p95 = statistics.quantiles(times, n=20)[18]
            rows.append([path, f"{statistics.median(times):.1f}", f"{p95:.1f}", f"{size / 1024:.0f}"])
        memory = [
            [name, f"{usage(product.pid_of(name)).rss / 2**20:.0f}"]
            for name in ("broker", "gateway", "monitor", "worker", "web")
        ]
    print(table(f"Console pages with {TOPICS} topics", ["page", "p50 ms", "p95 ms", "KiB"], rows))
    print(table("Memory of each process meanwhile", ["process", "MiB"], memory))
