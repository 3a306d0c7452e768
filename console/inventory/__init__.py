"""What there is on the broker, as rows: for Django admin and for joining. Written by the monitor alone; the broker is
the one source of truth, so nothing decides by these rows."""
