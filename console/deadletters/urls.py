from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.deadletters import views

urlpatterns = [
    path("dead-letters/", views.topic_list, name="dlq-list"),
    path("dead-letters/<name:name>/", views.topic, name="dlq"),
    path("dead-letters/<name:name>/redrive/", views.redrive_all, name="dlq-redrive-all"),
    path("dead-letters/<name:name>/discard/", views.discard, name="dlq-discard"),
    path("dead-letters/<name:name>/<int:pk>/", views.letter, name="dlq-letter"),
    path("dead-letters/<name:name>/<int:pk>/redrive/", views.redrive, name="dlq-redrive"),
]
