from django.urls import path

from console.quotas import views

urlpatterns = [
    path("quotas/", views.quota_list, name="quota-list"),
    path("quotas/set/", views.put, name="quota-set"),
    path("quotas/remove/", views.remove, name="quota-remove"),
]
