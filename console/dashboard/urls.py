from django.urls import path

from console.dashboard import views

urlpatterns = [
    path("", views.overview, name="overview"),
    path("history/", views.history, name="history"),
    path("search/", views.search, name="search"),
]
