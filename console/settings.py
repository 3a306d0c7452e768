"""Django's settings, all derived from one frozen `Configuration`."""

import os
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.utils.functional import lazy

from console.configuration import Configuration

SLUICE = Configuration.from_environment(os.environ)

ROOT = Path(__file__).resolve().parent.parent
DEBUG = SLUICE.debug
SECRET_KEY: Any = lazy(SLUICE.secret_key, str)()  # made when first used, so that loading settings writes nothing
ALLOWED_HOSTS = SLUICE.allowed_hosts
CSRF_TRUSTED_ORIGINS = sorted(SLUICE.origins)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "csp",
    "django_htmx",
    "template_partials",
    "console",
    "console.accounts",
    "console.audit",
    "console.jobs",
    "console.outbox",
    "console.inventory",
    "console.policies",
    "console.routes",
    "console.bridges",
    "console.devices",
    "console.topics",
    "console.deadletters",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "console.accounts.middleware.preferences",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.errors.translate",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "console.shell.context",
            ],
            "builtins": ["console.templatetags.sluice", "django.templatetags.i18n", "django.templatetags.static"],
        },
    }
]

if SLUICE.database_url:
    DATABASES: dict[str, Any] = {"default": dict(dj_database_url.parse(SLUICE.database_url, conn_max_age=60))}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": SLUICE.console_database,
            "OPTIONS": {
                # A write transaction takes its lock when it begins: waiting works then, upgrading a read lock doesn't.
                "transaction_mode": "IMMEDIATE",
                "timeout": 10,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON;",
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "console:sign-in"
LOGIN_REDIRECT_URL = "console:overview"
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "console.accounts.views.locked_out"
AXES_IPWARE_PROXY_COUNT = 0  # console.proxies has already put the client's address in its place
AXES_VERBOSE = False

SESSION_COOKIE_NAME = "sluice_session"
SESSION_COOKIE_AGE = 14 * 24 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = SLUICE.secure
CSRF_COOKIE_NAME = "sluice_csrf"
CSRF_COOKIE_HTTPONLY = True  # the page's markup carries the token; script never needs the cookie
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = SLUICE.secure
LANGUAGE_COOKIE_NAME = "sluice_language"
LANGUAGE_COOKIE_SAMESITE = "Lax"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31536000 if SLUICE.secure else 0
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [SLUICE.data / "locale"]  # compiled there from console/locale at start; no gettext program is needed
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
USE_THOUSAND_SEPARATOR = True
FORMAT_MODULE_PATH = ["console.formats"]

STATIC_URL = "static/"
STATIC_ROOT = SLUICE.data / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024

CELERY: dict[str, Any] = {
    "broker_url": SLUICE.redis_url or "filesystem://localhost",
    "broker_transport_options": {}
    if SLUICE.redis_url
    else {
        "data_folder_in": str(SLUICE.data / "celery" / "queue"),
        "data_folder_out": str(SLUICE.data / "celery" / "queue"),
        "processed_folder": str(SLUICE.data / "celery" / "processed"),
        "control_folder": str(SLUICE.data / "celery" / "control"),
        "store_processed": False,
    },
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "worker_concurrency": 4,
    "beat_schedule_filename": str(SLUICE.data / "celery" / "beat"),
    "beat_schedule": {
        "reap jobs": {"task": "console.jobs.reap", "schedule": 10.0},
        "drain outbox": {"task": "console.outbox.drain", "schedule": 5.0},
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"axes": {"level": "WARNING"}, "django.request": {"level": "ERROR"}},
}
