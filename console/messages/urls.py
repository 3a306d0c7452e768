from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.messages import views

urlpatterns = [
    path("topics/<name:name>/messages/", views.explorer, name="topic-messages"),
    path("topics/<name:name>/messages/<int:partition>/<int:offset>/", views.message, name="topic-message"),
    path(
        "topics/<name:name>/messages/<int:partition>/<int:offset>/value/", views.download, name="topic-message-download"
    ),
]
