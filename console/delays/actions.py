"""Taking a pending delivery back: permission, the service's answer, record."""

from typing import Any

from console import audit, kafka
from console.accounts.permissions import Permission, demand


class TooLate(Exception):
    """It was not pending any more when the service came to the cancellation."""


def cancel(*, actor: Any, partition: int, row: int, target: str = "", id: str = "") -> None:
    """Returns once the service has taken it back; raises TooLate when there was nothing to take back any more, and
    ClientError when the service hasn't answered: then it does so as soon as it runs."""
    demand(actor, Permission.DELIVERY_CANCEL)
    before = {"partition": partition, "row": row, "target": target, "id": id}
    with audit.change(actor, "delivery.cancel", kind="delivery", name=f"{partition}/{row}", before=before) as change:
        answer = kafka.delays().cancel_row(partition, row)
        if answer.count == 0:
            raise TooLate
        change.after = {"cancelled": answer.count}


def cancel_by_id(*, actor: Any, key: bytes | None, id: str) -> int | None:
    """The same for everything pending with this key and id; how many that were, None where it can't be said."""
    demand(actor, Permission.DELIVERY_CANCEL)
    shown = None if key is None else key.decode("utf-8", "replace")
    with audit.change(actor, "delivery.cancel", kind="delivery", name=id, before={"key": shown, "id": id}) as change:
        answer = kafka.delays().cancel(key, id)
        if answer.count == 0:
            raise TooLate
        change.after = {"cancelled": answer.count}
    return answer.count
