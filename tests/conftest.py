"""Settings for every test: Hypothesis draws the same examples on each run where `CI` is set, new ones elsewhere."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
