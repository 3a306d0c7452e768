import pytest

from broker.wire import schema


def test_the_definitions_are_kafka_4_4s() -> None:
    assert schema.kafka_version() == "4.4.0"
    fetch = schema.api(1)
    assert (fetch.name, fetch.min, fetch.max, fetch.flexible_from) == ("Fetch", 4, 18, 12)
    assert fetch.listeners == ("broker", "controller")


def test_a_version_that_is_not_released_is_not_the_newest() -> None:
    assert (schema.api(22).max, schema.api(22).unstable) == (5, 6)


def test_an_api_without_flexible_versions_never_becomes_flexible() -> None:
    assert schema.api(17).flexible_from == schema.MAX_VERSION


def test_every_api_has_a_request_and_a_response_of_the_same_versions() -> None:
    for api in schema.apis().values():
        request = schema.message(f"{api.name}Request")
        response = schema.message(f"{api.name}Response")
        assert request.versions == response.versions
        assert request.versions.high in (api.max, api.unstable)


def test_apis_are_listed_in_the_order_of_their_keys() -> None:
    assert list(schema.apis()) == sorted(schema.apis())
    assert len(schema.apis()) == 91


def test_unknown_names_and_keys_are_named_in_the_error() -> None:
    for lookup in (
        lambda: schema.api(4),
        lambda: schema.message("NoSuchRequest"),
        lambda: schema.message("FetchRequest.NoSuchStruct"),
    ):
        with pytest.raises(schema.UnknownMessage):
            lookup()


def test_common_structs_are_found_under_their_message() -> None:
    fields = [field.name for field in schema.message("AddPartitionsToTxnRequest.AddPartitionsToTxnTopic").fields]
    assert fields == ["name", "partitions"]


def test_names_become_snake_case() -> None:
    assert schema.snake_case("ThrottleTimeMs") == "throttle_time_ms"
    assert schema.snake_case("V3AndBelowTopics") == "v3_and_below_topics"
    assert schema.snake_case("KRaftVersion") == "k_raft_version"
