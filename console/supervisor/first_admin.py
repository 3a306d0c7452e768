"""The first administrator: made once, when there is nobody who could sign in."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from django.contrib.auth import get_user_model

from console.supervisor.folder import write_secret

FILE = "first-login.txt"


def ensure_first_admin(data: Path, password: str | None, *, say: Callable[[str], None]) -> None:
    """Create `admin` unless an account exists.

    A generated password (144 bits) is said once and kept in `first-login.txt` (0600), which may be deleted after the
    first sign-in; a password from the environment is neither printed nor written.
    """
    accounts = get_user_model()._default_manager
    if accounts.exists():
        return
    chosen = password or secrets.token_urlsafe(18)
    if not password:
        # written first: an account whose password nobody can know would lock everybody out
        write_secret(data / FILE, f"user: admin\npassword: {chosen}\n")
    accounts.create_superuser(username="admin", password=chosen, email="")
    if not password:
        say(f"first sign-in: user admin, password {chosen} (also in {data / FILE}; delete it once you have signed in)")
