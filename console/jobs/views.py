"""The list of jobs, and one job's page with its progress."""

from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, jobs, lists
from console.accounts.permissions import Permission, requires
from console.jobs.models import Job

COLUMNS = (
    lists.Column(key="title", label=gettext_lazy("Job"), value=lambda j: j.title, order="title"),
    lists.Column(key="kind", label=gettext_lazy("Kind"), value=lambda j: j.kind, order="kind", css="opt"),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda j: j.state, order="state", sortable=False),
    lists.Column(
        key="by", label=gettext_lazy("Started by"), value=lambda j: j.actor_name, order="actor_name", css="opt"
    ),
    lists.Column(
        key="created", label=gettext_lazy("Created"), value=lambda j: j.created, order="created", css="num opt"
    ),
)
STATE = lists.Filter(
    name="state",
    label=gettext_lazy("State"),
    choices=(
        lists.Choice(value="all", label=pgettext_lazy("jobs", "All")),
        lists.Choice(value="open", label=gettext_lazy("Not finished")),
        lists.Choice(value="done", label=gettext_lazy("Done")),
        lists.Choice(value="failed", label=gettext_lazy("Failed")),
        lists.Choice(value="cancelled", label=gettext_lazy("Cancelled")),
    ),
)


def _found(rows: QuerySet[Job], text: str) -> QuerySet[Job]:
    return rows.filter(Q(title__icontains=text) | Q(kind__icontains=text) | Q(actor_name__icontains=text))


@requires(Permission.VIEW)
@require_safe
def job_list(request: HttpRequest) -> HttpResponse:
    state = lists.chosen(request, STATE)
    rows = Job.objects.all()
    if state == "open":
        rows = rows.exclude(state__in=Job.FINISHED)
    elif state != "all":
        rows = rows.filter(state=state)
    listing = lists.build(
        request,
        name="jobs",
        columns=COLUMNS,
        rows=rows,
        row_template="jobs/_row.html",
        search=_found,
        sort="-created",
        filters=(STATE,),
        placeholder=_("Filter jobs by title, kind or who started them"),
        empty=lists.Empty(
            title=_("No jobs yet"),
            hint=_("Sending many dead letters again, exports and imports run as jobs and appear here."),
            sampled=False,
        ),
    )
    return lists.respond(request, listing, "jobs/list.html")


@requires(Permission.VIEW)
@require_safe
def job(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The page; for htmx, the part of it that moves."""
    found = get_object_or_404(Job, pk=pk)
    part = "#progress" if request.htmx else ""  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, f"jobs/job.html{part}", {"job": found})


@requires(Permission.VIEW)
@require_safe
def state(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One row's state, asked again and again while the job goes on."""
    return render(request, "jobs/_state.html", {"job": get_object_or_404(Job, pk=pk)})


@requires(Permission.JOB_CONTROL)
@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = get_object_or_404(Job, pk=pk)
    if request.method == "POST":
        jobs.cancel(actor=request.user, job=found)
        return dialogs.done(request, reverse("console:job", args=[pk]), _("The job was asked to stop."))
    return dialogs.show(request, "jobs/cancel.html", {"job": found})
