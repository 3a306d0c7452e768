from django.urls import path

import console.names  # noqa: F401 - registers the `name` converter
from console.access import views

urlpatterns = [
    path("users/", views.user_list, name="user-list"),
    path("users/create/", views.create_user, name="user-create"),
    path("users/<name:name>/rotate/", views.rotate_user, name="user-rotate"),
    path("users/<name:name>/revoke/", views.revoke_user, name="user-revoke"),
    path("acls/", views.acl_list, name="acl-list"),
    path("acls/create/", views.create_acl, name="acl-create"),
    path("acls/may/", views.may, name="acl-may"),
    path("acls/<str:token>/delete/", views.delete_acl, name="acl-delete"),
]
