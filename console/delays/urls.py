from django.urls import path

from console.delays import views

urlpatterns = [
    path("deliveries/", views.pending, name="delay-list"),
    path("deliveries/<int:partition>/<int:row>/cancel/", views.cancel, name="delay-cancel"),
]
