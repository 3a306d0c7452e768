"""The manifests of other projects' suites are whole: every test has "run" or a reason."""

import pytest

from tests.acceptance.suites.run import FOLDER, Suite


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_test_is_run_or_has_a_reason(path: object) -> None:
    suite = Suite.read(path)  # type: ignore[arg-type]
    assert len(suite.commit) == 40
    assert len(suite.chosen) > len(suite.tests) / 2
    reasons = {suite.tests[test] for test in suite.excluded}
    assert suite.again is not None or "again" not in suite.tests.values()
    assert all(any(test.startswith(each) for test in suite.chosen) for each in suite.not_again)
    assert all(len(reason.split()) > 4 for reason in reasons)
    assert all(test.startswith(f"{suite.folder}/") and "::" in test for test in suite.tests)
