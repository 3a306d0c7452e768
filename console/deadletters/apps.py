from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "console.deadletters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from console.deadletters import tasks  # noqa: F401 - registers the job's runner
