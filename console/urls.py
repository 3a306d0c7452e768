"""Every address of the console. Each slice brings its own under its noun."""

from django.contrib import admin
from django.urls import include, path

from console.access import urls as access
from console.accounts import urls as accounts
from console.audit import urls as audit
from console.bridges import urls as bridges
from console.dashboard import urls as dashboard
from console.deadletters import urls as deadletters
from console.delays import urls as delays
from console.devices import urls as devices
from console.groups import urls as groups
from console.jobs import urls as jobs
from console.messages import urls as messages
from console.policies import urls as policies
from console.quotas import urls as quotas
from console.routes import urls as routes
from console.topics import urls as topics

app_patterns = [
    *dashboard.urlpatterns,
    *accounts.urlpatterns,
    *topics.urlpatterns,
    *messages.urlpatterns,
    *groups.urlpatterns,
    *deadletters.urlpatterns,
    *delays.urlpatterns,
    *devices.urlpatterns,
    *policies.urlpatterns,
    *routes.urlpatterns,
    *bridges.urlpatterns,
    *access.urlpatterns,
    *quotas.urlpatterns,
    *jobs.urlpatterns,
    *audit.urlpatterns,
]

urlpatterns = [
    path("", include((app_patterns, "console"), namespace="console")),
    path("admin/", admin.site.urls),
]

handler404 = "console.dashboard.views.not_found"
handler403 = "console.dashboard.views.refused"
handler500 = "console.dashboard.views.broken"
