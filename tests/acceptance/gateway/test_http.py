"""Publishing by HTTP, with real sockets and foreign clients, against the running product."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.contract import BANS, DEVICES, Ban
from gateway.routes import Uplink
from tests.acceptance.gateway.people import Device311, Operator, operating, until
from tests.acceptance.gateway.stack import Stack
from tests.ports import free_port

SECRET = "a shared secret of some length, so that nobody warns"
ORDERS = Uplink(name="orders", filter="orders/#", topic="orders", deduplicate=3600.0)
STRICT = Uplink(name="strict", filter="strict/#", topic="strict", json_only=True)


class HttpStack(Stack):
    """Beside MQTT there is HTTP, on a port that stays the same over restarts."""

    def __init__(self, folder: Path, **environ: str) -> None:
        super().__init__(folder, **environ)
        self.http = free_port()
        self.environ["SLUICE_MQTT_LISTENERS"] += f",http://127.0.0.1:{self.http}"


class Client:
    """One kept connection. `post` gives (status, headers, document)."""

    def __init__(self, stack: HttpStack, user: str = "", password: str = "", *, bearer: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.http, timeout=60)
        self.headers: dict[str, str] = {}
        if user:
            self.headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if bearer:
            self.headers["Authorization"] = "Bearer " + bearer

    def post(self, target: str, body: bytes = b"", **headers: str) -> tuple[int, Any, Any]:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", target, body, self.headers | own)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())

    def status(self, target: str, body: bytes = b"") -> int:
        return self.post(target, body)[0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpStack]:
    folder = tmp_path_factory.mktemp("http")
    settings = folder / "jwt.json"
    settings.write_text(json.dumps({"key": SECRET, "algorithms": ["HS256"]}))
    made = HttpStack(folder, SLUICE_MQTT_JWT=str(settings))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def operator(stack: HttpStack) -> Iterator[Operator]:
    with operating(stack) as made:
        made.route(ORDERS)
        made.route(STRICT)
        probe = Client(stack)
        assert until(lambda: probe.post("/topics/strict/probe", b"{")[2]["outcome"] == "dead-letter")
        yield made


def values(operator: Operator, topic: str) -> list[bytes | None]:
    return [record.value for record in operator.records(topic)]


def test_a_message_is_stored_as_a_devices_is_and_reaches_subscribers(stack: HttpStack, operator: Operator) -> None:
    secret = operator.device("weather")
    assert until(lambda: Client(stack, "weather", secret).status("/topics/probe") == 200)
    listener = Device311(stack, "listener")
    listener.subscribe("plant/#")
    client = Client(stack, "weather", secret)
    status, _, document = client.post(
        "/topics/plant/7%2Ftemperature?retain=true&messageExpiry=600&responseTopic=back",
        b"\x00\xff 21.5",
        Content_Type="application/octet-stream",
        Sluice_User_Property="unit=C",
    )
    assert (status, document) == (200, {"topic": "plant/7/temperature", "outcome": "stored"})
    assert until(lambda: listener.received == [("plant/7/temperature", b"\x00\xff 21.5")]), listener.received
    (record,) = [each for each in operator.records("mqtt.messages") if each.value == b"\x00\xff 21.5"]
    assert record.key == b"weather"
    assert {name: value for name, value in record.headers if name != "sluice.trace"} == {
        "mqtt.topic": b"plant/7/temperature",
        "mqtt.client.id": b"weather",
        "mqtt.username": b"weather",
        "mqtt.qos": b"1",
        "mqtt.retain": b"1",
        "mqtt.content.type": b"application/octet-stream",
        "mqtt.response.topic": b"back",
        "mqtt.message.expiry": b"600",
        "mqtt.user.unit": b"C",
    }
    late = Device311(stack, "late")
    late.subscribe("plant/#")
    assert until(lambda: late.retained == [("plant/7/temperature", b"\x00\xff 21.5")])
    assert client.post("/topics/plant/8?qos=0", b"quick")[0] == 202
    assert until(lambda: ("plant/8", b"quick") in listener.received)
    listener.close()
    late.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_publishes(stack: HttpStack, operator: Operator) -> None:
    secret = operator.device("curly")
    assert until(lambda: Client(stack, "curly", secret).status("/topics/probe") == 200)
    url = f"http://127.0.0.1:{stack.http}"

    def curl(*arguments: str, body: bytes = b"") -> tuple[str, Any]:
        found = subprocess.run(
            ["curl", "-sS", "-w", "\n%{http_code}", *arguments], input=body, capture_output=True, timeout=60, check=True
        )
        document, _, status = found.stdout.decode().rpartition("\n")
        return status, json.loads(document)

    assert curl(f"{url}/topics/plant/curl", "-u", f"curly:{secret}", "-d", "21.5") == (
        "200",
        {"topic": "plant/curl", "outcome": "stored"},
    )
    large = b"x" * 1_000_000  # curl asks whether it may send that
    assert curl(f"{url}/topics/plant/large", "--data-binary", "@-", body=large)[0] == "200"
    assert curl(f"{url}/topics/plant/chunked", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", body=large)[
        0
    ] == ("200")
    assert curl(f"{url}/topics/plant/huge", "--data-binary", "@-", body=large + large)[0] == "413"
    assert curl(f"{url}/topics/plant/curl", "-u", "curly:wrong", "-d", "1")[0] == "401"
    assert curl(f"{url}/healthz") == ("200", {"status": "ok"})
    (record,) = [each for each in operator.records("mqtt.messages") if each.text("mqtt.topic") == "plant/curl"]
    assert (record.value, record.header("mqtt.content.type")) == (b"21.5", None)


def test_what_a_route_refuses_is_said_to_be_a_dead_letter(stack: HttpStack, operator: Operator) -> None:
    status, _, document = Client(stack).post("/topics/strict/7", b"{no json")
    assert (status, document["outcome"], document["reason"]) == (202, "dead-letter", "schema")
    assert b"{no json" in values(operator, "dlq.gateway")


def test_the_same_message_twice_is_stored_once_whichever_protocol_it_came_by(
    stack: HttpStack, operator: Operator
) -> None:
    client = Client(stack)
    first = client.post("/topics/orders/1", b"first", Sluice_Message_Id="a-1")
    again = client.post("/topics/orders/1", b"again", Idempotency_Key='"a-1"')
    assert first[2] == {"topic": "orders/1", "outcome": "stored", "id": "a-1", "window": 3600.0}
    assert again[0] == 200 and again[2] == first[2] | {"duplicate": True}
    (record,) = operator.records("orders")
    assert (record.value, record.text("sluice.message.id")) == (b"first", "a-1")


def test_a_bearer_token_is_its_subject_and_no_more(stack: HttpStack, operator: Operator) -> None:
    def token(secret: str = SECRET, **claims: Any) -> str:
        return jwt.encode({"sub": "app", "exp": time.time() + 600} | claims, secret, algorithm="HS256")

    client = Client(stack, bearer=token(acl={"publish": ["up/%u"]}))
    assert [client.status(topic) for topic in ("/topics/up/app", "/topics/up/else")] == [200, 403]
    for bad in (token("another secret of some length, also"), token(exp=time.time() - 1), "a.b.c"):
        assert Client(stack, bearer=bad).status("/topics/up/app") == 401
    assert "app" in {each.text("mqtt.client.id") for each in operator.records("mqtt.messages")}


def test_denied_revoked_and_banned_is_felt_by_a_connection_that_is_open(stack: HttpStack, operator: Operator) -> None:
    secret = operator.device("sensor", policies=("up",))
    operator.policy("up", publish=("up/%u/#",))
    operator.policy("everyone", publish=("#",), everyone=False)
    client = Client(stack, "sensor", secret)
    try:
        assert until(lambda: client.status("/topics/up/sensor/1", b"fine") == 200)
        assert until(lambda: client.status("/topics/down", b"denied") == 403)
        for target in ("/topics/up/else/1", "/topics/$delayed/1/down"):
            status, headers, document = client.post(target, b"denied")
            assert (status, document["reason"]) == (403, "denied")
            assert headers["Content-Type"] == "application/problem+json"
        assert client.status("/topics/%24SYS/x", b"denied") == 400

        def is_answered(wanted: int) -> bool:
            return until(lambda: client.status("/topics/up/sensor/1", b"fine") == wanted)

        operator.ban(Ban(kind="user", value="sensor"))
        assert is_answered(403)
        operator.put(BANS, "user:sensor", None)
        assert is_answered(200)
        operator.policy("up", publish=("elsewhere",))
        assert is_answered(403)
        operator.policy("up", publish=("up/%u/#",))
        assert is_answered(200)
        operator.put(DEVICES, "sensor", None)
        assert is_answered(401)
        status, headers, _ = client.post("/topics/up/sensor/1", b"denied")
        assert (status in (401, 429)) and (status == 429 or "Basic" in str(headers.get_all("WWW-Authenticate")))
    finally:
        for name in ("up", "everyone"):
            operator.put("__sluice_policies", name, None)
        assert until(lambda: Client(stack).status("/topics/open") == 200)
    assert b"denied" not in values(operator, "mqtt.messages") + values(operator, "dlq.gateway")


def test_guessing_is_slowed_down_and_the_rightful_owner_elsewhere_does_not_feel_it(
    stack: HttpStack, operator: Operator
) -> None:
    secret = operator.device("victim")
    assert until(lambda: Client(stack, "victim", secret).status("/topics/probe") == 200)
    guesser = Client(stack, "victim", "wrong")
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 50:  # each answer takes a while, and so does what is forgiven
        status, headers, document = guesser.post("/topics/probe")
        statuses.append(status)
    assert statuses[0] == 401 and set(statuses) == {401, 429}, statuses
    assert document["reason"] == "guesses" and 1 <= int(headers["Retry-After"]) <= 60
    elsewhere = Client(stack, "victim", secret)
    elsewhere.connection.source_address = ("127.0.0.2", 0)
    assert elsewhere.status("/topics/probe") == 200


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=pytest.mark.torture)], ids=["short", "long"])
def test_every_200_is_in_the_topic_once_though_gateway_and_broker_are_killed(tmp_path: Path, rounds: int) -> None:
    stack = HttpStack(tmp_path)
    stop = threading.Event()
    accepted: list[bytes] = []
    seen: Counter[str] = Counter()

    def publish(worker: int) -> None:
        client = Client(stack)
        number = 0
        while not stop.is_set():
            payload = b"%d/%d" % (worker, number)
            try:
                status, _, document = client.post(
                    f"/topics/orders/{worker}", payload, Sluice_Message_Id=payload.decode()
                )
            except (OSError, http.client.HTTPException):
                seen["broken off"] += 1
                client = Client(stack)
                time.sleep(0.02)
                continue
            seen[f"{status}{' duplicate' if document.get('duplicate') else ''}"] += 1
            if status == 200:
                accepted.append(payload)
                number += 1
            else:
                assert status in (503, 504), document
                time.sleep(0.02)

    try:
        stack.start()
        with operating(stack) as operator:
            operator.route(ORDERS)
            probe = Client(stack)
            assert until(
                lambda: probe.post("/topics/orders/x", b"probe", Sluice_Message_Id="p")[2].get("duplicate") is True
            )
            workers = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
            for worker in workers:
                worker.start()
            for process in (stack.gateway, stack.broker) * rounds:
                goal = len(accepted) + 200
                assert until(lambda goal=goal: len(accepted) >= goal), (seen, stack.gateway.since_start()[-2000:])
                process.kill()
                process.start()
            goal = len(accepted) + 200
            assert until(lambda: len(accepted) >= goal), seen
            stop.set()
            for worker in workers:
                worker.join(60)
            stored = Counter(value for value in values(operator, "orders") if value != b"probe")
        assert len(accepted) == len(set(accepted)) >= 400 * rounds
        assert [each for each in accepted if stored[each] != 1] == [], seen
        assert seen["broken off"] and max(stored.values()) == 1, (seen, stored.most_common(3))
        print(dict(seen))
    finally:
        stop.set()
        stack.stop()
