"""Signing in, and changing one's own password and preferences."""

from typing import Any

from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext_lazy as _

from console.accounts.models import User
from console.accounts.permissions import ROLE_LABELS, Role


class SignInForm(AuthenticationForm):
    error_messages = {  # noqa: RUF012 - the base class declares it so
        "invalid_login": _("That name and password don't match an account."),
        "inactive": _("That name and password don't match an account."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("Name")
        self.fields["username"].widget.attrs.update({"autocomplete": "username", "spellcheck": "false"})
        self.fields["password"].widget.attrs.update({"autocomplete": "current-password"})


class PreferencesForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs alone
    class Meta:
        model = User
        fields = ("theme", "clock", "language")


class PasswordForm(forms.Form):
    current = forms.CharField(
        label=_("Current password"), widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )
    new = forms.CharField(label=_("New password"), widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}))

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_current(self) -> str:
        current: str = self.cleaned_data["current"]
        if not self.user.check_password(current):
            raise forms.ValidationError(_("That is not your current password."))
        return current

    def clean_new(self) -> str:
        new: str = self.cleaned_data["new"]
        password_validation.validate_password(new, self.user)
        return new


class RoleForm(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=[(role.value, ROLE_LABELS[role]) for role in Role])

    def chosen(self) -> Role:
        return Role(self.cleaned_data["role"])


class CreateAccount(RoleForm):
    username = forms.CharField(label=_("Name"), max_length=150, validators=[User.username_validator])
    field_order = ("username", "role")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs.update({"autocomplete": "off", "spellcheck": "false", "autofocus": True})
