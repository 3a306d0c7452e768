"""Pages of consumer groups."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, kafka, lists, snapshot
from console.accounts.permissions import Permission, requires
from console.deadletters import queries as deadletters
from console.groups import actions, queries
from console.groups.causes import causes, written_to
from console.groups.forms import Reset

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Group"), value=lambda g: g.name),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda g: g.state),
    lists.Column(key="kind", label=gettext_lazy("Type"), value=lambda g: g.kind, css="opt2"),
    lists.Column(key="members", label=gettext_lazy("Members"), value=lambda g: g.members, css="num opt"),
    lists.Column(key="topics", label=gettext_lazy("Topics"), value=lambda g: len(g.topics), css="num opt2"),
    lists.Column(key="lag", label=gettext_lazy("Lag"), value=lambda g: g.lag, css="num"),
    lists.Column(key="age", label=gettext_lazy("Oldest unread"), value=lambda g: g.age, css="num opt"),
    lists.Column(key="rate", label=gettext_lazy("Reads/s"), value=lambda g: g.rate, css="num opt"),
    lists.Column(key="eta", label=gettext_lazy("Caught up in"), value=lambda g: g.eta, css="num opt2"),
)
KIND = lists.Filter(
    name="kind",
    label=gettext_lazy("Kind"),
    choices=(
        lists.Choice(value="user", label=gettext_lazy("Groups")),
        lists.Choice(value="lagging", label=gettext_lazy("With lag")),
        lists.Choice(value="empty", label=gettext_lazy("Without members")),
        lists.Choice(value="all", label=gettext_lazy("With internal groups")),
    ),
)
KEEPS: dict[str, Any] = {
    "user": lambda g: not g.internal,
    "lagging": lambda g: not g.internal and bool(g.lag),
    "empty": lambda g: not g.internal and g.members == 0,
    "all": lambda g: True,
}


@requires(Permission.VIEW)
@require_safe
def group_list(request: HttpRequest) -> HttpResponse:
    keep = KEEPS[lists.chosen(request, KIND)]
    listing = lists.build(
        request,
        name="groups",
        columns=COLUMNS,
        rows=[group for group in snapshot.current().groups.values() if keep(group)],
        row_template="groups/_row.html",
        search=lambda group: f"{group.name} {' '.join(group.topics)}",
        sort="-lag",
        filters=(KIND,),
        placeholder=_("Filter groups by name or topic"),
        empty=lists.Empty(
            title=_("No consumer groups yet"),
            hint=_("A group appears when the first consumer joins it."),
            command="kafka-console-consumer.sh --topic orders --group billing --bootstrap-server …",
        ),
    )
    return lists.respond(request, listing, "groups/list.html")


@requires(Permission.VIEW)
@require_safe
def group(request: HttpRequest, name: str) -> HttpResponse:
    known = snapshot.current().groups.get(name)
    detail = queries.detail(name)
    if known is None and detail.group is None and not detail.positions and not detail.missing:
        title = _("There is no group %(name)s.") % {"name": name}
        return render(request, "error.html", {"title": title, "status": 404}, status=404)
    if known is None:
        known = snapshot.Group(name=name, lag=detail.lag, state=detail.group.state if detail.group else "")
    rates = {topic.name: topic.in_rate for topic in snapshot.current().topics.values()}
    found = causes(
        known,
        detail.positions,
        detail.group.members if detail.group else None,
        written_to(known, rates),
    )
    context = {"group": known, "detail": detail, "causes": found, "letters": deadletters.of_group(name)}
    return render(request, "groups/group.html", context)


@requires(Permission.GROUP_RESET)
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest, name: str) -> HttpResponse:
    """GET: the form. POST: the preview; POST with `sure`: done, if nothing moved since the preview."""
    known = snapshot.current().groups.get(name)
    topics = list(known.topics) if known else sorted({position.topic for position in queries.detail(name).positions})
    form = Reset(topics, request.POST or None)
    context: dict[str, Any] = {"name": name, "form": form, "group": known, "topics": topics}
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        moves = queries.moves(name, data["topics"], data["target"], form.value)
        if "sure" not in request.POST:
            return dialogs.show(request, "groups/reset_preview.html", {**context, "moves": moves})
        try:
            actions.reset(actor=request.user, name=name, moves=moves)
        except kafka.errors.GroupNotEmpty:
            form.add_error(
                None, _("The group has members. Stop its consumers first: their own commits would undo this.")
            )
        except kafka.ClusterError as error:
            form.add_error(None, kafka.reason(error))
        else:
            said = _("The offsets of %(name)s were moved.") % {"name": name}
            return dialogs.done(request, reverse("console:group", args=[name]), said)
    return dialogs.show(request, "groups/reset.html", context, refused=bool(form.errors))


@requires(Permission.GROUP_DELETE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    form = dialogs.TypeName(name, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            actions.delete(actor=request.user, name=name)
        except kafka.errors.GroupNotEmpty:
            form.add_error("typed", _("The group has members. Stop its consumers first."))
        else:
            said = _("Group %(name)s was deleted.") % {"name": name}
            return dialogs.done(request, reverse("console:group-list"), said)
    context = {"name": name, "form": form, "group": snapshot.current().groups.get(name)}
    return dialogs.show(request, "groups/delete.html", context, refused=bool(form.errors))
