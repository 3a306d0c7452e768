from django.urls import path

from console.dashboard import views

urlpatterns = [
    path("", views.overview, name="overview"),
    path("history/", views.history, name="history"),
    path("storage/", views.storage_banner, name="storage"),
    path("search/", views.search, name="search"),
]
