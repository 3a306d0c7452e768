from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.routes import views

urlpatterns = [
    path("routes/", views.route_list, name="route-list"),
    path("routes/try/", views.attempt, name="route-try"),
    path("routes/create/uplink/", views.create, {"kind": "uplink"}, name="route-create-uplink"),
    path("routes/create/downlink/", views.create, {"kind": "downlink"}, name="route-create-downlink"),
    path("routes/<name:name>/", views.route, name="route"),
    path("routes/<name:name>/edit/", views.edit, name="route-edit"),
    path("routes/<name:name>/enable/", views.enable, name="route-enable"),
    path("routes/<name:name>/disable/", views.disable, name="route-disable"),
    path("routes/<name:name>/delete/", views.delete, name="route-delete"),
]
