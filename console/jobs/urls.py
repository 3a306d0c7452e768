from django.urls import path

from console.jobs import views

urlpatterns = [
    path("jobs/", views.job_list, name="job-list"),
    path("jobs/<uuid:pk>/", views.job, name="job"),
    path("jobs/<uuid:pk>/state/", views.state, name="job-state"),
    path("jobs/<uuid:pk>/cancel/", views.cancel, name="job-cancel"),
]
