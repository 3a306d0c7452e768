from django.urls import path

from console.accounts import staff, views

urlpatterns = [
    path("sign-in/", views.sign_in, name="sign-in"),
    path("sign-out/", views.sign_out, name="sign-out"),
    path("language/", views.language, name="language"),
    path("preferences/", views.preferences, name="preferences"),
    path("preferences/password/", views.password, name="password"),
    path("accounts/", staff.account_list, name="account-list"),
    path("accounts/create/", staff.create, name="account-create"),
    path("accounts/<int:pk>/role/", staff.role, name="account-role"),
    path("accounts/<int:pk>/enable/", staff.enable, name="account-enable"),
    path("accounts/<int:pk>/disable/", staff.disable, name="account-disable"),
    path("accounts/<int:pk>/reset/", staff.reset, name="account-reset"),
]
