from django.urls import path

from console.accounts import views

urlpatterns = [
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("language/", views.language, name="language"),
    path("preferences/", views.preferences, name="preferences"),
    path("preferences/password/", views.password, name="password"),
]
