from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.groups import views

urlpatterns = [
    path("groups/", views.group_list, name="group-list"),
    path("groups/<name:name>/", views.group, name="group"),
    path("groups/<name:name>/reset/", views.reset, name="group-reset"),
    path("groups/<name:name>/delete/", views.delete, name="group-delete"),
]
