"""The monitor's loop: one round about every second, until told to stop."""

import logging
import threading
import time

from django.conf import settings
from django.db import DatabaseError

from console import history, kafka
from console.deadletters import queries as deadletters
from console.deadletters.indexer import Indexer
from console.devices import refusals
from console.inventory.keeping import Inventory
from console.monitor.ages import Ages
from console.monitor.brokerage import Brokerage
from console.monitor.compose import Composer, series
from console.monitor.presence import Presence
from console.monitor.publish import Publisher
from console.monitor.sampling import Facts, Sampler
from console.monitor.traffic import Traffic

log = logging.getLogger("sluice.monitor")

ROUND_SECONDS = 1.0


def run(stop: threading.Event) -> None:
    sampler, composer = Sampler(kafka.admin), Composer(embedded=not settings.SLUICE.kafka)
    publisher, ages, brokerage = Publisher(), Ages(), Brokerage()
    traffic = Traffic(refusals.keep)
    presence = Presence(lambda name, status: traffic.take_gateway(name, status, time.time()))
    inventory = Inventory()
    past = history.Writer(settings.SLUICE.history_database)
    ages.start()
    presence.start()
    brokerage.start()
    traffic.start()
    indexer = threading.Thread(target=Indexer().run, args=(stop,), name="dead-letters", daemon=True)
    indexer.start()
    said = ""
    try:
        while not stop.is_set():
            began = time.monotonic()
            trouble = sampler.round()
            facts, now = sampler.facts, time.time()
            picture = composer.compose(
                facts,
                now,
                ages=ages.of(facts.committed, facts.ends, facts.starts, now),
                devices=presence.online,
                letters=_open_letters(),
                broker=brokerage.numbers(now),
                open_doors=_open_doors(facts, mqtt=presence.anonymous(now)),
                trouble=trouble,
                traffic=traffic.rows(now),
                refused=traffic.refused,
            )
            try:
                publisher.publish(picture)
            except (kafka.ClientError, kafka.SettingsError) as error:
                trouble = trouble or str(error)
            if trouble != said:
                log.warning("%s", trouble) if trouble else log.info("the cluster answers again")
                said = trouble
            if not trouble:
                past.add(series(picture), now)
                try:
                    inventory.keep(picture)
                except DatabaseError as error:
                    log.info("the inventory can't be written: %s", error)
            stop.wait(max(0.05, ROUND_SECONDS - (time.monotonic() - began)))
    finally:
        stop.set()
        indexer.join(5)
        ages.stop()
        presence.stop()
        brokerage.stop()
        traffic.stop()
        past.close()


def _open_doors(facts: Facts, *, mqtt: bool) -> tuple[str, ...]:
    """Where nobody needs to sign in: gateways say it of theirs; the embedded broker is open until the first ACL."""
    kafka_open = not settings.SLUICE.kafka and not settings.SLUICE.acls_always_on and facts.acls == 0
    return ("mqtt",) * mqtt + ("kafka",) * kafka_open


def _open_letters() -> int | None:
    """Dead letters nobody has dealt with; None while the index can't be read."""
    try:
        return deadletters.open_count()
    except DatabaseError as error:
        log.info("dead letters can't be counted: %s", error)
        return None
