"""Pages of dead letters."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, kafka, lists, snapshot
from console.accounts.permissions import Permission, requires
from console.deadletters import actions, queries
from console.deadletters.forms import SendAgain, SendAllAgain, TypeCount
from console.deadletters.models import Letter
from console.deadletters.redrive import NoTarget, own_headers, target_of
from console.deadletters.topics import holds_dead_letters

TOPICS = (
    lists.Column(key="name", label=gettext_lazy("Topic"), value=lambda row: row.name),
    lists.Column(key="open", label=gettext_lazy("Open"), value=lambda row: row.open, css="num"),
    lists.Column(key="causes", label=gettext_lazy("Causes"), sortable=False, css="opt"),
    lists.Column(key="oldest", label=gettext_lazy("Oldest"), value=lambda row: row.oldest, css="num opt2"),
    lists.Column(key="newest", label=gettext_lazy("Newest"), value=lambda row: row.newest, css="num opt"),
    lists.Column(key="resolved", label=gettext_lazy("Dealt with"), value=lambda row: row.resolved, css="num opt2"),
)
LETTERS = (
    lists.Column(key="at", label=gettext_lazy("Died"), order="at", css="opt"),
    lists.Column(key="reason", label=gettext_lazy("Reason"), order="reason"),
    lists.Column(key="key", label=gettext_lazy("Key"), order="key"),
    lists.Column(key="detail", label=gettext_lazy("Detail"), order="detail", css="opt"),
    lists.Column(key="origin", label=gettext_lazy("From"), order="origin_topic", css="opt2"),
    lists.Column(key="group", label=gettext_lazy("Group"), order="group", css="opt2"),
    lists.Column(key="attempts", label=gettext_lazy("Attempts"), order="attempts", css="num opt2"),
    lists.Column(key="state", label=gettext_lazy("State"), order="state", css="opt"),
)
ERRORS = (
    lists.Column(key="error", label=gettext_lazy("Error")),
    lists.Column(key="group", label=gettext_lazy("Group"), css="opt"),
    lists.Column(key="newest", label=gettext_lazy("Newest"), css="num opt"),
    lists.Column(key="letters", label=gettext_lazy("Letters"), css="num"),
)
STATES = lists.Filter(
    name="state",
    label=gettext_lazy("State"),
    choices=(
        lists.Choice(value="open", label=gettext_lazy("Open")),
        lists.Choice(value="redriven", label=gettext_lazy("Sent again")),
        lists.Choice(value="discarded", label=gettext_lazy("Discarded")),
        lists.Choice(value="gone", label=gettext_lazy("Removed by retention")),
        lists.Choice(value="any", label=gettext_lazy("Any state")),
    ),
)
ANY = "*"
UNKNOWN = "-"


@requires(Permission.VIEW)
@require_safe
def topic_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    names = [name for name in picture.topics if holds_dead_letters(name)]
    listing = lists.build(
        request,
        name="dead-letters",
        columns=TOPICS,
        rows=queries.topic_rows(names),
        row_template="deadletters/_topic.html",
        search=lambda row: f"{row.name} {' '.join(cause.reason for cause in row.causes)}",
        sort="-open",
        placeholder=_("Filter dead-letter topics"),
        refresh_on="cluster/dlq",
        drawn_at=picture.totals.dead_letters,
        empty=lists.Empty(
            title=_("No dead letters"),
            hint=_("What a consumer or a route can't process is kept in a topic whose name begins with dlq."),
        ),
    )
    return lists.respond(request, listing, "deadletters/topics.html")


@requires(Permission.VIEW)
@require_safe
def topic(request: HttpRequest, name: str) -> HttpResponse:
    picture = snapshot.current()
    state, reason = lists.chosen(request, STATES), _reason_filter(name)
    picked = lists.chosen(request, reason)
    rows = queries.letters(name, state="" if state == "any" else state, reason=_reason(picked))
    listing = lists.build(
        request,
        name="letters",
        columns=LETTERS,
        rows=rows,
        row_template="deadletters/_letter.html",
        search=queries.search,
        sort="-at",
        filters=(STATES, reason),
        placeholder=_("Filter by key, detail, origin or group"),
        refresh_on="cluster/dlq",
        drawn_at=picture.totals.dead_letters,
        empty=lists.Empty(title=_("Nothing here"), hint=_("No dead letter of this topic is in this state.")),
    )
    context = {"name": name, "errors": None if request.htmx else _errors(name)}  # type: ignore[attr-defined]  # set by django-htmx
    return lists.respond(request, listing, "deadletters/topic.html", context)


@requires(Permission.MESSAGE_READ)
@require_safe
def letter(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    found = get_object_or_404(Letter, pk=pk, topic=name)
    record = queries.read_record(found.topic, found.partition, found.offset)
    template = "deadletters/letter.html#record" if request.htmx else "deadletters/letter.html"  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, template, {"name": name, "letter": found, **_contents(record)})


@requires(Permission.DEADLETTER_REDRIVE)
@require_http_methods(["GET", "HEAD", "POST"])
def redrive(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    """Send one letter again, edited or as it is."""
    found = get_object_or_404(Letter, pk=pk, topic=name)
    record = queries.read_record(found.topic, found.partition, found.offset)
    contents = _contents(record)
    initial = {
        "target": target_of(found.topic, found.origin_topic) or "",
        "key": contents["key"],
        "value": contents["value"],
        "headers": json.dumps(dict(contents["own"]), ensure_ascii=False, indent=2) if contents["text"] else "",
    }
    form = SendAgain(request.POST or None, initial=initial, text=contents["text"])
    if request.method == "POST" and form.is_valid():
        try:
            delivered = _send(request, found, record, form)
        except (actions.LetterGone, NoTarget) as error:
            form.add_error(None, str(error))
        except kafka.ClusterError as error:
            form.add_error("target", kafka.reason(error))
        else:
            said = _("Sent to %(topic)s, partition %(partition)d, offset %(offset)d.") % {
                "topic": delivered.topic,
                "partition": delivered.partition,
                "offset": delivered.offset,
            }
            return dialogs.done(request, reverse("console:dlq", args=[name]), said)
    context = {"name": name, "letter": found, "form": form, "topics": snapshot.current().user_topics(), **contents}
    return dialogs.show(request, "deadletters/redrive.html", context, refused=bool(form.errors))


def _send(request: HttpRequest, found: Letter, record: kafka.Record | None, form: SendAgain) -> kafka.Delivered:
    data = form.cleaned_data
    if "value" not in data or record is None:
        return actions.send_again(actor=request.user, letter=found, target=data["target"])
    # what was not touched goes back byte for byte: a null stays a null
    untouched = not {"key", "value", "headers"} & set(form.changed_data)
    if untouched:
        return actions.send_again(actor=request.user, letter=found, target=data["target"])
    return actions.send_again(
        actor=request.user,
        letter=found,
        target=data["target"],
        key=data["key"].encode() if "key" in form.changed_data else record.key,
        value=data["value"].encode() if "value" in form.changed_data else record.value,
        headers=data["headers"] if "headers" in form.changed_data else own_headers(record.headers),
        edited=True,
    )


@requires(Permission.DEADLETTER_REDRIVE)
@require_http_methods(["GET", "HEAD", "POST"])
def redrive_all(request: HttpRequest, name: str) -> HttpResponse:
    """Send everything that the list's filter selects again, as a job."""
    selection = _selection(request, name)
    count = queries.unclaimed(queries.letters(name, state=Letter.State.OPEN, **selection)).count()
    form = SendAllAgain(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            job = actions.start_redrive(
                actor=request.user,
                topic=name,
                target=form.cleaned_data["target"],
                per_second=form.cleaned_data["per_second"] or 0,
                **selection,
            )
        except (actions.LetterGone, NoTarget) as error:
            form.add_error(None, str(error))
        else:
            return dialogs.done(request, reverse("console:job", args=[job.pk]), _("The redrive has started."))
    context = {"name": name, "form": form, "count": count, "selection": selection}
    return dialogs.show(request, "deadletters/redrive_all.html", context, refused=bool(form.errors))


@requires(Permission.DEADLETTER_DELETE)
@require_http_methods(["GET", "HEAD", "POST"])
def discard(request: HttpRequest, name: str) -> HttpResponse:
    """Put aside one letter (`pk`), or everything that the list's filter selects."""
    only = get_object_or_404(Letter, pk=request.GET["pk"], topic=name) if request.GET.get("pk", "").isdigit() else None
    selection: dict[str, Any] = {"reason": None, "text": ""} if only else _selection(request, name)
    found = queries.unclaimed(queries.letters(name, state=Letter.State.OPEN, **selection))
    count = found.filter(pk=only.pk).count() if only else found.count()
    form = TypeCount(count, request.POST or None)
    if request.method == "POST" and (only or form.is_valid()):
        done = actions.discard(actor=request.user, topic=name, only=only, **selection)
        said = ngettext("%(n)d dead letter was put aside.", "%(n)d dead letters were put aside.", done) % {"n": done}
        return dialogs.done(request, reverse("console:dlq", args=[name]), said)
    context = {"name": name, "form": form, "count": count, "only": only}
    return dialogs.show(request, "deadletters/discard.html", context, refused=bool(form.errors))


def _errors(name: str) -> lists.Table:
    found = queries.errors(name)
    note = _("open letters, alike but for numbers")
    if found.more:
        note = _("of the newest %(n)d open letters, alike but for numbers") % {"n": found.looked_at}
    return lists.Table(
        name="errors",
        title=_("What went wrong"),
        columns=ERRORS,
        rows=found.rows,
        row_template="deadletters/_error.html",
        note=note,
    )


def _selection(request: HttpRequest, name: str) -> dict[str, Any]:
    """The list's filter, which travels in the dialog's address."""
    picked = lists.chosen(request, _reason_filter(name))
    return {"reason": _reason(picked), "text": request.GET.get("q", "").strip()[: lists.MAX_SEARCH]}


def _reason_filter(name: str) -> lists.Filter:
    causes = [
        lists.Choice(value=cause.reason or UNKNOWN, label=cause.reason or _("not said"), count=cause.count)
        for cause in queries.reasons(name)
    ]
    return lists.Filter(
        name="reason", label=_("Reason"), choices=(lists.Choice(value=ANY, label=_("Any reason")), *causes)
    )


def _reason(picked: str) -> str | None:
    if picked == ANY:
        return None
    return "" if picked == UNKNOWN else picked


def _contents(record: kafka.Record | None) -> dict[str, Any]:
    """A record for people. `text`: key, value and own headers are all UTF-8, so they can be edited."""
    if record is None:
        return {"record": None, "text": False, "key": "", "value": "", "own": (), "added": (), "said": None}
    own = own_headers(record.headers)
    kept = {name for name, _value in own}
    added = [(name, _shown(value)) for name, value in record.headers if name not in kept]
    parts = [record.key or b"", record.value or b"", *(value or b"" for _name, value in own)]
    return {
        "record": record,
        "text": all(map(_is_text, parts)) and len(kept) == len(own),
        "key": _shown(record.key) or "",
        "value": _shown(record.value) or "",
        "own": [(name, _shown(value)) for name, value in own],
        "added": added,
        "said": kafka.deadletter.describe(record),
    }


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _shown(data: bytes | None) -> str | None:
    if data is None:
        return None
    return data.decode() if _is_text(data) else data[:2_000].hex(" ")
