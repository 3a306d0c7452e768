"""Rates, lag's ETA and the pace of sampling, with time as an argument."""

from console.monitor.rates import Cadence, Slope, Slopes, eta


def test_one_sample_is_no_rate() -> None:
    slope = Slope(5)
    slope.add(100, 10)
    assert slope.rate(100) is None


def test_the_rate_is_the_slope_over_the_window() -> None:
    slope = Slope(5)
    for second in range(20):
        slope.add(100 + second, 1000 * second)
    assert slope.rate(119) == 1000


def test_a_position_that_goes_back_begins_anew_and_is_never_a_negative_rate() -> None:
    slope = Slope(5)
    for at, position in ((0, 100), (1, 200), (2, 5)):
        slope.add(at, position)
    assert slope.rate(2) is None
    slope.add(3, 15)
    assert slope.rate(3) == 10


def test_an_old_sample_is_no_rate_of_now() -> None:
    slope = Slope(5)
    slope.add(0, 0)
    slope.add(1, 10)
    assert slope.rate(1) == 10
    assert slope.rate(60) is None


def test_another_shape_begins_anew() -> None:
    slopes = Slopes(5)
    slopes.add("orders", 3, 0, 1000)
    slopes.add("orders", 3, 1, 1010)
    assert slopes.rate("orders", 1) == 10
    slopes.add("orders", 6, 2, 5000)
    assert slopes.rate("orders", 2) is None


def test_names_that_are_gone_are_forgotten() -> None:
    slopes = Slopes(5)
    slopes.add("orders", 3, 0, 0)
    slopes.add("orders", 3, 1, 10)
    slopes.keep({"others"})
    assert slopes.rate("orders", 1) is None


def test_eta_is_known_only_while_the_lag_shrinks() -> None:
    assert eta(None, 5, 1) is None
    assert eta(0, None, None) == 0
    assert eta(100, 30, 10) == 5
    assert eta(100, 10, 10) is None
    assert eta(100, 10, 30) is None
    assert eta(100, None, 10) is None


def test_what_takes_long_is_done_less_often_up_to_a_limit() -> None:
    pace = Cadence(1, 30, share=8)
    pace.done(100, took=0.01)
    assert not pace.is_due(100.5)
    assert pace.is_due(101)
    pace.done(100, took=2)
    assert not pace.is_due(115)
    assert pace.is_due(116)
    pace.done(100, took=60)
    assert pace.is_due(130)
