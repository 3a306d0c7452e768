"""The web process, put together: probes, trusted proxies, Django's pages, the live socket, and the metrics tail."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
pages = get_asgi_application()

from django.conf import settings  # noqa: E402 - Django is set up above; what follows needs its apps
from django.urls import path  # noqa: E402

from console import kafka, storage  # noqa: E402
from console.assets import Assets  # noqa: E402
from console.health import Health, Listener  # noqa: E402
from console.live.consumer import LiveConsumer  # noqa: E402
from console.live.hub import hub  # noqa: E402
from console.live.origin import KnownOrigins  # noqa: E402
from console.live.tap import TapConsumer  # noqa: E402
from console.proxies import TrustedProxies  # noqa: E402
from console.snapshot.tail import Tail  # noqa: E402
from console.supervisor import addresses  # noqa: E402


def own_listeners() -> list[Listener]:
    """Broker and gateway, where the environment says that they listen; a wildcard address is tried on loopback."""
    found = []
    for address in addresses.configured(os.environ, embedded=not settings.SLUICE.kafka):
        if address.variable != "SLUICE_HTTP":
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared
            name = "gateway" if address.variable == "SLUICE_MQTT_LISTENERS" else "broker"
            found.append(Listener(name=f"{name} {address.scheme}".strip(), host=host, port=address.port))
    return found


sockets = KnownOrigins(
    AuthMiddlewareStack(URLRouter([path("ws/live/", LiveConsumer.as_asgi()), path("ws/tap/", TapConsumer.as_asgi())])),
    settings.SLUICE.origins,
)
routes = Assets(ProtocolTypeRouter({"http": pages, "websocket": sockets}), settings.STATIC_ROOT)
application = TrustedProxies(
    Health(routes, settings.SLUICE.trusted_proxies, own_listeners()), settings.SLUICE.trusted_proxies
)
hub.follow()
Tail().start()
storage.Watch(lambda: kafka.admin().storage()).start()
