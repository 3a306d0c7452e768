from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.devices import ban_views, client_views, gateway_views, views

urlpatterns = [
    path("devices/", views.device_list, name="device-list"),
    path("devices/add/", views.add, name="device-add"),
    path("clients/", client_views.client_list, name="device-clients"),
    path("clients/<name:client_id>/", client_views.client, name="device-client"),
    path("clients/<name:client_id>/tap/", client_views.tap, name="device-tap"),
    path("clients/<name:client_id>/session/", gateway_views.session, name="device-session"),
    path("clients/<name:client_id>/kick/", client_views.kick, name="device-kick"),
    path("gateways/", gateway_views.gateway_list, name="device-gateways"),
    path("gateways/<name:name>/", gateway_views.gateway, name="device-gateway"),
    path("refused/", client_views.refused_list, name="device-refused"),
    path("bans/", ban_views.ban_list, name="device-bans"),
    path("bans/add/", ban_views.add_ban, name="device-ban"),
    path("bans/<int:pk>/lift/", ban_views.lift, name="device-ban-lift"),
    path("devices/<name:name>/", views.device, name="device"),
    path("devices/<name:name>/edit/", views.edit, name="device-edit"),
    path("devices/<name:name>/rotate/", views.rotate, name="device-rotate"),
    path("devices/<name:name>/revoke/", views.revoke, name="device-revoke"),
    path("devices/<name:name>/enable/", views.enable, name="device-enable"),
    path("devices/<name:name>/disable/", views.disable, name="device-disable"),
    path("devices/<name:name>/delete/", views.delete, name="device-delete"),
]
