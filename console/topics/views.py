"""Pages of topics."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, kafka, lists, snapshot
from console.accounts.permissions import Permission, requires
from console.messages import queries as messages
from console.topics import actions, queries
from console.topics.forms import AddPartitions, CreateTopic

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Name"), value=lambda t: t.name),
    lists.Column(key="partitions", label=gettext_lazy("Partitions"), value=lambda t: t.partitions, css="num opt"),
    lists.Column(key="messages", label=gettext_lazy("Messages"), value=lambda t: t.messages, css="num opt"),
    lists.Column(key="size", label=gettext_lazy("Size"), value=lambda t: t.size, css="num opt2"),
    lists.Column(key="in", label=gettext_lazy("In/s"), value=lambda t: t.in_rate, css="num"),
    lists.Column(key="out", label=gettext_lazy("Out/s"), value=lambda t: t.out_rate, css="num opt"),
    lists.Column(key="lag", label=gettext_lazy("Lag"), value=lambda t: t.lag, css="num"),
    lists.Column(key="groups", label=gettext_lazy("Groups"), value=lambda t: t.groups, css="num opt2"),
    lists.Column(key="last", label=gettext_lazy("Last record"), value=lambda t: t.last, css="num opt2"),
    lists.Column(key="cleanup", label=gettext_lazy("Cleanup"), value=lambda t: t.cleanup, css="opt2"),
)
KIND = lists.Filter(
    name="kind",
    label=gettext_lazy("Kind"),
    choices=(
        lists.Choice(value="user", label=gettext_lazy("Topics")),
        lists.Choice(value="active", label=gettext_lazy("Active now")),
        lists.Choice(value="lagging", label=gettext_lazy("With lag")),
        lists.Choice(value="dlq", label=gettext_lazy("Dead letters")),
        lists.Choice(value="all", label=gettext_lazy("With internal topics")),
    ),
)
KEEPS: dict[str, Any] = {
    "user": lambda t: not t.internal,
    "active": lambda t: not t.internal and bool(t.in_rate or t.out_rate),
    "lagging": lambda t: not t.internal and bool(t.lag),
    "dlq": lambda t: t.dead_letters,
    "all": lambda t: True,
}


@requires(Permission.VIEW)
@require_safe
def topic_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    keep = KEEPS[lists.chosen(request, KIND)]
    listing = lists.build(
        request,
        name="topics",
        columns=COLUMNS,
        rows=[topic for topic in picture.topics.values() if keep(topic)],
        row_template="topics/_row.html",
        search=lambda topic: topic.name,
        sort="name",
        filters=(KIND,),
        placeholder=_("Filter topics"),
        empty=lists.Empty(
            title=_("No topics yet"),
            hint=_("A topic appears when it is created here, or when a client writes to it."),
            command="kafka-topics.sh --create --topic orders --partitions 3 --bootstrap-server …",
        ),
    )
    return lists.respond(request, listing, "topics/list.html")


@requires(Permission.TOPIC_CREATE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    form = CreateTopic(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            actions.create(
                actor=request.user,
                name=data["name"],
                partitions=data["partitions"],
                replication=data["replication"] or -1,
                configs=form.configs(),
            )
        except kafka.ClusterError as error:
            form.add_error("name", kafka.reason(error))
        else:
            said = _("Topic %(name)s was created.") % {"name": data["name"]}
            return dialogs.done(request, reverse("console:topic", args=[data["name"]]), said)
    return dialogs.show(request, "topics/create.html", {"form": form}, refused=bool(form.errors))


@requires(Permission.VIEW)
@require_safe
def topic(request: HttpRequest, name: str) -> HttpResponse:
    picture = snapshot.current()
    detail = queries.detail(name)
    if not detail.exists and name not in picture.topics:
        return render(
            request,
            "error.html",
            {"title": _("There is no topic %(name)s.") % {"name": name}, "status": 404},
            status=404,
        )
    context = {
        "topic": picture.topics.get(name) or snapshot.Topic(name=name, partitions=len(detail.partitions)),
        "detail": detail,
        "newest": messages.newest(name, len(detail.partitions), limit=8),
        "consumers": queries.consumers(picture, name),
        "tab": "overview",
    }
    return render(request, "topics/topic.html", context)


@requires(Permission.VIEW)
@require_safe
def settings(request: HttpRequest, name: str) -> HttpResponse:
    detail = queries.detail(name)
    known = snapshot.current().topics.get(name) or snapshot.Topic(name=name, partitions=len(detail.partitions))
    return render(request, "topics/settings.html", {"topic": known, "detail": detail, "tab": "settings"})


@requires(Permission.TOPIC_CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def configure(request: HttpRequest, name: str) -> HttpResponse:
    """One entry: `key` names it; POST with `value`, or with `reset` to go back to the default."""
    key = request.POST.get("key") or request.GET.get("key", "")
    entry = next((one for one in queries.detail(name).entries if one.name == key), None)
    context: dict[str, Any] = {"name": name, "key": key, "entry": entry, "value": entry.value if entry else ""}
    if request.method == "POST":
        value = request.POST.get("value", "").strip()
        try:
            if "reset" in request.POST:
                actions.configure(actor=request.user, name=name, values={}, reset=frozenset({key}))
            else:
                actions.configure(actor=request.user, name=name, values={key: value})
        except actions.NothingToChange as error:
            context |= {"error": str(error), "value": value}
        except kafka.ClusterError as error:
            context |= {"error": kafka.reason(error), "value": value}
        else:
            said = _("%(key)s of %(name)s was changed.") % {"key": key, "name": name}
            return dialogs.done(request, reverse("console:topic-settings", args=[name]), said)
    return dialogs.show(request, "topics/configure.html", context, refused="error" in context)


@requires(Permission.TOPIC_CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def add_partitions(request: HttpRequest, name: str) -> HttpResponse:
    known = snapshot.current().topics.get(name)
    form = AddPartitions(known.partitions if known else 1, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            actions.add_partitions(actor=request.user, name=name, total=form.cleaned_data["total"])
        except kafka.ClusterError as error:
            form.add_error("total", kafka.reason(error))
        else:
            said = _("%(name)s has %(total)d partitions now.") % {"name": name, "total": form.cleaned_data["total"]}
            return dialogs.done(request, reverse("console:topic", args=[name]), said)
    context = {"name": name, "form": form, "now": form.now, "consumers": queries.consumers(snapshot.current(), name)}
    return dialogs.show(request, "topics/add_partitions.html", context, refused=bool(form.errors))


@requires(Permission.TOPIC_PURGE)
@require_http_methods(["GET", "HEAD", "POST"])
def purge(request: HttpRequest, name: str) -> HttpResponse:
    def act() -> HttpResponse:
        count = actions.purge(actor=request.user, name=name)
        said = ngettext("%(n)s record was deleted from %(name)s.", "%(n)s records were deleted from %(name)s.", count)
        return dialogs.done(request, reverse("console:topic", args=[name]), said % {"n": f"{count:,}", "name": name})

    return dialogs.confirm(request, "topics/purge.html", name, act, context=_at_stake(name))


@requires(Permission.TOPIC_DELETE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    def act() -> HttpResponse:
        actions.delete(actor=request.user, name=name)
        said = _("Topic %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:topic-list"), said)

    return dialogs.confirm(request, "topics/delete.html", name, act, context=_at_stake(name))


def _at_stake(name: str) -> dict[str, Any]:
    picture = snapshot.current()
    return {"topic": picture.topics.get(name), "consumers": queries.consumers(picture, name)}
