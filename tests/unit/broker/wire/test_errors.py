from broker.wire.errors import ErrorCode


def test_codes_are_kafkas() -> None:
    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == 3
    assert ErrorCode.UNSUPPORTED_VERSION == 35
    assert ErrorCode.REBOOTSTRAP_REQUIRED == 129
    assert sorted(ErrorCode) == list(range(-1, 137))


def test_a_code_says_whether_to_try_again() -> None:
    assert ErrorCode.COORDINATOR_LOAD_IN_PROGRESS.retriable
    assert not ErrorCode.TOPIC_AUTHORIZATION_FAILED.retriable
