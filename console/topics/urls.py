from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.topics import views

urlpatterns = [
    path("topics/", views.topic_list, name="topic-list"),
    path("topics/create/", views.create, name="topic-create"),
    path("topics/<name:name>/", views.topic, name="topic"),
    path("topics/<name:name>/settings/", views.settings, name="topic-settings"),
    path("topics/<name:name>/configure/", views.configure, name="topic-configure"),
    path("topics/<name:name>/add-partitions/", views.add_partitions, name="topic-add-partitions"),
    path("topics/<name:name>/purge/", views.purge, name="topic-purge"),
    path("topics/<name:name>/delete/", views.delete, name="topic-delete"),
]
