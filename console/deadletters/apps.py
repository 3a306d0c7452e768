from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "console.deadletters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from console.deadletters import runner  # noqa: F401, PLC0415 - registers the job's runner
