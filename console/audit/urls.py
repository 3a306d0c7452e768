from django.urls import path

from console.audit import views

urlpatterns = [
    path("audit/", views.entry_list, name="audit-list"),
    path("audit/<int:pk>/", views.entry, name="audit-entry"),
]
