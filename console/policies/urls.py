from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.policies import views

urlpatterns = [
    path("policies/", views.policy_list, name="policy-list"),
    path("policies/create/", views.create, name="policy-create"),
    path("policies/try/", views.attempt, name="policy-try"),
    path("policies/<name:name>/", views.policy, name="policy"),
    path("policies/<name:name>/edit/", views.edit, name="policy-edit"),
    path("policies/<name:name>/delete/", views.delete, name="policy-delete"),
]
