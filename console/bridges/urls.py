from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.bridges import views

urlpatterns = [
    path("bridges/", views.bridge_list, name="bridge-list"),
    path("bridges/create/", views.create, name="bridge-create"),
    path("bridges/<name:name>/", views.bridge, name="bridge"),
    path("bridges/<name:name>/edit/", views.edit, name="bridge-edit"),
    path("bridges/<name:name>/enable/", views.enable, name="bridge-enable"),
    path("bridges/<name:name>/disable/", views.disable, name="bridge-disable"),
    path("bridges/<name:name>/delete/", views.delete, name="bridge-delete"),
]
