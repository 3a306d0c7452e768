"""The closing lines of a test run: what failed and why, from the runner's JUnit files, so that a log's end says it all.

python -m tests.digest main.xml browser.xml
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

FAILURES = 8
CHARACTERS = 1_500


def digest(path: Path) -> list[str]:
    """The failures of one run (at most `FAILURES`, the last `CHARACTERS` of each), then its totals."""
    try:
        suite = ElementTree.parse(path).getroot().find("testsuite")
    except (OSError, ElementTree.ParseError) as error:
        return [f"{path.stem}: no report, so the run did not end: {error}"]
    if suite is None:
        return [f"{path.stem}: an empty report"]
    lines = []
    bad = [
        (case, trouble) for case in suite.iter("testcase") for trouble in case if trouble.tag in ("failure", "error")
    ]
    for case, trouble in bad[:FAILURES]:
        lines.append(f"{trouble.tag.upper()} {case.get('classname')}::{case.get('name')}")
        lines.append((trouble.text or trouble.get("message") or "").strip()[-CHARACTERS:])
    if len(bad) > FAILURES:
        lines.append(f"… and {len(bad) - FAILURES} more")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    lines.append(
        f"{path.stem}: {passed} passed, {counts['failures']} failed, {counts['errors']} errors,"
        f" {counts['skipped']} not run, {float(suite.get('time', 0)):.0f} s"
    )
    return lines


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print("\n".join(digest(Path(name))))
